"""The watching of a node: the alarms' looks and the canary's probes, as tasks of its first gateway process.

Whoever has neither webhooks nor a canary does not pay for an HTTP client.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cannery.errors import StoreError
from cannery.limits import ALARM_ASK_WAIT_MS_MAX, ALARM_LOOK_MS
from cannery.node.gateway.app import Clocks
from cannery.node.gateway.asking import Questions
from cannery.node.subnet_port import SubnetPort
from cannery.node.watching.alarm_file import ALARMS, AlarmsRecord, Report, StateFile
from cannery.node.watching.canary import CANARY, CanaryRecord
from cannery.node.watching.receivers import LogReceiver, Receiver
from cannery.node.watching.settings import WatchSettings
from cannery.node.watching.watcher import AlarmWatcher
from cannery.protocol.identity import Identity

if TYPE_CHECKING:
    import httpx

    from cannery.node.watching.canary_probe import CanaryProbe

_MS_PER_S: Final = 1_000


@dataclass(frozen=True, slots=True)
class WatchParts:
    """What the watching stands on: `url` is where the node itself is reached, `operator` sends the canary."""

    port: SubnetPort
    operator: Identity
    url: str
    root_key_der: bytes
    alarms: Path
    canary: Path
    report: Report
    clocks: Clocks


class Watching:
    """Runs until it is cancelled; close it then."""

    def __init__(self, parts: WatchParts, settings: WatchSettings) -> None:
        self._parts = parts
        self._settings = settings
        self._client = _http_client() if settings.webhook or settings.canary_every_s else None
        self._canary_file = StateFile(parts.canary, CANARY, CanaryRecord)
        self._canary = self._canary_file.read(parts.report)
        if not settings.canary_every_s:
            self._canary.failures_in_a_row = 0
        self._probe = self._make_probe()
        self.watcher = AlarmWatcher(
            parts.port,
            Questions(parts.port, ALARM_ASK_WAIT_MS_MAX / _MS_PER_S),
            self._receivers(),
            StateFile(parts.alarms, ALARMS, AlarmsRecord),
            settings.disk_low_bytes,
            parts.report,
            parts.clocks,
        )

    async def run(self) -> None:
        """Look and probe, for ever."""
        tasks = [self._look_for_ever()]
        if self._settings.canary_every_s:
            tasks.append(self._probe_for_ever())
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(task)

    async def close(self) -> None:
        """Let go of connections."""
        if self._client is not None:
            await self._client.aclose()

    async def look(self) -> None:
        """Look for alarms once."""
        await self.watcher.look(self._canary.state)

    async def probe(self) -> None:
        """Send one probe and count it."""
        assert self._probe is not None, "there is a canary where one is configured"
        clocks = self._parts.clocks
        begun_ns = clocks.monotonic_ns()
        failure = await self._probe.send(clocks.now_ns())
        took_ns = clocks.monotonic_ns() - begun_ns
        self._canary.note(clocks.now_ns(), took_ns, failure)
        try:
            self._canary_file.save(self._canary)
        except StoreError as error:
            if not failure:
                self._parts.report(f"the canary's record: {error}")

    def _make_probe(self) -> CanaryProbe | None:
        if self._client is None:
            return None
        from cannery.node.watching.canary_probe import CanaryProbe

        parts = self._parts
        return CanaryProbe(parts.url, parts.operator, parts.root_key_der, self._client)

    def _receivers(self) -> list[Receiver]:
        settings, parts = self._settings, self._parts
        log = LogReceiver(parts.report, settings.runbooks)
        if self._client is None:
            return [log]
        from cannery.node.watching.webhook import WebhookReceiver

        webhooks = [
            WebhookReceiver(
                url,
                f"webhook-{number}",
                settings.webhook_secret,
                settings.runbooks,
                self._client,
                parts.report,
                parts.clocks.monotonic_ns,
            )
            for number, url in enumerate(settings.webhook, 1)
        ]
        return [log, *webhooks]

    async def _look_for_ever(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(ALARM_LOOK_MS / _MS_PER_S)

    async def _probe_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.canary_every_s)
            await self.probe()


def _http_client() -> httpx.AsyncClient:
    """Make a client that asks directly: past proxies of the environment, and along no redirect."""
    import httpx

    return httpx.AsyncClient(trust_env=False, follow_redirects=False)
