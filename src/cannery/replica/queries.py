"""Queries: answered at once from one committed state, composite ones included.

A composite query runs other canisters' queries on the same state, within bounds on depth and on the count
of queries, under the time limit of the outermost one. Queries write nothing and cost nothing. IC interface
specification, "Query call" and "Composite queries".
"""

from __future__ import annotations

from dataclasses import dataclass

from cannery.errors import Reject, RejectCode, Trap
from cannery.ports import EntryKind, Programs, StoreReader, Watch
from cannery.replica.fleets import stamp_of
from cannery.replica.ingress import check_argument
from cannery.replica.management.dispatch import query_management
from cannery.replica.overlay import CachedReader
from cannery.replica.reads import Certify, ReadActivation
from cannery.replica.run import Failure, run_nested, run_watched
from cannery.replica.state import MANAGEMENT_ID
from cannery.replica.targets import query_kind, require_canister, require_module, require_running
from cannery.replica.view import Known, StateView, show


@dataclass(frozen=True, slots=True)
class Query:
    """A query call whose signature and expiry have been checked."""

    request_id: bytes
    sender: bytes
    canister_id: bytes
    method: str
    arg: bytes


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer to a query: a reply (`reject` None) or a reject."""

    reply: bytes
    reject: Reject | None = None


def run_query(
    reader: StoreReader,
    query: Query,
    now_ns: int,
    programs: Programs,
    watch: Watch | None,
    certify: Certify | None,
    known: Known | None = None,
) -> QueryResult:
    """Answer a query from a committed state. Raises `StoreError` where it could not be read."""
    cached = CachedReader(reader)
    view = StateView(cached, programs, known)
    try:
        result = QueryResult(_QueryRun(view, query.request_id, now_ns, watch, certify).answer(query))
    except Reject as reject:
        result = QueryResult(b"", reject)
    cached.check()
    return result


class _QueryRun:
    """One query from outside with all that it queries."""

    __slots__ = ("_certify", "_count", "_depth", "_identity", "_now_ns", "_view", "_watch")

    def __init__(
        self, view: StateView, identity: bytes, now_ns: int, watch: Watch | None, certify: Certify | None
    ) -> None:
        self._view = view
        self._identity = identity
        self._now_ns = now_ns
        self._watch = watch
        self._certify = certify
        self._depth = 0
        self._count = 0

    def answer(self, query: Query) -> bytes:
        if query.canister_id == MANAGEMENT_ID:
            return self._answer_management(query.sender, query.method, query.arg, from_canister=False)
        return self._run(query.sender, b"", query.canister_id, query.method, query.arg)

    def query_other(self, caller: bytes, callee: bytes, method: str, arg: bytes) -> bytes:
        """Run a query of a composite query. Raises `Reject`."""
        config = self._view.config
        self._count += 1
        if self._count > config.composite_call_count_max:
            text = f"a composite query runs at most {config.composite_call_count_max} queries: ask for less"
            raise Reject(RejectCode.SYS_TRANSIENT, text)
        if self._depth >= config.composite_depth_max:
            text = f"composite queries nest at most {config.composite_depth_max} deep"
            raise Reject(RejectCode.SYS_TRANSIENT, text)
        self._depth += 1
        try:
            if callee == MANAGEMENT_ID:
                return self._answer_management(caller, method, arg, from_canister=True)
            return self._run(caller, stamp_of(self._view, caller), callee, method, arg)
        finally:
            self._depth -= 1

    def _answer_management(self, caller: bytes, method: str, arg: bytes, *, from_canister: bool) -> bytes:
        try:
            return query_management(self._view, caller, method, arg, self._now_ns, from_canister)
        except Trap as trap:
            raise Reject(RejectCode.CANISTER_ERROR, str(trap), "IC0503") from trap

    def _run(self, caller: bytes, caller_fleet: bytes, canister_id: bytes, method: str, arg: bytes) -> bytes:
        view = self._view
        canister = require_canister(view, canister_id)
        require_running(canister_id, canister)
        module = require_module(view, canister_id, canister)
        check_argument(view, method, arg)
        kind = query_kind(canister_id, module, method)
        activation = ReadActivation(
            view,
            canister_id,
            kind,
            method,
            arg,
            caller,
            self._now_ns,
            caller_fleet=caller_fleet,
            certify=self._certify,
            query_other=self.query_other,
        )
        assert canister.module_hash is not None, "the module was found by it"
        failure = self._run_program(canister.module_hash, activation)
        if failure is not None:
            raise Reject(RejectCode(failure.code), failure.text, failure.error_code)
        return _reply_of(activation)

    def _run_program(self, module_hash: bytes, activation: ReadActivation) -> Failure | None:
        program = self._view.program(module_hash)
        if self._depth:
            return run_nested(program, activation)
        config = self._view.config
        composite = activation.kind is EntryKind.COMPOSITE_QUERY
        cpu_ns_max = config.composite_cpu_ns_max if composite else config.query_cpu_ns_max
        return run_watched(program, activation, self._identity, cpu_ns_max, self._watch)


def _reply_of(activation: ReadActivation) -> bytes:
    if activation.reply_data is not None:
        return activation.reply_data
    if activation.rejection is not None:
        code, text = activation.rejection
        raise Reject(RejectCode(code), text, "IC0406")
    text = f"Canister {show(activation.canister_id)} did not reply to the query"
    raise Reject(RejectCode.CANISTER_ERROR, text, "IC0506")
