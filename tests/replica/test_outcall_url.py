"""Addresses of outcalls: what is parsed is what would be connected to; the operator's list says who may."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.replica.outcall_url import Url, is_allowed, line_fault, named_addresses, parse_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://Example.org", Url("https", "example.org", 443, "/")),
        ("HTTP://a.b:8080/x?y#z", Url("http", "a.b", 8080, "/x?y")),
        ("https://a?q=1", Url("https", "a", 443, "/?q=1")),
        ("https://[::1]:9/p", Url("https", "[::1]", 9, "/p")),
        ("https://1.2.3.4/", Url("https", "1.2.3.4", 443, "/")),
    ],
)
def test_addresses_are_taken_apart(text: str, url: Url) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        "ftp://example.org",
        "file:///etc/passwd",
        "https://",
        "https://a b/",
        "https://a\r\nHost: b/",
        "https://user:pw@a.org/",
        "https://a.org@evil.org/",
        "https://a.org\\@evil.org/",
        "https://a.org:0/",
        "https://a.org:65536/",
        "https://a.org:/",
        "https://a..org/",
        "https://a.org./",
        "https://-a.org/",
        "https://müller.de/",
        "https://a.org/" + "x" * 9_000,
    ],
)
def test_what_is_no_address_is_refused_with_a_reason(text: str) -> None:
    reason = parse_url(text)
    assert isinstance(reason, str)
    assert len(reason) > 20


@given(
    st.text(max_size=60) | st.text("ahtps:/?#@.[]0129\\ ", max_size=40).map(lambda rest: "https://" + rest)
)
def test_two_parsers_never_see_two_hosts(text: str) -> None:
    found = parse_url(text)
    if isinstance(found, str):
        return
    other = urlsplit(text)
    assert other.hostname == found.host.strip("[]")
    assert (other.port or (443 if found.scheme == "https" else 80)) == found.port
    assert other.username is None
    assert found.target.startswith("/")


@pytest.mark.parametrize(
    ("line", "yes", "no"),
    [
        (
            "a.org",
            ["https://a.org/x", "https://A.ORG:443"],
            ["http://a.org", "https://b.a.org", "https://a.org:8"],
        ),
        ("a.org:8", ["https://a.org:8"], ["https://a.org"]),
        ("http://1.2.3.4:8545", ["http://1.2.3.4:8545"], ["https://1.2.3.4:8545", "http://1.2.3.4"]),
        ("*.a.org", ["https://b.a.org", "https://c.b.a.org"], ["https://a.org", "https://ba.org"]),
        ("*", ["https://a.org:9", "https://[::1]"], ["http://a.org"]),
        ("http://*", ["http://a.org:9"], ["https://a.org"]),
        ("[::1]:5", ["https://[::1]:5"], ["https://[::1]"]),
    ],
)
def test_a_line_lets_through_what_it_says(line: str, yes: list[str], no: list[str]) -> None:
    assert line_fault(line) is None
    for text in (*yes, *no):
        url = parse_url(text)
        assert isinstance(url, Url)
        assert is_allowed((line,), url) == (text in yes), text
        assert not is_allowed((), url)


def test_addresses_that_the_list_names_are_given() -> None:
    assert named_addresses(("a.org", "http://10.0.0.1:8", "[::1]", "*", "*.b.org")) == (
        "a.org",
        "10.0.0.1",
        "::1",
    )


@pytest.mark.parametrize(
    "line", ["", "https://", "a.org/", "a b", "*.*", "*.[::1]", "a.org:99999", "**", "a..b"]
)
def test_a_line_that_says_nothing_is_refused(line: str) -> None:
    assert line_fault(line)
