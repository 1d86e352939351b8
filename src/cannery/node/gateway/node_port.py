"""All subnets of a node as one port, for the node's own questions: each goes to the subnet of its canister.

What is about the whole node, and the numbers of all subnets together, come from here; signed requests do not
pass it (`app`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from cannery.node.handover import IngressMessage, QueryDone, QueryMessage, StateRead, Values
from cannery.node.subnet_port import Submission, SubnetPort
from cannery.node.vitals import Vitals
from cannery.replica import keys
from cannery.replica.places import ROOT, SUBNET_BITS

_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})? (.*)$")


class NodePort:
    """Behind `SubnetPort`. `ports`: those of the subnets, by number."""

    def __init__(self, ports: Sequence[SubnetPort]) -> None:
        self.ports = tuple(ports)

    def submit(self, ingress: IngressMessage) -> Submission:
        """Hand over a call to the subnet of its canister."""
        return self._of(ingress.canister_id).submit(ingress)

    async def ask(self, query: QueryMessage) -> QueryDone:
        """Run a query on the subnet of its canister; on the first one where it is of the whole node."""
        return await self._of(query.canister_id).ask(query)

    async def read(self, read: StateRead) -> Values:
        """Read the state of the subnet of a canister."""
        return await self._of(read.canister_id).read(read)

    async def measure(self) -> str:
        """Give the metrics of all subnets, each sample labelled with its subnet where there are several."""
        texts = await asyncio.gather(*(port.measure() for port in self.ports))
        return texts[0] if len(texts) == 1 else merge_metrics(texts)

    async def examine(self) -> Vitals:
        """Say how the node is: sums over its subnets, and the first trouble of any."""
        return add_vitals(await self.examine_each())

    async def examine_each(self) -> list[Vitals]:
        """Say how each subnet is, by number."""
        return await asyncio.gather(*(port.examine() for port in self.ports))

    async def close(self) -> None:
        """Let go of the subnets."""
        await asyncio.gather(*(port.close() for port in self.ports))

    def _of(self, canister_id: bytes) -> SubnetPort:
        counter = keys.canister_counter(canister_id)
        number = ROOT if counter is None else counter >> SUBNET_BITS
        return self.ports[number if number < len(self.ports) else ROOT]


def add_vitals(each: Sequence[Vitals]) -> Vitals:
    """Add up how subnets are; times and the machine are the first one's, trouble is whichever has any."""
    first = each[0]
    if len(each) == 1:
        return first
    troubles = [
        f"subnet {number}: {vitals.refusing}"
        for number, vitals in enumerate(each)
        if vitals.refusing is not None
    ]
    machines = [vitals.machine for vitals in each if vitals.machine is not None]
    machine = first.machine
    if machine is not None:
        machine = replace(
            machine,
            store_bytes=sum(found.store_bytes for found in machines),
            memory_bytes=sum(found.memory_bytes for found in machines),
        )
    return replace(
        first,
        block_number=sum(vitals.block_number for vitals in each),
        waiting=sum(vitals.waiting for vitals in each),
        under_way=sum(vitals.under_way for vitals in each),
        unsynced_rounds=sum(vitals.unsynced_rounds for vitals in each),
        busy_count=sum(vitals.busy_count for vitals in each),
        canister_count=sum(vitals.canister_count for vitals in each),
        minted=sum(vitals.minted for vitals in each),
        burned=sum(vitals.burned for vitals in each),
        held=sum(vitals.held for vitals in each),
        refusing="; ".join(troubles) or None,
        machine=machine,
    )


def merge_metrics(texts: Sequence[str]) -> str:
    """Put the pages of several subnets into one: each family once, its samples labelled with their subnet."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for number, text in enumerate(texts):
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                family = line.split(" ")[2]
                known = heads.setdefault(family, [])
                if line not in known:
                    known.append(line)
                continue
            found = _SAMPLE.match(line)
            if found is None:
                continue
            name, labels, value = found.groups()
            own = f'subnet="{number}"' + ("," + labels[1:-1] if labels else "")
            samples.setdefault(family, []).append(f"{name}{{{own}}} {value}")
    return "".join("\n".join([*heads[family], *samples.get(family, [])]) + "\n" for family in heads)
