"""Requests of the stress tool, signed and framed as HTTP beforehand, and the check of kept answers."""

from __future__ import annotations

import secrets
import time
from typing import Final, Literal
from urllib.parse import urlsplit

from cannery.apps.zones import bounds
from cannery.apps.zones.history import HistoryAsk, HistoryOrder, HistoryPage, HistoryRange
from cannery.candid.codec import decoder, encoder
from cannery.candid.errors import CandidError
from cannery.candid.python import type_of
from cannery.cli.problem import Problem
from cannery.protocol.envelope import CallContent, QueryContent, build_envelope
from cannery.protocol.identity import Identity
from cannery.protocol.principal import Principal
from cannery.protocol.query_signature import (
    QueryRejected,
    QueryResponseError,
    decode_query_response,
)

EXPIRY_NS: Final = 240 * 1_000_000_000
# A message in an answer, beside its own bytes.
_MESSAGE_HEAD_SIZE_BYTES: Final = 60

encode_history = encoder((type_of(HistoryAsk),))
decode_history = decoder((type_of(HistoryPage),))
encode_posts = encoder((type_of(list[tuple[bytes, bytes]]),))


class Signer:
    """Signs and frames requests for one node."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise Problem(f"{url}: stress speaks plain HTTP, as a node does; give http://HOST:PORT")
        self.address = parts.hostname, parts.port or 80
        self._host = parts.netloc.encode()

    def sign(
        self,
        kind: Literal["call", "query"],
        canister: Principal,
        method: str,
        arg: bytes,
        identity: Identity,
    ) -> bytes:
        """Sign one request that holds for four minutes."""
        return self.frame(kind, canister, method, arg, identity, secrets.token_bytes(16))[1]

    def frame(
        self,
        kind: Literal["call", "query"],
        canister: Principal,
        method: str,
        arg: bytes,
        identity: Identity,
        nonce: bytes,
    ) -> tuple[CallContent | QueryContent, bytes]:
        """Sign one request with a nonce of one's own; give its content and the whole HTTP request."""
        content_type = CallContent if kind == "call" else QueryContent
        content = content_type(
            sender=identity.principal,
            canister_id=canister,
            method_name=method,
            arg=arg,
            ingress_expiry_ns=time.time_ns() + EXPIRY_NS,
            nonce=nonce,
        )
        body = build_envelope(content, identity)
        path = f"/api/{'v4' if kind == 'call' else 'v3'}/canister/{canister}/{kind}".encode()
        return content, (
            b"POST %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/cbor\r\ncontent-length: %d\r\n\r\n"
            % (path, self._host, len(body))
        ) + body


def history_of(keys: list[bytes]) -> bytes:
    """Ask for everything under some keys, oldest first, with bodies, in one page."""
    ask = HistoryAsk(
        keys,
        HistoryRange.all(),
        HistoryOrder.oldest_first(),
        merged=False,
        bodies=True,
        limit=bounds.HISTORY_MESSAGE_COUNT_MAX,
        bytes_max=bounds.HISTORY_PAGE_SIZE_BYTES_MAX,
        per_topic=None,
        cursor=None,
    )
    return encode_history((ask,))


def topics_in_a_page(messages: int, size_bytes: int) -> int:
    """Say how many topics of so many messages one page holds; 0 where not even one."""
    return min(
        bounds.HISTORY_TOPIC_COUNT_MAX,
        bounds.HISTORY_MESSAGE_COUNT_MAX // messages,
        bounds.HISTORY_PAGE_SIZE_BYTES_MAX // (messages * (size_bytes + _MESSAGE_HEAD_SIZE_BYTES)),
    )


def check_history(body: bytes) -> tuple[int, str]:
    """Decode an answer to a history request: how many messages it has, and its state in one word."""
    try:
        answer = decode_query_response(body).answer
        if isinstance(answer, QueryRejected):
            return 0, f"refused: {answer.reject_message}"
        (page,) = decode_history(answer.arg)
    except (QueryResponseError, CandidError) as error:
        return 0, f"not to be read: {error}"
    assert isinstance(page, HistoryPage), "that is what was decoded"
    return sum(len(run.messages) for run in page.runs), page.state.tag
