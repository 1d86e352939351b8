"""A contract on an EVM chain as role provider: the question and the answer of its `role(address)`.

JSON-RPC `eth_call` (ethereum/execution-apis) with the contract ABI's encoding of one address and one number.
Pure: what is asked goes out by the zone's `http_request`, as its operator allows. What is not exactly an
answer is none: an error of the provider, another id, a number that no role has.
"""

from __future__ import annotations

import json

from cannery import nat, record
from cannery.cdk.outcalls import HttpRequestArgs, http_post

from .keccak import keccak256
from .roles import OWNER

ADDRESS_SIZE_BYTES = 20
URL_SIZE_CHARS_MAX = 1_000
RESPONSE_SIZE_BYTES_MAX = 8_192
ASK_CYCLES = 200_000_000
"""What is attached to a question at most; what it does not cost comes back."""

_SELECTOR = keccak256(b"role(address)")[:4]
_WORD_SIZE_BYTES = 32
_BRACKETS_MAX = 16
_ID = 1


@record
class EvmContract:
    """A contract whose `role(address) returns (uint256)` is asked at a JSON-RPC provider."""

    url: str
    contract: bytes


def contract_fault(contract: EvmContract) -> str | None:
    """Say what is wrong with a contract's settings, or None."""
    if len(contract.contract) != ADDRESS_SIZE_BYTES:
        return f"a contract's address has {ADDRESS_SIZE_BYTES} bytes, got {len(contract.contract)}"
    if not contract.url.startswith(("https://", "http://")) or len(contract.url) > URL_SIZE_CHARS_MAX:
        return f"the provider's url begins with https:// and has at most {URL_SIZE_CHARS_MAX} characters"
    return None


def address_of(public_key: bytes) -> bytes:
    """Return the address of an uncompressed secp256k1 key (65 bytes)."""
    return keccak256(public_key[1:])[-ADDRESS_SIZE_BYTES:]


def role_question(contract: EvmContract, address: bytes) -> HttpRequestArgs:
    """Make the request that asks for an address's role."""
    data = _SELECTOR + address.rjust(_WORD_SIZE_BYTES, b"\x00")
    call = {"to": "0x" + contract.contract.hex(), "data": "0x" + data.hex()}
    question = {"jsonrpc": "2.0", "id": _ID, "method": "eth_call", "params": [call, "latest"]}
    body = json.dumps(question, separators=(",", ":")).encode()
    headers = {"content-type": "application/json"}
    return http_post(contract.url, body, headers, response_bytes_max=RESPONSE_SIZE_BYTES_MAX)


def role_answer(status: int, body: bytes) -> nat | None:
    """Read the number of a role out of a response; None where there is none in it."""
    # Brackets are counted first: how deep a parser may go differs from machine to machine.
    if status != 200 or len(body) > RESPONSE_SIZE_BYTES_MAX or _brackets(body) > _BRACKETS_MAX:
        return None
    try:
        found = json.loads(body)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("id") != _ID or found.get("error") is not None:
        return None
    result = found.get("result")
    if not isinstance(result, str) or len(result) != 2 + 2 * _WORD_SIZE_BYTES or result[:2] != "0x":
        return None
    if not set(result[2:]) <= set("0123456789abcdefABCDEF"):
        return None
    role = int(result[2:], 16)
    return role if role <= OWNER else None


def _brackets(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")
