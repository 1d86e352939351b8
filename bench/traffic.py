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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from bench.generator import ANSWER_SAMPLE_EVERY, Plan
from cannery.cli.stress_requests import Signer
from cannery.protocol import cbor
from cannery.protocol.certificate import Certificate, decode_certificate, verify_certificate
from cannery.protocol.envelope import request_id_of
from cannery.protocol.identity import Ed25519Identity, Identity
from cannery.protocol.principal import Principal
from cannery.protocol.query_signature import decode_query_response, verify_query_answer
from cannery.protocol.request_status import Replied, read_request_status

_SIGNER = Signer("http://127.0.0.1")


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
    times: list[tuple[float, float]] = field(default_factory=list)


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
    content, http = _SIGNER.frame(kind, canister, method, arg, identity, nonce.to_bytes(8, "big"))
    return Signed(http, request_id_of(content))


def send(
    port: int,
    requests: Sequence[Signed],
    connections: int,
    rate_per_s: float = 0,
    *,
    resends: bool = False,
    keep_every: int = ANSWER_SAMPLE_EVERY,
) -> Result:
    """Send all requests from a generator process; `rate_per_s` 0 is a closed loop. With `resends`, each one
    again until it has a certified reply, through restarts of the node; `times` tells when each left. One
    answer in `keep_every` is among the samples.
    """
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(
            port,
            connections,
            [r.http for r in requests],
            rate_per_s,
            f"{folder}/answers",
            resends,
            keep_every,
        )
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
        certificate = _certificate_in(body)
        verify_certificate(certificate, root_key, now_ns=time.time_ns())
        status = read_request_status(certificate.tree, requests[index].request_id)
        assert isinstance(status, Replied), status
    return len(result.samples)


def reply_in(request: Signed, body: bytes) -> bytes:
    """Read the reply to an update call out of its answer, unverified."""
    status = read_request_status(_certificate_in(body).tree, request.request_id)
    assert isinstance(status, Replied), status
    return status.reply


def _certificate_in(body: bytes) -> Certificate:
    answer, _ = cbor.decode(body)
    assert isinstance(answer, dict), body[:80]
    blob = answer["certificate"]
    assert isinstance(blob, bytes)
    return decode_certificate(blob)


def verify_queries(requests: Sequence[Signed], result: Result, node_key_der: bytes) -> int:
    """Check the sampled answers' node signatures. Return how many."""
    for index, body in result.samples:
        found = decode_query_response(body)
        request_id = requests[index].request_id
        assert verify_query_answer(node_key_der, found.answer, request_id, found.signatures[0])
    return len(result.samples)
