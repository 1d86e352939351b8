"""Candid types of `http_request`, as in `ic.did` of IC interface specification 0.66.

They stand apart from `types` for its length. What the method does is in `outcalls`.
"""

from __future__ import annotations

from typing import Annotated

from cannery.candid.python import Case, FuncRef, Variant, func_of, nat, nat64, record, variant


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
    """What a transform is given."""

    response: HttpResult
    context: bytes


@record
class Transform:
    """A query of the caller that the response goes through, and what it is given beside it."""

    function: Annotated[FuncRef, func_of((TransformArgs,), (HttpResult,), "query")]
    context: bytes


@record
class HttpRequestArgs:
    """Arguments of `http_request`. `is_replicated` changes nothing: one node makes each request."""

    url: str
    max_response_bytes: nat64 | None
    method: HttpMethod
    headers: list[HttpHeader]
    body: bytes | None
    transform: Transform | None
    is_replicated: bool | None = None
