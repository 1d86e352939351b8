"""Pages about the node: /api/v2/status, /cannery.json, /health, /metrics.

The status follows the IC interface specification, section "Status endpoint"; the rest is Cannery's own
(docs/http.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus

from msgspec.structs import asdict, replace

from cannery.limits import GATEWAY_NAME_COUNT_MAX
from cannery.node.gateway.asking import AskError, Questions
from cannery.node.gateway.fleet_metrics import FleetMetrics
from cannery.node.gateway.gateway_metrics import show_gateways
from cannery.node.gateway.http import CORS_HEADERS, Answer, Refusal, cbor_answer, json_answer, text_answer
from cannery.node.gateway.node_port import NodePort, add_vitals
from cannery.node.gateway.settings import NodeIdentity
from cannery.node.gateway.siblings import Siblings
from cannery.node.gateway.state_paths import SubnetFacts
from cannery.node.subnet_port import SubnetPort
from cannery.node.vitals import Vitals
from cannery.node.watching.pages import WatchPages
from cannery.protocol.cbor import CborSource, encode

_ASK_S = 5.0
_FLEET_ASK_S = 1.0
_METRICS_HEADERS = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"), *CORS_HEADERS)


class NodePages:
    """Answers the pages about the node."""

    def __init__(
        self,
        ports: Sequence[SubnetPort],
        facts: Sequence[SubnetFacts],
        identity: NodeIdentity,
        own_metrics: Callable[[], str],
        monotonic_ns: Callable[[], int],
        watch: WatchPages | None,
        siblings: Siblings,
    ) -> None:
        port = NodePort(ports)
        self._port = port
        self._facts = facts[0]
        self._subnet_ids = [str(each.subnet_id) for each in facts]
        self._own_metrics = own_metrics
        self._version = identity.version
        self._monotonic_ns = monotonic_ns
        self._watch = watch
        self._questions = Questions(port, _ASK_S)
        self._fleets = FleetMetrics(Questions(port, _FLEET_ASK_S), monotonic_ns, siblings.fleets)
        self._tallies = siblings.tallies
        fields: dict[str, CborSource] = {
            "ic_api_version": "0.66.0",
            "impl_source": "cannery",
            "impl_version": identity.version,
            "replica_health_status": "healthy",
            "root_key": self._facts.root_key_der,
        }
        self._status = cbor_answer(encode(fields, self_describe=True))

    def status(self) -> Answer:
        """Give root key and version; agents fetch this before all else."""
        return self._status

    async def node(self) -> Answer:
        """Give what a client needs to begin with: version, keys, and the ids of the canisters that have
        names.
        """
        return json_answer(
            {
                "version": self._version,
                "root_key": self._facts.root_key_der.hex(),
                "subnet_id": str(self._facts.subnet_id),
                "subnets": self._subnet_ids,
                "node_id": str(self._facts.node_id),
                "canisters": await self._names(),
            }
        )

    async def health(self, *, verbose: bool) -> Answer:
        """Say whether the subnet answers; `verbose`: and how it is."""
        begun_ns = self._monotonic_ns()
        try:
            async with asyncio.timeout(_ASK_S):
                each = await self._port.examine_each()
        except TimeoutError:
            text = f"the subnet has not answered for {_ASK_S:.0f} s: it may be restarting"
            if verbose:
                page = json_answer(
                    {"status": "unhealthy", "text": text, "version": self._version, **self._show_gateways()}
                )
                return replace(page, status=HTTPStatus.SERVICE_UNAVAILABLE)
            return text_answer(HTTPStatus.SERVICE_UNAVAILABLE, text)
        if not verbose:
            return text_answer(HTTPStatus.OK, "healthy")
        took_ns = self._monotonic_ns() - begun_ns
        watched = {} if self._watch is None else self._watch.health()
        fields = {
            "version": self._version,
            "answered_ns": took_ns,
            **show_vitals(add_vitals(each)),
            **self._show_subnets(each),
            **self._show_gateways(),
            **watched,
        }
        return json_answer(fields)

    def _show_gateways(self) -> dict[str, object]:
        """Say which gateway answers, and lay out all of them."""
        gateways = show_gateways(self._tallies, self._monotonic_ns())
        return {"gateway": self._tallies.number, "gateways": gateways}

    def _show_subnets(self, each: Sequence[Vitals]) -> dict[str, object]:
        """Lay out the subnets one by one, where there are several."""
        if len(each) == 1:
            return {}
        shown = zip(self._subnet_ids, each, strict=True)
        return {"subnets": [{"subnet_id": subnet_id, **show_vitals(vitals)} for subnet_id, vitals in shown]}

    async def metrics(self) -> Answer:
        """Give the metrics of the gateways, of the subnets and of the fleets in Prometheus' text format."""
        own = self._own_metrics() + ("" if self._watch is None else self._watch.metrics())
        try:
            async with asyncio.timeout(_ASK_S):
                subnet_metrics = await self._port.measure()
        except TimeoutError:
            return _metrics_answer(own + "# the subnet has not answered\n")
        return _metrics_answer(own + subnet_metrics + await self._fleets.render())

    async def _names(self) -> dict[str, str]:
        try:
            names = await self._questions.names()
        except AskError as error:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{error}; try again", ((b"retry-after", b"2"),)
            ) from error
        return {name: str(canister_id) for name, canister_id in names[:GATEWAY_NAME_COUNT_MAX]}


def show_vitals(vitals: Vitals) -> dict[str, object]:
    """Lay out how a subnet is, for `/health?verbose`."""
    machine = None if vitals.machine is None else asdict(vitals.machine)
    return {
        "status": "healthy" if vitals.refusing is None else "refusing updates",
        "refusing": vitals.refusing,
        "block": {"number": vitals.block_number, "time_ns": vitals.block_time_ns},
        "uptime_ns": vitals.uptime_ns,
        "updates": {
            "waiting": vitals.waiting,
            "under_way": vitals.under_way,
            "unsynced_rounds": vitals.unsynced_rounds,
        },
        "canisters": {"count": vitals.canister_count, "busy": vitals.busy_count},
        "cycles": {
            "minted": vitals.minted,
            "burned": vitals.burned,
            "held": vitals.held,
        },
        "machine": machine,
    }


def _metrics_answer(text: str) -> Answer:
    return Answer(HTTPStatus.OK, _METRICS_HEADERS, text.encode())
