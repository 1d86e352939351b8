"""Scripted answers to HTTP outcalls: what a test's world outside says, without any network.

`Node.answer_http` adds a rule; the last one that matches a URL counts. A rule answers with a response, with
bytes (status 200), with a failure, with silence, or by a function of the request. Without a rule a request
fails with a text that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cannery.errors import RejectCode
from cannery.node.outcalls import Outcall
from cannery.replica.block import OutcallAnswer
from cannery.replica.outcall_url import Url


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What a canister asked for; `method` in capitals."""

    url: str
    method: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HttpFailure:
    """No response, for this reason: a host that is down, say."""

    text: str = "the host is down"


@dataclass(frozen=True, slots=True)
class HttpSilence:
    """No answer at all: the outcall expires when its time has passed (`node.advance`)."""


HttpAnswer = HttpResponse | HttpFailure | HttpSilence | bytes
HttpRule = HttpAnswer | Callable[[HttpRequest], HttpAnswer]


class HttpScript:
    """The rules of one node, and what was asked so far."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self._rules: list[tuple[str, HttpRule]] = []

    def add(self, pattern: str, rule: HttpRule) -> None:
        """Add a rule for URLs that match a pattern, in which `*` stands for anything."""
        self._rules.append((pattern, rule))

    def perform(self, outcall: Outcall) -> OutcallAnswer | None:
        """Give the answer of the last rule that matches; None for silence."""
        asked = outcall.record
        origin = Url(asked.scheme, asked.host, asked.port, "").origin
        prefix = "https://" if asked.scheme == "https" else ""
        request = HttpRequest(prefix + origin + asked.target, asked.method, asked.headers, asked.body)
        self.requests.append(request)
        found = self._find(request)
        if isinstance(found, HttpSilence):
            return None
        if isinstance(found, HttpFailure):
            return outcall.refused(RejectCode.SYS_TRANSIENT, found.text)
        if isinstance(found, bytes):
            found = HttpResponse(found)
        size_bytes = len(found.body) + sum(len(name) + len(value) for name, value in found.headers)
        limit = asked.response_size_bytes_max
        if size_bytes > limit:
            text = f"the response is larger than max_response_bytes: {limit} bytes, headers included"
            return outcall.refused(RejectCode.SYS_FATAL, text)
        return OutcallAnswer(outcall.canister_id, outcall.callback, found.status, found.headers, found.body)

    def _find(self, request: HttpRequest) -> HttpAnswer:
        for pattern, rule in reversed(self._rules):
            if fnmatchcase(request.url, pattern):
                return rule(request) if callable(rule) else rule
        return HttpFailure(f"no scripted answer for {request.url}: add one with node.answer_http")
