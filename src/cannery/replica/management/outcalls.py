"""Canisters ask for HTTP requests to the world outside: checked, paid for and written down here.

IC interface specification, "IC method http_request". The shell performs the request once this round is
durable, and brings its answer in as an input of a later block (`replica.outcalls`). After a crash it performs
again what has no answer in the log: outside at least once, inside exactly once.
"""

from __future__ import annotations

import re

from cannery.errors import Reject, RejectCode
from cannery.limits import (
    METHOD_NAME_SIZE_CHARS_MAX,
    OUTCALL_COUNT_MAX,
    OUTCALL_HEADER_COUNT_MAX,
    OUTCALL_HEADER_SIZE_BYTES_MAX,
    OUTCALL_HEADERS_SIZE_BYTES_MAX,
    OUTCALL_NS_MAX,
    OUTCALL_PER_CANISTER_COUNT_MAX,
    OUTCALL_SIZE_BYTES_MAX,
    OUTCALL_WAITING_SIZE_BYTES_MAX,
)
from cannery.replica.block import PriceSchedule
from cannery.replica.management.access import anyone
from cannery.replica.management.methods import Method, update_method
from cannery.replica.management.outcall_types import HttpHeader, HttpRequestArgs, HttpResult
from cannery.replica.management.request import Change, Pending
from cannery.replica.outcall_records import OutcallRecord, counts, store_outcall
from cannery.replica.outcall_url import Url, is_allowed, parse_url
from cannery.replica.records import CallOrigin

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~]*")
_OWN_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that the node writes itself, or that would change how the connection is read."""


def outcall_price(prices: PriceSchedule, request_bytes: int, response_bytes_max: int) -> int:
    """Give the cycles that an outcall costs; they must be attached."""
    return (
        prices.per_outcall
        + prices.per_outcall_request_byte * request_bytes
        + prices.per_outcall_response_byte * response_bytes_max
    )


def _http_request(change: Change, args: HttpRequestArgs) -> Pending:
    origin, message = change.origin, change.message
    assert isinstance(origin, CallOrigin), "the method is for canisters"
    url = _checked_url(change, args.url)
    headers = _checked_headers(args.headers)
    size_bytes = len(args.url) + sum(len(n) + len(v) for n, v in headers) + len(args.body or b"")
    limit = _response_limit(args)
    transform, context = _checked_transform(change, args)
    size_bytes += len(transform) + len(context)
    if size_bytes > OUTCALL_SIZE_BYTES_MAX:
        raise _refused(f"a request has at most {OUTCALL_SIZE_BYTES_MAX} bytes, this one has {size_bytes}")
    if args.body and args.method.tag != "post":
        raise _refused(f"a {args.method.tag} request has no body: use post")
    _check_room(change, size_bytes)
    _pay(change, outcall_price(change.request.config.prices, size_bytes, limit))
    now_ns = change.request.now_ns
    record = OutcallRecord(
        url.scheme,
        url.host,
        url.port,
        url.target,
        args.method.tag.upper(),
        headers,
        args.body or b"",
        limit,
        transform,
        context,
        change.accept(),
        now_ns,
        now_ns + OUTCALL_NS_MAX,
    )
    store_outcall(message, change.caller, origin.callback, record)
    message.state.outcalls.append((change.caller, origin.callback))
    return Pending()


def _checked_url(change: Change, text: str) -> Url:
    url = parse_url(text)
    if isinstance(url, str):
        raise _refused(url)
    lines = change.request.config.outcall_hosts
    if is_allowed(lines, url):
        return url
    what = f"does not call {url.origin}" if lines else "calls nobody outside"
    raise _refused(
        f'this node {what}: its operator adds "{url.origin}" to allow under [outcalls] in cannery.toml'
    )


def _checked_headers(headers: list[HttpHeader]) -> tuple[tuple[str, str], ...]:
    if len(headers) > OUTCALL_HEADER_COUNT_MAX:
        raise _refused(f"a request has at most {OUTCALL_HEADER_COUNT_MAX} headers, got {len(headers)}")
    total = 0
    for header in headers:
        name, value = header.name, header.value
        total += len(name) + len(value)
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _refused(f"the header {name!r:.100} is not printable ASCII, or its name not a token")
        if name.lower() in _OWN_HEADERS or name.lower().startswith("proxy-"):
            raise _refused(f"the header {name!r:.100} is set by the node: leave it out")
        if max(len(name), len(value)) > OUTCALL_HEADER_SIZE_BYTES_MAX:
            raise _refused(f"a header's name and value have at most {OUTCALL_HEADER_SIZE_BYTES_MAX} bytes")
    if total > OUTCALL_HEADERS_SIZE_BYTES_MAX:
        raise _refused(f"headers have at most {OUTCALL_HEADERS_SIZE_BYTES_MAX} bytes together, got {total}")
    return tuple((header.name, header.value.strip(" \t")) for header in headers)


def _response_limit(args: HttpRequestArgs) -> int:
    limit = OUTCALL_SIZE_BYTES_MAX if args.max_response_bytes is None else args.max_response_bytes
    if limit > OUTCALL_SIZE_BYTES_MAX:
        raise _refused(f"max_response_bytes is at most {OUTCALL_SIZE_BYTES_MAX}, got {limit}")
    return limit


def _checked_transform(change: Change, args: HttpRequestArgs) -> tuple[str, bytes]:
    if args.transform is None:
        return "", b""
    function = args.transform.function
    if function.principal.raw != change.caller:
        raise _refused("the transform must be a query of the canister that calls http_request")
    if not 0 < len(function.method) <= METHOD_NAME_SIZE_CHARS_MAX:
        raise _refused(f"the transform's name has 1 to {METHOD_NAME_SIZE_CHARS_MAX} characters")
    return function.method, args.transform.context


def _check_room(change: Change, size_bytes: int) -> None:
    count, waiting_bytes = counts(change.message)
    own = counts(change.message, change.caller)[0]
    if own >= OUTCALL_PER_CANISTER_COUNT_MAX:
        text = f"{own} outcalls of this canister are under way, as many as may be: wait for an answer"
    elif count >= OUTCALL_COUNT_MAX or waiting_bytes + size_bytes > OUTCALL_WAITING_SIZE_BYTES_MAX:
        text = f"{count} outcalls are under way on this node, as many as may be: try again later"
    else:
        return
    raise Reject(RejectCode.SYS_TRANSIENT, text)


def _pay(change: Change, price: int) -> None:
    if change.cycles < price:
        raise _refused(f"this outcall costs {price} cycles, {change.cycles} came with it: attach them")
    change.cycles -= price
    change.account(change.caller).burned += price
    change.message.subnet().burned += price


def _refused(text: str) -> Reject:
    return Reject(RejectCode.CANISTER_REJECT, f"http_request: {text}", "IC0406")


METHODS: tuple[Method, ...] = (
    update_method("http_request", HttpRequestArgs, HttpResult, anyone, _http_request, from_users=False),
)
