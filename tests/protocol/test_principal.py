"""Principals: known texts, and the laws of the textual form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.protocol.principal import ANONYMOUS, MANAGEMENT, Principal, PrincipalError

raw_principals = st.binary(max_size=29)

KNOWN = [
    ("aaaaa-aa", ""),
    ("2vxsx-fae", "04"),
    ("em77e-bvlzu-aq", "abcd01"),
    ("w7x7r-cok77-xa", "caffee"),
    ("rkp4c-7iaaa-aaaaa-aaaca-cai", "00000000000000040101"),
    ("tdb26-jop6k-aogll-7ltgs-eruif-6kk7m-qpktf-gdiqx-mxtrf-vb5e6-eqe", None),
]


@pytest.mark.parametrize(("text", "raw"), KNOWN)
def test_known_texts(text: str, raw: str | None) -> None:
    principal = Principal.parse(text)
    assert str(principal) == text
    assert Principal.parse(text.upper()) == principal
    if raw is not None:
        assert principal.raw.hex() == raw


@given(raw_principals)
def test_text_round_trip(raw: bytes) -> None:
    assert Principal.parse(str(Principal(raw))) == Principal(raw)


@given(raw_principals, st.data())
def test_one_wrong_letter_is_refused(raw: bytes, data: st.DataObject) -> None:
    text = str(Principal(raw))
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567-"))
    changed = text[:place] + letter + text[place + 1 :]
    if changed != text:
        with pytest.raises(PrincipalError):
            Principal.parse(changed)


@pytest.mark.parametrize(
    "text",
    ["", "-", "aaaaaaa", "aaaaa-aa-", "-aaaaa-aa", "aaaa-aaa", "aaaaa-ab", "a", "aaaaa aa", "ä", "1" * 40],
)
def test_texts_that_are_no_principal(text: str) -> None:
    with pytest.raises(PrincipalError):
        Principal.parse(text)


def test_a_wrong_checksum_is_named() -> None:
    with pytest.raises(PrincipalError, match="checksum"):
        Principal.parse("baaaa-aa")


@given(st.text(max_size=100))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        principal = Principal.parse(text)
    except PrincipalError:
        return
    assert str(principal) == text.lower()


def test_size_and_type_are_checked() -> None:
    assert Principal(bytes(29)).raw == bytes(29)
    with pytest.raises(PrincipalError):
        Principal(bytes(30))
    with pytest.raises(PrincipalError):
        Principal(bytearray(3))  # type: ignore[arg-type]


def test_forms() -> None:
    user = Principal.self_authenticating(b"key")
    assert user.is_self_authenticating
    assert not user.is_opaque
    assert len(user.raw) == 29
    assert Principal.opaque(b"\0" * 9).is_opaque
    assert not Principal.opaque(b"\0" * 9).is_self_authenticating
    assert ANONYMOUS.is_anonymous
    assert Principal.anonymous() == ANONYMOUS
    assert MANAGEMENT.is_management
    assert Principal.management() == MANAGEMENT
    assert not MANAGEMENT.is_opaque
    # 29 bytes that end like a class of their own are still told apart by that last byte.
    assert not Principal(bytes(28) + b"\x03").is_self_authenticating


@given(st.lists(raw_principals, max_size=8))
def test_order_is_that_of_the_bytes(raws: list[bytes]) -> None:
    assert [p.raw for p in sorted(Principal(raw) for raw in raws)] == sorted(raws)
