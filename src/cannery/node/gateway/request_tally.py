"""What became of a gateway's requests, by kind: answers by status, how long they took, time-outs, refusals.

Kinds are the gateway's verbs and reasons a fixed few, so that the number of series is bounded. They are
counted in the process's page (`tally_page`). Nothing here reads a clock.
"""

from __future__ import annotations

from bisect import bisect_left
from http import HTTPStatus
from typing import Final

from cannery.node.gateway.tally_page import BY_VERB, TallyPage
from cannery.node.metrics import SECONDS_BUCKETS

_NS_PER_S: Final = 1_000_000_000
_REASONS: Final = {
    HTTPStatus.TOO_MANY_REQUESTS: "rate",
    HTTPStatus.SERVICE_UNAVAILABLE: "busy",
}
_INVALID_FROM: Final = 400
_INVALID_UNTIL: Final = 500


class RequestTally:
    """Counts the requests of one gateway process."""

    __slots__ = ("_numbers",)

    def __init__(self, page: TallyPage) -> None:
        self._numbers = page.numbers

    def note(self, verb: str, status: int, duration_ns: int) -> None:
        """Count a request that was answered with this HTTP status."""
        numbers, places = self._numbers, BY_VERB[verb]
        numbers[places.statuses[status]] += 1
        numbers[places.buckets + bisect_left(SECONDS_BUCKETS, duration_ns / _NS_PER_S)] += 1
        numbers[places.sum_ns] += duration_ns
        if status < _INVALID_FROM:
            return
        if status == HTTPStatus.GATEWAY_TIMEOUT:
            self.note_timeout(verb)
        elif status < _INVALID_UNTIL or status == HTTPStatus.SERVICE_UNAVAILABLE:
            self._refuse(verb, _REASONS.get(HTTPStatus(status), "invalid"))

    def note_timeout(self, verb: str) -> None:
        """Count a request that had no answer of its subnet in time, whatever its client was told instead."""
        self._numbers[BY_VERB[verb].timeouts] += 1

    def note_reject(self, verb: str) -> None:
        """Count a request that the canister or the subnet rejected, in an answer of status 200."""
        self._refuse(verb, "rejected")

    def _refuse(self, verb: str, reason: str) -> None:
        self._numbers[BY_VERB[verb].reasons[reason]] += 1
