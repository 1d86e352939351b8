"""HTTP requests of canisters to the world outside: types, and functions that make the arguments.

IC interface specification 0.66, "IC method http_request"; docs/outcalls.md. The request leaves when the round
of the call is durable, and may be performed more than once (after a crash): send only what may be repeated,
or an idempotency key. The answer is taken once.

    return ctx.call(Management().http_request(http_get("https://example.org/rate")), then=self.rated)
"""

from __future__ import annotations

from typing import Annotated

from cannery.candid.python import Case, FuncRef, Variant, func_of, nat, nat64, record, variant
from cannery.protocol.principal import Principal


@record
class HttpHeader:
    """A header of a request or response."""

    name: str
    value: str


@variant
class HttpMethod(Variant):
    """Methods of requests."""

    get: Case[None]
    head: Case[None]
    post: Case[None]


@record
class HttpResult:
    """A response, as it came or as the transform made it."""

    status: nat
    headers: list[HttpHeader]
    body: bytes


@record
class TransformArgs:
    """What a transform is given: a query `(self, ctx, args: TransformArgs) -> HttpResult`."""

    response: HttpResult
    context: bytes


@record
class Transform:
    """A query of the caller that the response goes through, and what it is given beside it."""

    function: Annotated[FuncRef, func_of((TransformArgs,), (HttpResult,), "query")]
    context: bytes


@record
class HttpRequestArgs:
    """Arguments of `http_request`; `max_response_bytes` counts headers too, and is what is paid for."""

    url: str
    max_response_bytes: nat64 | None
    method: HttpMethod
    headers: list[HttpHeader]
    body: bytes | None
    transform: Transform | None


def http_get(
    url: str,
    headers: dict[str, str] | None = None,
    *,
    response_bytes_max: int | None = None,
    transform: Transform | None = None,
) -> HttpRequestArgs:
    """Make the arguments of a GET request."""
    return HttpRequestArgs(url, response_bytes_max, HttpMethod.get(), _listed(headers), None, transform)


def http_post(
    url: str,
    body: bytes,
    headers: dict[str, str] | None = None,
    *,
    response_bytes_max: int | None = None,
    transform: Transform | None = None,
) -> HttpRequestArgs:
    """Make the arguments of a POST request."""
    return HttpRequestArgs(url, response_bytes_max, HttpMethod.post(), _listed(headers), body, transform)


def transform_by(canister: Principal, method: str, context: bytes = b"") -> Transform:
    """Let a response go through a query of the calling canister, by its name."""
    return Transform(FuncRef(canister, method), context)


def _listed(headers: dict[str, str] | None) -> list[HttpHeader]:
    return [HttpHeader(name, value) for name, value in (headers or {}).items()]
