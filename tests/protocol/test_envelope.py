"""Envelopes: what is read, what is refused and with which words, and which request id results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.limits import (
    DELEGATION_COUNT_MAX,
    DELEGATION_TARGET_COUNT_MAX,
    ENVELOPE_ITEM_COUNT_MAX,
    NONCE_SIZE_BYTES_MAX,
    READ_STATE_PATH_COUNT_MAX,
    READ_STATE_PATH_LABEL_COUNT_MAX,
)
from cannery.protocol.cbor import SELF_DESCRIBE_PREFIX
from cannery.protocol.envelope import (
    CallContent,
    Envelope,
    EnvelopeError,
    QueryContent,
    ReadStateContent,
    RequestContent,
    RequestKind,
    SenderInfo,
    SignedDelegation,
    build_envelope,
    parse_envelope,
    request_id_of,
)
from cannery.protocol.identity import KeyIdentity, delegated
from cannery.protocol.principal import ANONYMOUS, Principal
from cannery.protocol.representation import hash_map
from tests.protocol.requests import (
    CANISTER,
    EXPIRY_NS,
    KEYS,
    SESSION,
    call_content,
    call_fields,
    query_content,
    read_state_content,
)

principals = st.binary(max_size=29).map(Principal)
expiries = st.integers(0, 2**64 - 1)
nonces = st.none() | st.binary(max_size=NONCE_SIZE_BYTES_MAX)
infos = st.none() | st.builds(SenderInfo, st.binary(max_size=9), principals, st.binary(max_size=9))
calls = st.builds(
    CallContent, principals, principals, st.text(max_size=20), st.binary(max_size=99), expiries, nonces, infos
)
queries = st.builds(
    QueryContent,
    principals,
    principals,
    st.text(max_size=20),
    st.binary(max_size=99),
    expiries,
    nonces,
    infos,
)
reads = st.builds(
    ReadStateContent,
    principals,
    st.lists(st.lists(st.binary(max_size=9), max_size=4).map(tuple), max_size=4).map(tuple),
    expiries,
    nonces,
)


@dataclass(frozen=True)
class Sender:
    """Send as anybody without a signature: reading an envelope does not check it."""

    principal: Principal
    public_key_der: bytes | None = None
    delegations: tuple[SignedDelegation, ...] = ()

    def sign(self, message: bytes) -> bytes:
        return message


def _kind(content: RequestContent) -> RequestKind:
    if isinstance(content, CallContent):
        return "call"
    return "query" if isinstance(content, QueryContent) else "read_state"


@given(calls | queries | reads, st.booleans())
def test_content_round_trip(content: RequestContent, tagged: bool) -> None:
    body = build_envelope(content, Sender(content.sender), tagged=tagged)
    envelope = parse_envelope(body, _kind(content))
    assert envelope.content == content
    assert envelope.tagged is tagged
    assert envelope.request_id == request_id_of(content)
    assert (envelope.sender_pubkey, envelope.sender_sig, envelope.delegations) == (None, None, ())


def test_the_specifications_request_id() -> None:
    content = {
        "request_type": "call",
        "sender": b"\x04",
        "ingress_expiry": 1_685_570_400_000_000_000,
        "canister_id": bytes.fromhex("00000000000004D2"),
        "method_name": "hello",
        "arg": b"DIDL\x00\xfd*",
    }
    envelope = parse_envelope(cbor2.dumps({"content": content}), "call")
    assert envelope.request_id.hex() == "1d1091364d6bb8a6c16b203ee75467d59ead468f523eb058880ae8ec80e2b101"


@pytest.mark.parametrize("identity", KEYS, ids=lambda key: type(key).__name__)
def test_proofs_are_read(identity: KeyIdentity) -> None:
    whole = delegated(identity, SESSION, EXPIRY_NS, [CANISTER], "queries")
    envelope = parse_envelope(build_envelope(query_content(identity.principal), whole), "query")
    assert envelope.sender_pubkey == identity.public_key_der
    assert envelope.delegations == whole.delegations
    assert envelope.delegations[0].delegation.targets == (CANISTER,)
    assert envelope.delegations[0].delegation.permissions == "queries"


def test_null_is_absent() -> None:
    content = call_fields(ANONYMOUS) | {"nonce": None, "sender_info": None}
    body = cbor2.dumps(
        {"content": content, "sender_pubkey": None, "sender_sig": None, "sender_delegation": None}
    )
    envelope = parse_envelope(body, "call")
    assert envelope.request_id == hash_map(call_fields(ANONYMOUS))
    assert envelope.content == call_content(ANONYMOUS, nonce=None)
    assert (envelope.sender_pubkey, envelope.sender_sig, envelope.delegations) == (None, None, ())


@given(
    st.dictionaries(
        st.text(min_size=15, max_size=16),
        st.binary(max_size=4) | st.text(max_size=4) | st.integers(0, 2**70) | st.lists(st.binary(max_size=2)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["call", "query", "read_state"]),
)
def test_unknown_fields_are_part_of_the_request_id(extra: dict[str, object], kind: RequestKind) -> None:
    content = call_fields(ANONYMOUS) | {"request_type": kind, "paths": [[b"time"]]} | extra
    envelope = parse_envelope(cbor2.dumps({"content": content}), kind)
    assert envelope.request_id == hash_map(content)


def test_two_contents_have_two_ids() -> None:
    base = call_content(ANONYMOUS)
    others: list[RequestContent] = [
        call_content(KEYS[0].principal),
        call_content(ANONYMOUS, canister_id=KEYS[0].principal),
        call_content(ANONYMOUS, method_name="other"),
        call_content(ANONYMOUS, arg=b"other"),
        call_content(ANONYMOUS, ingress_expiry_ns=EXPIRY_NS + 1),
        call_content(ANONYMOUS, nonce=None),
        call_content(ANONYMOUS, nonce=b""),
        call_content(ANONYMOUS, sender_info=SenderInfo(b"", CANISTER, b"")),
        query_content(ANONYMOUS),
        read_state_content(ANONYMOUS),
    ]
    ids = {parse_envelope(build_envelope(c, Sender(c.sender)), _kind(c)).request_id for c in (base, *others)}
    assert len(ids) == 1 + len(others)


BAD_CONTENT: dict[str, tuple[dict[str | bytes, object], str]] = {
    "no sender": ({"sender": None}, "content.sender"),
    "a text sender": ({"sender": "2vxsx-fae"}, "content.sender"),
    "a long sender": ({"sender": bytes(30)}, "content.sender"),
    "no canister": ({"canister_id": None}, "content.canister_id"),
    "no method": ({"method_name": None}, "content.method_name"),
    "a blob method": ({"method_name": b"greet"}, "content.method_name"),
    "an endless method": ({"method_name": "a" * 100_000}, "content.method_name"),
    "no argument": ({"arg": None}, "content.arg"),
    "a text argument": ({"arg": "()"}, "content.arg"),
    "no expiry": ({"ingress_expiry": None}, "content.ingress_expiry"),
    "an expiry below zero": ({"ingress_expiry": -1}, "content.ingress_expiry"),
    "a fraction as expiry": ({"ingress_expiry": 1.5}, "content.ingress_expiry"),
    "a truth as expiry": ({"ingress_expiry": True}, "content.ingress_expiry"),
    "an expiry of 65 bits": ({"ingress_expiry": 2**64}, "content.ingress_expiry"),
    "a huge expiry": ({"ingress_expiry": 2**100_000}, "content.ingress_expiry"),
    "a long nonce": ({"nonce": bytes(33)}, "content.nonce"),
    "a text nonce": ({"nonce": "n"}, "content.nonce"),
    "another type": ({"request_type": "query"}, '"call"'),
    "no type": ({"request_type": None}, '"call"'),
    "a sender_info of text": ({"sender_info": "x"}, "content.sender_info"),
    "an empty sender_info": ({"sender_info": {}}, "content.sender_info"),
    "a sender_info without signer": ({"sender_info": {"info": b"", "sig": b""}}, "sender_info.signer"),
    "an unknown field with a fraction": ({"later": 1.5}, "float"),
    "an unknown field with a truth": ({"later": [True]}, "bool"),
    "an unknown field below zero": ({"later": {"x": -1}}, "natural"),
    "an unknown field beyond 128 bits": ({"later": 2**128}, "128"),
    "an unknown map with blobs as names": ({"later": {b"x": b"x"}}, "names"),
    "blobs as names": ({b"later": b"x"}, "names"),
    "too many fields": ({f"field{i}": b"" for i in range(100)}, "content"),
}


@pytest.mark.parametrize(("change", "words"), BAD_CONTENT.values(), ids=BAD_CONTENT.keys())
def test_bad_content_is_refused_by_name(change: dict[str | bytes, object], words: str) -> None:
    body = cbor2.dumps({"content": {**call_fields(ANONYMOUS), **change}})
    with pytest.raises(EnvelopeError, match=words):
        parse_envelope(body, "call")


@pytest.mark.parametrize(
    ("paths", "fits"),
    [
        ([], True),
        ([[]], True),
        ([[b"a"]] * READ_STATE_PATH_COUNT_MAX, True),
        ([[b"a"]] * (READ_STATE_PATH_COUNT_MAX + 1), False),
        ([[b"a"] * READ_STATE_PATH_LABEL_COUNT_MAX], True),
        ([[b"a"] * (READ_STATE_PATH_LABEL_COUNT_MAX + 1)], False),
        (["time"], False),
        ([["time"]], False),
        (None, False),
        ({"time": 1}, False),
    ],
)
def test_paths_are_bounded(paths: object, fits: bool) -> None:
    content = {"request_type": "read_state", "sender": b"\x04", "ingress_expiry": EXPIRY_NS, "paths": paths}
    body = cbor2.dumps({"content": content})
    if fits:
        parsed = parse_envelope(body, "read_state").content
        assert isinstance(parsed, ReadStateContent)
        assert [list(path) for path in parsed.paths] == paths
        assert parse_envelope(body, "read_state").request_id == hash_map(content)
    else:
        with pytest.raises(EnvelopeError, match="paths"):
            parse_envelope(body, "read_state")


def _link(**changes: object) -> dict[str, object]:
    fields: dict[str, object] = {"pubkey": b"key", "expiration": EXPIRY_NS}
    return {"delegation": {**fields, **changes}, "signature": b"sig"}


TARGETS = [bytes([i % 256, i // 256]) for i in range(DELEGATION_TARGET_COUNT_MAX)]
BAD_PROOFS: dict[str, dict[str, object]] = {
    "a text key": {"sender_pubkey": "key"},
    "a long key": {"sender_pubkey": bytes(100_000)},
    "a text signature": {"sender_sig": "sig"},
    "a long signature": {"sender_sig": bytes(1_000_000)},
    "a map of delegations": {"sender_delegation": _link()},
    "too many delegations": {"sender_delegation": [_link()] * (DELEGATION_COUNT_MAX + 1)},
    "a delegation of text": {"sender_delegation": ["x"]},
    "a delegation without signature": {"sender_delegation": [{"delegation": {}}]},
    "a delegation without key": {"sender_delegation": [_link(pubkey=None)]},
    "a delegation without expiry": {"sender_delegation": [_link(expiration=None)]},
    "too many targets": {"sender_delegation": [_link(targets=[b"", *TARGETS])]},
    "a text target": {"sender_delegation": [_link(targets=["aaaaa-aa"])]},
    "a long target": {"sender_delegation": [_link(targets=[bytes(30)])]},
    "an unknown permission": {"sender_delegation": [_link(permissions="some")]},
    "a permission that is no text": {"sender_delegation": [_link(permissions=["all"])]},
    "a delegation with a fraction": {"sender_delegation": [_link(later=0.5)]},
}


@pytest.mark.parametrize("change", BAD_PROOFS.values(), ids=BAD_PROOFS.keys())
def test_bad_proofs_are_refused_by_name(change: dict[str, object]) -> None:
    body = cbor2.dumps({"content": call_fields(ANONYMOUS), **change})
    with pytest.raises(EnvelopeError, match=next(iter(change))):
        parse_envelope(body, "call")


def test_as_many_delegations_and_targets_as_allowed_are_read() -> None:
    links = [_link(targets=TARGETS, later=b"unknown") for _ in range(DELEGATION_COUNT_MAX)]
    body = cbor2.dumps({"content": call_fields(ANONYMOUS), "sender_delegation": links})
    parsed = parse_envelope(body, "call").delegations
    assert len(parsed) == DELEGATION_COUNT_MAX
    assert parsed[0].delegation.targets == tuple(Principal(raw) for raw in TARGETS)
    inner = links[0]["delegation"]
    assert isinstance(inner, dict)
    assert parsed[0].digest == hash_map(inner)


def test_the_work_of_hashing_is_bounded() -> None:
    content = call_fields(ANONYMOUS) | {"later": [b""] * ENVELOPE_ITEM_COUNT_MAX}
    with pytest.raises(EnvelopeError, match="items"):
        parse_envelope(cbor2.dumps({"content": content}), "call")


@given(calls | queries | reads)
def test_an_envelope_goes_to_another_process_unchanged(content: RequestContent) -> None:
    envelope = parse_envelope(build_envelope(content, Sender(content.sender)), _kind(content))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(envelope), type=Envelope) == envelope


@pytest.mark.parametrize(
    "make",
    [
        lambda body: b"",
        lambda body: body[:-1],
        lambda body: body + b"\x00",
        lambda body: b"\x81" * 1_000_000,
        lambda body: cbor2.dumps([cbor2.loads(body)]),
        lambda body: cbor2.dumps({"content": [1]}),
        lambda body: cbor2.dumps({}),
        lambda body: cbor2.dumps({b"content": cbor2.loads(body)["content"]}),
        lambda body: body.replace(b"\x66sender", b"\x46sender"),
        lambda body: SELF_DESCRIBE_PREFIX * 2 + body,
        lambda body: cbor2.dumps(cbor2.loads(body) | {"later": cbor2.CBORTag(99, 1)}),
        lambda body: b'{"content": {}}',
    ],
)
def test_bodies_that_are_no_request(make: Callable[[bytes], bytes]) -> None:
    body = cbor2.dumps({"content": call_fields(ANONYMOUS)})
    parse_envelope(body, "call")
    with pytest.raises(EnvelopeError):
        parse_envelope(make(body), "call")
