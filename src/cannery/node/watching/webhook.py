"""A webhook: a URL that is told of alarms.

It gets batches of alarms as JSON in a POST, signed with a shared secret if there is one. What it does not
answer with 2xx counts as not delivered: the same batch is sent again after a pause that grows. Its failures
are logged once, and so is their end.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

import httpx

from cannery.limits import WEBHOOK_PAUSE_NS_MAX, WEBHOOK_PAUSE_NS_MIN, WEBHOOK_WAIT_MS_MAX
from cannery.node.watching.alarm import Alarm
from cannery.node.watching.alarm_file import Report

_BODY_VERSION: Final = 1
_NS_PER_S: Final = 1_000_000_000


class WebhookReceiver:
    """A URL that takes alarms. `label` names it in logs and metrics, where the URL itself may be a secret."""

    def __init__(
        self,
        url: str,
        label: str,
        secret: str,
        runbooks: str,
        client: httpx.AsyncClient,
        report: Report,
        monotonic_ns: Callable[[], int],
    ) -> None:
        self._url = url
        self._label = label
        self._secret = secret.encode()
        self._runbooks = runbooks
        self._client = client
        self._report = report
        self._monotonic_ns = monotonic_ns
        self._pause_ns = 0
        self.next_ns = 0
        self.failing = ""
        self.name = f"webhook {sha256(url.encode()).hexdigest()[:16]}"

    async def deliver(self, alarms: Sequence[Alarm], now_ns: int) -> bool:
        text = await self._post(alarms, now_ns)
        if text:
            if not self.failing:
                self._report(
                    f"{self._label} does not take alarms ({text}); they are sent again until it does"
                )
            self.failing = text
            self._pause_ns = min(max(self._pause_ns * 2, WEBHOOK_PAUSE_NS_MIN), WEBHOOK_PAUSE_NS_MAX)
            self.next_ns = self._monotonic_ns() + self._pause_ns
            return False
        if self.failing:
            self._report(f"{self._label} takes alarms again")
        self.failing, self._pause_ns = "", 0
        return True

    async def _post(self, alarms: Sequence[Alarm], now_ns: int) -> str:
        """Send a batch; give why that failed, or nothing."""
        body = json.dumps(
            {"version": _BODY_VERSION, "alarms": [alarm.fields(self._runbooks) for alarm in alarms]}
        ).encode()
        headers = {"content-type": "application/json", "user-agent": "cannery"}
        if self._secret:
            headers["cannery-signature"] = sign_body(self._secret, body, now_ns // _NS_PER_S)
        try:
            response = await self._client.post(
                self._url, content=body, headers=headers, timeout=WEBHOOK_WAIT_MS_MAX / 1000
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return str(error) or type(error).__name__
        return "" if response.is_success else f"HTTP status {response.status_code}"


def sign_body(secret: bytes, body: bytes, time_s: int) -> str:
    """Give the value of the signature's header: a time, and HMAC-SHA256 of that time, a dot and the body."""
    digest = hmac.new(secret, b"%d." % time_s + body, sha256).hexdigest()
    return f"t={time_s},v1={digest}"
