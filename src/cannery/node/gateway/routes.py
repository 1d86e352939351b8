"""Which path means what: the IC interface's paths in all their versions, and Cannery's own.

IC interface specification, section "HTTPS interface". Reading a path asks nobody: whether a canister
exists is for its subnet to say.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from http import HTTPStatus

import msgspec

from cannery.limits import GATEWAY_PATH_SIZE_BYTES_MAX, PRINCIPAL_TEXT_CACHE_COUNT_MAX
from cannery.node.gateway.http import Refusal
from cannery.protocol.principal import MANAGEMENT, Principal, PrincipalError


class Verb(Enum):
    """What a path is for."""

    STATUS = "status"
    CALL = "call"
    QUERY = "query"
    READ_STATE = "read_state"
    NODE = "node"
    HEALTH = "health"
    METRICS = "metrics"
    SPOOLED = "spooled"
    EVENTS = "events"


class Route(msgspec.Struct, frozen=True):
    """A path, read. `effective` is the id in it, `subnet` says that it names a subnet; `sha256` names
    spooled bytes.
    """

    verb: Verb
    methods: tuple[str, ...]
    version: int = 2
    subnet: bool = False
    effective: Principal = MANAGEMENT
    sha256: bytes = b""


_POST = ("POST",)
_GET = ("GET", "HEAD")
_SPOOLED = ("GET", "HEAD", "PATCH")

_FIXED = {
    "/api/v2/status": Route(Verb.STATUS, _GET),
    "/cannery.json": Route(Verb.NODE, _GET),
    "/health": Route(Verb.HEALTH, _GET),
    "/metrics": Route(Verb.METRICS, _GET),
    "/api/cannery/v1/events": Route(Verb.EVENTS, _GET),
}

_VERSIONS = {
    ("canister", "call"): (2, 3, 4),
    ("canister", "query"): (2, 3),
    ("canister", "read_state"): (2, 3),
    ("subnet", "read_state"): (2, 3),
    ("subnet", "call"): (4,),
    ("subnet", "query"): (3,),
}

_SPOOLED_PREFIX = "/cannery/body/"
_SHA256_HEX_CHARS = 64
_API_PARTS = 6
_PATHS_TEXT = (
    "GET /api/v2/status; POST /api/{v2,v3,v4}/canister/ID/call; "
    "POST /api/{v2,v3}/canister/ID/{query,read_state}; "
    "POST /api/v4/subnet/ID/call; POST /api/v3/subnet/ID/query; POST /api/{v2,v3}/subnet/ID/read_state; "
    "GET /api/cannery/v1/events (WebSocket); GET /cannery.json; "
    "GET /health; GET /metrics; HEAD, PATCH, GET /cannery/body/SHA256"
)


def parse_route(path: str, method: str) -> Route:
    """Read a path and check the method; raise `Refusal` (400, 404, 405, 414)."""
    route = _FIXED.get(path)
    if route is None:
        if len(path) > GATEWAY_PATH_SIZE_BYTES_MAX:
            raise Refusal(
                HTTPStatus.REQUEST_URI_TOO_LONG, f"no path here is longer than {GATEWAY_PATH_SIZE_BYTES_MAX}"
            )
        route = _parse_path(path)
    if method not in route.methods:
        allowed = ", ".join((*route.methods, "OPTIONS"))
        raise Refusal(
            HTTPStatus.METHOD_NOT_ALLOWED,
            f"{path} takes {allowed}, not {method}",
            ((b"allow", allowed.encode()),),
        )
    return route


@lru_cache(maxsize=PRINCIPAL_TEXT_CACHE_COUNT_MAX)
def _parse_path(path: str) -> Route:
    if path.startswith(_SPOOLED_PREFIX):
        return Route(Verb.SPOOLED, _SPOOLED, sha256=parse_sha256(path[len(_SPOOLED_PREFIX) :]))
    parts = path.split("/")
    if len(parts) != _API_PARTS or parts[0] or parts[1] != "api":
        raise _not_found(path)
    _, _, version_text, scope, id_text, verb = parts
    versions = _VERSIONS.get((scope, verb))
    if versions is None:
        raise _not_found(path)
    version = next((number for number in versions if version_text == f"v{number}"), None)
    if version is None:
        served = ", ".join(f"v{number}" for number in versions)
        raise Refusal(
            HTTPStatus.NOT_FOUND, f"/api/{version_text}/{scope}/ID/{verb} is not served: use {served}"
        )
    try:
        effective = Principal.parse(id_text)
    except PrincipalError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the {scope} id in the path: {error}") from None
    return Route(Verb(verb), _POST, version, scope == "subnet", effective)


def parse_sha256(text: str) -> bytes:
    """Read a SHA-256 in 64 hexadecimal digits; raise `Refusal`."""
    if len(text) == _SHA256_HEX_CHARS:
        try:
            found = bytes.fromhex(text)
        except ValueError:
            found = b""
        # Spaces between the digits are passed over there.
        if len(found) == _SHA256_HEX_CHARS // 2:
            return found
    raise Refusal(HTTPStatus.BAD_REQUEST, "a body is named by its SHA-256 in 64 hexadecimal digits")


def _not_found(path: str) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, f"nothing is served at {path}. There is: {_PATHS_TEXT}")
