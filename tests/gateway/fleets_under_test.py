"""A subnet port over the in-process node, and indexes of fleets for it: honest, hanging, silent."""

from __future__ import annotations

from cannery import Canister, Context, StableLog, nat32, nat64, query, record, update
from cannery.cdk.management import Management
from cannery.node.answers import run_query
from cannery.node.handover import IngressMessage, QueryDone, QueryMessage, StateRead, Values
from cannery.node.subnet_port import Submission
from cannery.node.vitals import Vitals
from cannery.replica.block import ReplicaConfig
from cannery.testing import Actor, Node

HANGS_SOON = ReplicaConfig(query_cpu_ns_max=200_000_000)


class NodePort:
    """Behind `SubnetPort`, for questions: queries of an in-process node whose rounds the test drives."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.asked: list[str] = []
        self.vitals: Vitals | None = None

    def submit(self, ingress: IngressMessage) -> Submission:
        raise AssertionError(f"this port takes no updates, and {ingress.method} is one")

    async def ask(self, query: QueryMessage) -> QueryDone:
        self.asked.append(query.method)
        return run_query(self.node.subnet, 0, query, None)

    async def read(self, read: StateRead) -> Values:
        raise AssertionError(f"this port reads nothing, and {read.paths} is asked for")

    async def measure(self) -> str:
        return self.node.subnet.measure()

    async def examine(self) -> Vitals:
        return self.vitals or self.node.subnet.vitals()

    async def close(self) -> None:
        return None


@record
class Sample:
    name: str
    help: str
    labels: list[tuple[str, str]]
    value: float


@record
class AlarmLine:
    index: nat64
    at_ns: nat64
    kind: str
    subject: str
    text: str
    is_over: bool


@record
class Entry:
    at_ns: nat64
    kind: str
    subject: str
    text: str
    is_over: bool


class Honest(Canister):
    """An index that tells what it was told to tell."""

    samples = StableLog(Sample)
    entries = StableLog(Entry)

    @update
    def found(self, ctx: Context) -> None:
        ctx.notify(Management().cannery_fleet_found())

    @update
    def tell(self, ctx: Context, sample: Sample) -> None:
        self.samples.append(sample)

    @update
    def alarm(self, ctx: Context, kind: str, subject: str, text: str, is_over: bool) -> nat64:
        return self.entries.append(Entry(ctx.now_ns, kind, subject, text, is_over))

    @update
    def prune(self, ctx: Context, before: nat64) -> None:
        self.entries.prune(before=before)

    @query
    def fleet_metrics(self, ctx: Context) -> list[Sample]:
        return [sample for _, sample in self.samples.page(limit=10_000).items]

    @query
    def fleet_alarms(self, ctx: Context, after: nat64 | None, limit: nat32) -> list[AlarmLine]:
        page = self.entries.page(after=after, limit=limit)
        return [AlarmLine(index, e.at_ns, e.kind, e.subject, e.text, e.is_over) for index, e in page.items]


class Hanging(Canister):
    """An index whose queries do not end by themselves."""

    @update
    def found(self, ctx: Context) -> None:
        ctx.notify(Management().cannery_fleet_found())

    @query
    def fleet_metrics(self, ctx: Context) -> list[Sample]:
        while True:
            pass

    @query
    def fleet_alarms(self, ctx: Context, after: nat64 | None, limit: nat32) -> list[AlarmLine]:
        while True:
            pass


class Silent(Canister):
    """An index without any of the methods, and one whose reply is something else."""

    @update
    def found(self, ctx: Context) -> None:
        ctx.notify(Management().cannery_fleet_found())

    @query
    def fleet_metrics(self, ctx: Context) -> str:
        return "# TYPE cannery_rounds_total gauge\ncannery_rounds_total 5\n"


def fleet_of(node: Node, kind: type[Canister], name: str | None = None) -> Actor:
    """Install an index that has founded its fleet, named on the node if wished."""
    from cannery.replica.management.types import NameSetArgs

    index = node.install(kind)
    index.found()
    node.run()
    if name is not None:
        node.manage("cannery_name_set", NameSetArgs(name, index.id))
    return index
