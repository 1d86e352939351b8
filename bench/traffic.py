"""Traffic: requests signed beforehand, sent by the generator in a process of its own, answers verified in
samples.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from bench.generator import Plan
from cannery.protocol import cbor
from cannery.protocol.certificate import decode_certificate, verify_certificate
from cannery.protocol.envelope import CallContent, QueryContent, build_envelope, request_id_of
from cannery.protocol.identity import Ed25519Identity, Identity
from cannery.protocol.principal import Principal
from cannery.protocol.query_signature import decode_query_response, verify_query_answer
from cannery.protocol.request_status import Replied, read_request_status

EXPIRY_NS = 240 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Signed:
    """A request ready to be sent: the whole HTTP request and its id."""

    http: bytes
    request_id: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """What the generator measured."""

    per_s: float
    seconds: float
    p50_ms: float
    p99_ms: float
    statuses: dict[str, int]
    generator_cpu_share: float
    samples: list[tuple[int, bytes]]


def identities(count: int) -> list[Identity]:
    """Make identities for load: their keys are numbers and guard nothing."""
    return [Ed25519Identity((0xBE7C4 + i).to_bytes(32, "big")) for i in range(count)]


def sign(
    kind: Literal["call", "query"],
    canister: Principal,
    method: str,
    arg: bytes,
    identity: Identity,
    nonce: int,
) -> Signed:
    """Sign one request and frame it as HTTP."""
    content_type = CallContent if kind == "call" else QueryContent
    content = content_type(
        sender=identity.principal,
        canister_id=canister,
        method_name=method,
        arg=arg,
        ingress_expiry_ns=time.time_ns() + EXPIRY_NS,
        nonce=nonce.to_bytes(8, "big"),
    )
    body = build_envelope(content, identity)
    version = "v4" if kind == "call" else "v3"
    head = (
        f"POST /api/{version}/canister/{canister}/{kind} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/cbor\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return Signed(head.encode() + body, request_id_of(content))


def send(port: int, requests: Sequence[Signed], connections: int, rate_per_s: float = 0) -> Result:
    """Send all requests from a generator process; `rate_per_s` 0 is a closed loop."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(port, connections, [r.http for r in requests], rate_per_s, f"{folder}/answers")
        path = Path(folder) / "plan"
        path.write_bytes(msgspec.msgpack.encode(plan))
        done = subprocess.run(
            [sys.executable, "-m", "bench.generator", str(path)],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "src"},
        )
        samples = msgspec.msgpack.decode(Path(plan.answers_path).read_bytes(), type=list[tuple[int, bytes]])
        return Result(**json.loads(done.stdout), samples=samples)


def verify_updates(requests: Sequence[Signed], result: Result, root_key: bytes) -> int:
    """Check the sampled answers: a valid certificate with a reply to just this request. Return how many."""
    for index, body in result.samples:
        answer, _ = cbor.decode(body)
        assert isinstance(answer, dict), body[:80]
        blob = answer["certificate"]
        assert isinstance(blob, bytes)
        certificate = decode_certificate(blob)
        verify_certificate(certificate, root_key, now_ns=time.time_ns())
        status = read_request_status(certificate.tree, requests[index].request_id)
        assert isinstance(status, Replied), status
    return len(result.samples)


def verify_queries(requests: Sequence[Signed], result: Result, node_key_der: bytes) -> int:
    """Check the sampled answers' node signatures. Return how many."""
    for index, body in result.samples:
        found = decode_query_response(body)
        request_id = requests[index].request_id
        assert verify_query_answer(node_key_der, found.answer, request_id, found.signatures[0])
    return len(result.samples)
