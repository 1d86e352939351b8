"""Queries: answered at once from one committed state, composite ones included.

A composite query runs other canisters' queries on the same state, within bounds on depth and on the count
of queries, under the time limit of the outermost one. Queries write nothing and cost nothing. IC interface
specification, "Query call" and "Composite queries".
"""

from __future__ import annotations

import msgspec

from cannery.errors import Reject, RejectCode, Trap
from cannery.ports import EntryKind, Programs, StoreReader, Watch
from cannery.replica.elsewhere import AskedBy, Elsewhere, KnownAnswer
from cannery.replica.fleets import stamp_of
from cannery.replica.ingress import check_argument
from cannery.replica.management.dispatch import query_management
from cannery.replica.overlay import CachedReader
from cannery.replica.places import subnet_of
from cannery.replica.reads import Certify, Memory, ReadActivation
from cannery.replica.run import Failure, run_nested, run_watched
from cannery.replica.state import MANAGEMENT_ID
from cannery.replica.targets import query_kind, require_canister, require_module, require_running
from cannery.replica.view import Known, StateView, show


class Query(msgspec.Struct, frozen=True):
    """A query call whose signature and expiry have been checked, or one that another subnet's canister asks.

    `known`: answers of other subnets that an earlier run has asked for.
    """

    request_id: bytes
    sender: bytes
    canister_id: bytes
    method: str
    arg: bytes
    asked_by: AskedBy | None = None
    known: tuple[KnownAnswer, ...] = ()


class QueryResult(msgspec.Struct, frozen=True):
    """The answer to a query: a reply (`reject` None) or a reject.

    With `wanted`, it is none yet: the query needs the answer of a canister on another subnet; run it again
    with that answer among the known ones.
    """

    reply: bytes
    reject: Reject | None = None
    wanted: Elsewhere | None = None


class _ElsewhereRaised(BaseException):
    """Ends a run whose canister asks another subnet. Not an `Exception`: no program goes on with it."""


def run_query(
    reader: StoreReader,
    query: Query,
    now_ns: int,
    programs: Programs,
    watch: Watch | None,
    certify: Certify | None,
    known: Known | None = None,
    memory: Memory | None = None,
) -> QueryResult:
    """Answer a query from a committed state. Raises `StoreError` where it could not be read."""
    cached = CachedReader(reader)
    view = StateView(cached, programs, known)
    try:
        run = _QueryRun(view, query, now_ns, watch, certify, memory)
        result = QueryResult(run.answer(query))
    except _ElsewhereRaised as raised:
        (wanted,) = raised.args
        text = "this query asks a canister of another subnet: send it as a query of its own"
        result = QueryResult(b"", Reject(RejectCode.SYS_TRANSIENT, text, "CNRY0206"), wanted)
    except Reject as reject:
        result = QueryResult(b"", reject.with_traceback(None))
    cached.check()
    return result


class _QueryRun:
    """One query from outside with all that it queries."""

    __slots__ = (
        "_certify",
        "_count",
        "_depth",
        "_first_depth",
        "_identity",
        "_known",
        "_memory",
        "_now_ns",
        "_view",
        "_wanted",
        "_watch",
    )

    def __init__(
        self,
        view: StateView,
        query: Query,
        now_ns: int,
        watch: Watch | None,
        certify: Certify | None,
        memory: Memory | None,
    ) -> None:
        self._view = view
        self._identity = query.request_id
        self._now_ns = now_ns
        self._watch = watch
        self._certify = certify
        self._memory = memory
        self._depth = self._first_depth = 0 if query.asked_by is None else query.asked_by.depth
        self._count = 0
        self._known = {(each.canister_id, each.method, each.arg): each for each in query.known}
        self._wanted: Elsewhere | None = None

    def answer(self, query: Query) -> bytes:
        if query.asked_by is not None:
            fleet = query.asked_by.fleet
            return self._run(query.sender, fleet, query.canister_id, query.method, query.arg)
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
            subnet = subnet_of(config, callee)
            if subnet != config.subnet:
                return self._ask_elsewhere(subnet, caller, callee, method, arg)
            return self._run(caller, stamp_of(self._view, caller), callee, method, arg)
        finally:
            self._depth -= 1

    def _ask_elsewhere(self, subnet: int, caller: bytes, callee: bytes, method: str, arg: bytes) -> bytes:
        """Give another subnet's answer if it is known; else end this run, which begins anew with it."""
        known = self._known.get((callee, method, arg))
        if known is None:
            asked_by = AskedBy(stamp_of(self._view, caller), self._depth)
            self._wanted = Elsewhere(subnet, caller, callee, method, arg, asked_by)
            raise _ElsewhereRaised(self._wanted)
        if known.reject_code:
            raise Reject(RejectCode(known.reject_code), known.reject_message, known.error_code)
        return known.reply

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
            memory=self._memory,
        )
        assert canister.module_hash is not None, "the module was found by it"
        failure = self._run_program(canister.module_hash, activation)
        if self._wanted is not None:
            raise _ElsewhereRaised(self._wanted)
        if failure is not None:
            raise Reject(RejectCode(failure.code), failure.text, failure.error_code)
        return _reply_of(activation)

    def _run_program(self, module_hash: bytes, activation: ReadActivation) -> Failure | None:
        program = self._view.program(module_hash)
        if self._depth > self._first_depth:
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
