"""The canary's probe: a signed message of the node to itself, the whole way that a client's goes.

Over HTTP to the node's own port, through gateway, order, execution and sync, to a certificate that is checked
with the root key. It calls `cannery_canary` of the management canister, which gives back what it got.
"""

from __future__ import annotations

import secrets
from typing import Final

import httpx

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.errors import DecodeError
from cannery.limits import CANARY_WAIT_MS_MAX
from cannery.protocol import cbor
from cannery.protocol.certificate import decode_certificate, verify_certificate
from cannery.protocol.envelope import CallContent, build_envelope, request_id_of
from cannery.protocol.identity import Identity
from cannery.protocol.principal import MANAGEMENT
from cannery.protocol.request_status import Rejected, Replied, read_request_status
from cannery.replica.management.watching import CANARY_METHOD

_PATH: Final = f"/api/v4/canister/{MANAGEMENT}/call"
_WORD_BYTES: Final = 16
_EXPIRY_NS: Final = 60_000_000_000
_encode: Final = encoder((type_of(bytes),))


class CanaryProbe:
    """Sends probes to a node's URL as one of its operators."""

    def __init__(self, url: str, identity: Identity, root_key_der: bytes, client: httpx.AsyncClient) -> None:
        self._url = url + _PATH
        self._identity = identity
        self._root_key_der = root_key_der
        self._client = client

    async def send(self, now_ns: int) -> str:
        """Send one; give why it failed, or nothing."""
        word = _encode((secrets.token_bytes(_WORD_BYTES),))
        content = CallContent(
            self._identity.principal,
            MANAGEMENT,
            CANARY_METHOD,
            word,
            now_ns + _EXPIRY_NS,
            secrets.token_bytes(_WORD_BYTES),
        )
        try:
            response = await self._client.post(
                self._url,
                content=build_envelope(content, self._identity),
                headers={"content-type": "application/cbor"},
                timeout=CANARY_WAIT_MS_MAX / 1000,
            )
        except httpx.HTTPError as error:
            return f"the gateway does not answer: {error or type(error).__name__}"
        if response.status_code == httpx.codes.ACCEPTED:
            return "the message is durable and had no answer in time"
        if response.status_code != httpx.codes.OK:
            return f"HTTP status {response.status_code}: {response.text[:200].strip()}"
        try:
            return self._judge(response.content, content, word, now_ns)
        except DecodeError as error:
            return f"the answer does not hold: {error}"

    def _judge(self, body: bytes, content: CallContent, word: bytes, now_ns: int) -> str:
        fields, _ = cbor.decode(body)
        encoded = fields.get("certificate") if isinstance(fields, dict) else None
        if not isinstance(fields, dict) or not isinstance(encoded, bytes):
            text = fields.get("reject_message") if isinstance(fields, dict) else None
            return f"it was not let in: {text if isinstance(text, str) else 'the answer says no reason'}"
        certificate = decode_certificate(encoded)
        verify_certificate(certificate, self._root_key_der, now_ns=now_ns)
        status = read_request_status(certificate.tree, request_id_of(content))
        if isinstance(status, Rejected):
            return f"it was rejected: {status.reject_message}"
        if not isinstance(status, Replied) or status.reply != word:
            return "the answer is another one than was sent"
        return ""
