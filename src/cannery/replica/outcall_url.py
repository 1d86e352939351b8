"""Addresses of HTTP outcalls: a strict parser, and whether the operator's list lets a request out.

RFC 3986, the parts that an origin and its path need, in ASCII. What is connected to comes from what was
parsed here, never from the text again, so that no second parser can see another host in it. A line of the
list is `host`, `host:port` or either after `http://`; without a scheme it is https, without a port the
scheme's own. `*.example.org` stands for each name below example.org, `*` for every host and port. This module
looks no name up; which addresses may be connected to is the shell's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cannery.limits import OUTCALL_URL_SIZE_CHARS_MAX

PORTS: Final = {"https": 443, "http": 80}

_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)(?:#.*)?", re.IGNORECASE)
_PRINTABLE = re.compile(r"[!-~]+")
_HOST = r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9_])?)"
_AUTHORITY = re.compile(_HOST + r"(?::([0-9]{1,5}))?")
_LINE = re.compile(r"(?:(https?)://)?(\*\.)?" + _HOST + r"(?::([0-9]{1,5}))?")
_ANY_LINE = re.compile(r"(?:(https?)://)?\*")


@dataclass(frozen=True, slots=True)
class Url:
    """A parsed address; `host` in lower case, an IPv6 address in its brackets; `target`: path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        """The address without its path, as an operator would write it into the list."""
        prefix = "" if self.scheme == "https" else f"{self.scheme}://"
        return f"{prefix}{self.host}" + ("" if self.port == PORTS[self.scheme] else f":{self.port}")


def parse_url(text: str) -> Url | str:
    """Parse an address; where it is none, give the reason."""
    if len(text) > OUTCALL_URL_SIZE_CHARS_MAX:
        return f"a URL has at most {OUTCALL_URL_SIZE_CHARS_MAX} characters, this one has {len(text)}"
    if not _PRINTABLE.fullmatch(text) or "\\" in text:
        return "a URL is printable ASCII without spaces and backslashes: encode the rest with %"
    found = _URL.fullmatch(text)
    if found is None:
        return "a URL begins with https:// (or http://, where the operator allows it)"
    scheme, authority, target = found[1].lower(), found[2].lower(), found[3]
    if "@" in authority:
        return "a URL carries no user or password: send them in a header"
    place = _AUTHORITY.fullmatch(authority)
    port = PORTS[scheme] if place is None or place[2] is None else int(place[2])
    if place is None or ".." in place[1] or not 0 < port < 65_536:
        return f"{authority[:100]!r} is no host with an optional port"
    return Url(scheme, place[1], port, target if target.startswith("/") else f"/{target}")


def is_allowed(lines: tuple[str, ...], url: Url) -> bool:
    """Say whether the operator's list lets requests to this address out."""
    return any(_covers(line, url) for line in lines)


def line_fault(line: str) -> str | None:
    """Say what is wrong with a line of the list, or None."""
    if _ANY_LINE.fullmatch(line):
        return None
    found = _LINE.fullmatch(line)
    if found is None or (found[2] and found[3].startswith("[")) or ".." in found[3]:
        return (
            f'{line!r} is no host: write "rpc.example.org", "*.example.org", "http://127.0.0.1:8545" or "*"'
        )
    if found[4] is not None and not 0 < int(found[4]) < 65_536:
        return f"{line!r} has a port that is not between 1 and 65535"
    return None


def named_addresses(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Give the hosts that the list names, without scheme, port and brackets: whoever names an address means
    it.
    """
    found = (_LINE.fullmatch(line) for line in lines)
    return tuple(line[3].strip("[]") for line in found if line is not None and not line[2])


def _covers(line: str, url: Url) -> bool:
    anything = _ANY_LINE.fullmatch(line)
    if anything is not None:
        return (anything[1] or "https") == url.scheme
    found = _LINE.fullmatch(line)
    if found is None:
        return False
    scheme = found[1] or "https"
    port = PORTS[scheme] if found[4] is None else int(found[4])
    if (scheme, port) != (url.scheme, url.port):
        return False
    return url.host.endswith("." + found[3]) if found[2] else url.host == found[3]
