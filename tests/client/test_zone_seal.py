"""What is sealed opens as it was, in its own zone and place alone; every changed bit is found."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.client.errors import Unverified
from cannery.client.zone_cover import CoverFault
from cannery.client.zone_invitation import BadInvitation, Invitation
from cannery.client.zone_key_log import (
    NO_RECORD,
    KeyRecord,
    RecordBody,
    check_next,
    make_card,
    make_record,
    read_card,
    read_record,
)
from cannery.client.zone_seal import (
    MESSAGE,
    SealedContent,
    exchange_of,
    is_vouched,
    make_box,
    new_zone_key,
    open_box,
    seal,
    seal_content,
    topic_key,
    unseal,
)
from cannery.client.zone_sealed_cover import SealedCover
from cannery.protocol.identity import Ed25519Identity, P256Identity, Secp256k1Identity
from cannery.protocol.principal import Principal

ZONE, OTHER = Principal(b"\x01\x01"), Principal(b"\x02\x01")
KEY = new_zone_key(3)
ANN, BOB = (Ed25519Identity(bytes(31) + bytes([n])) for n in (1, 2))
flips = st.tuples(st.integers(0, 10**6), st.integers(0, 7))


def flipped(data: bytes, flip: tuple[int, int]) -> bytes:
    at = flip[0] % len(data)
    return data[:at] + bytes([data[at] ^ (1 << flip[1])]) + data[at + 1 :]


def cover_of(identity: Ed25519Identity, zone: Principal = ZONE) -> SealedCover:
    return SealedCover(zone, identity, lambda: KEY, lambda: KEY, lambda _: KEY)


@given(st.binary(max_size=300), flips)
def test_values(plain: bytes, flip: tuple[int, int]) -> None:
    sealed = seal(MESSAGE, KEY, ZONE, b"place", plain)
    assert unseal(MESSAGE, KEY, ZONE, b"place", sealed) == plain
    # What begins each of them, its kind and the key's version, is no secret.
    assert plain not in sealed[8:] or len(plain) < 4
    for zone, place, data in (
        (ZONE, b"place", flipped(sealed, flip)),
        (OTHER, b"place", sealed),
        (ZONE, b"elsewhere", sealed),
        (ZONE, b"place", sealed[:-1]),
    ):
        with pytest.raises(CoverFault):
            unseal(MESSAGE, KEY, zone, place, data)


@given(st.sampled_from([0, 1, 65_535, 65_536, 65_537, 200_000]), st.integers(1, 70_000), flips)
def test_contents_in_any_pieces(size: int, piece: int, flip: tuple[int, int]) -> None:
    data = bytes(range(256)) * 800
    data = data[:size]

    def opened(sealed: bytes, zone: Principal = ZONE) -> bytes:
        opener = SealedContent(lambda _: KEY, zone)
        parts = [opener.take(sealed[at : at + piece]) for at in range(0, len(sealed), piece)]
        return b"".join([*parts, opener.end()])

    sealed = seal_content(KEY, ZONE, data)
    assert opened(sealed) == data
    for changed in (
        flipped(sealed, flip),
        sealed[:-1],
        sealed[: 32 + 65_553],
        sealed + bytes(20),
        sealed[:20],
    ):
        if changed != sealed:
            with pytest.raises(CoverFault):
                opened(changed)
    with pytest.raises(CoverFault):
        opened(sealed, OTHER)


@given(st.text(min_size=1, max_size=60), st.binary(max_size=100), flips)
def test_messages_name_their_topic_and_sender(topic: str, body: bytes, flip: tuple[int, int]) -> None:
    ann = cover_of(ANN)
    key = ann.topic_key(topic)
    stored = ann.seal_message(key, topic, body)
    bob = cover_of(BOB)
    assert bob.topic_name(key) == key.hex()
    opened = bob.open_message(key, stored)
    assert (opened.body, opened.topic, opened.sender) == (body, topic, ANN.principal)
    assert bob.topic_name(key) == topic
    for cover, at, data in (
        (bob, key, flipped(stored, flip)),
        (bob, topic_key(KEY, topic + "x"), stored),
        (cover_of(BOB, OTHER), key, stored),
    ):
        with pytest.raises(CoverFault):
            cover.open_message(at, data)


def test_a_member_cannot_write_in_the_name_of_another() -> None:
    key = topic_key(KEY, "t")
    forger = cover_of(ANN)

    forger._identity = type("Forged", (), {"public_key_der": BOB.public_key_der, "sign": ANN.sign})()  # type: ignore[assignment]
    with pytest.raises(CoverFault, match="not signed by whom it names"):
        cover_of(BOB).open_message(key, forger.seal_message(key, "t", b"hi"))


def test_names_belong_to_a_directory_and_a_content() -> None:
    cover = cover_of(ANN)
    stored = cover.seal_name(b"dir", "plan.txt", b"digest")
    assert cover.open_name(b"dir", stored, b"digest") == "plan.txt"
    for directory, digest in ((b"other", b"digest"), (b"dir", b"other")):
        with pytest.raises(CoverFault):
            cover.open_name(directory, stored, digest)
    with pytest.raises(CoverFault, match="not encrypted"):
        cover.open_name(b"dir", b"plan.txt", b"digest")


@pytest.mark.parametrize("kind", [Ed25519Identity, Secp256k1Identity, P256Identity])
def test_boxes_are_for_one_member_and_vouched_for_by_holders(kind: type[Ed25519Identity]) -> None:
    ann, bob = kind(bytes(31) + b"\x05"), kind(bytes(31) + b"\x06")
    mine = exchange_of(ann, ZONE)
    assert mine == exchange_of(ann, ZONE)
    assert len({mine.public, exchange_of(ann, OTHER).public, exchange_of(bob, ZONE).public}) == 3
    box = make_box(KEY, ZONE, ann.principal, mine.public)
    assert open_box(3, mine, box) == KEY
    with pytest.raises(CoverFault, match="not for this identity"):
        open_box(3, exchange_of(bob, ZONE), box)
    assert is_vouched(KEY, ZONE, ann.principal, mine.public, box)
    stranger_key = new_zone_key(3, KEY.topics)
    forged = make_box(stranger_key, ZONE, ann.principal, mine.public)
    assert not is_vouched(KEY, ZONE, ann.principal, mine.public, forged)
    assert not is_vouched(KEY, ZONE, bob.principal, mine.public, box)
    assert not is_vouched(KEY, OTHER, ann.principal, mine.public, box)
    card = make_card(ann, ZONE, mine.public)
    assert read_card(ZONE, ann.principal, card) == mine.public
    for zone, member, data in (
        (OTHER, ann.principal, card),
        (ZONE, bob.principal, card),
        (ZONE, ann.principal, make_card(bob, ZONE, mine.public)),
        (ZONE, ann.principal, flipped(card, (60, 0))),
        (ZONE, ann.principal, b"\x90"),
    ):
        with pytest.raises(Unverified):
            read_card(zone, member, data)


def record(identity: Ed25519Identity, before: KeyRecord | None, *signers: Ed25519Identity) -> KeyRecord:
    version = 1 if before is None else before.body.version + 1
    previous = NO_RECORD if before is None else before.hash
    body = RecordBody(version, previous, bytes(32), None, [s.principal.raw for s in signers])
    return read_record(ZONE, make_record(identity, ZONE, body))


def test_records_follow_each_other_and_are_signed_by_whom_the_one_before_names() -> None:
    first = record(ANN, None, ANN)
    check_next(None, first)
    check_next(first, record(ANN, first, ANN, BOB))
    for before, after in (
        (first, record(BOB, first, BOB)),
        (first, first),
        (None, record(ANN, first, ANN)),
        (record(ANN, None, ANN, BOB), record(ANN, first, ANN)),
    ):
        with pytest.raises(Unverified):
            check_next(before, after)


@given(st.binary(max_size=200) | st.binary(min_size=116, max_size=116))
def test_a_decoder_raises_its_one_error(data: bytes) -> None:
    for read in (lambda: read_record(ZONE, data), lambda: read_card(ZONE, ANN.principal, data)):
        with pytest.raises(Unverified):
            read()


@given(st.text(max_size=160))
def test_texts_that_are_no_invitations(text: str) -> None:
    with suppress(BadInvitation):
        assert Invitation.parse(text)


def test_invitations_are_text() -> None:
    for invitation in (Invitation(bytes(range(16))), Invitation(bytes(16), KEY, bytes(range(32)))):
        assert Invitation.parse(f" {invitation}\n") == invitation
    assert KEY.key.hex() not in repr(Invitation(bytes(16), KEY, bytes(32)))


def test_no_invitation_looks_like_an_option_of_a_command() -> None:
    for first in range(256):
        invitation = Invitation(bytes([first]) + bytes(15), KEY, bytes(range(32)))
        text = str(invitation)
        assert not text.startswith("-")
        assert Invitation.parse(text) == Invitation.parse(text.removeprefix(".")) == invitation
