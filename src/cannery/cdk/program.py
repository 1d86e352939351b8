"""A canister class as a program: decode the argument, call the method on a fresh instance, encode the answer.

The `Program` port. Everything that depends on the class alone is compiled once; a program keeps nothing
between runs. An exception of the author's code becomes a trap whose text names the exception and its line;
what is no `Exception` (SystemExit, the watch's `Stopped`) and what the machine decided (MemoryError,
RecursionError) pass through to whoever runs the program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from cannery.candid import types as ct
from cannery.candid.codec import decoder, encoder
from cannery.candid.errors import CandidError
from cannery.candid.layout import render
from cannery.candid.subtype import is_subtype
from cannery.candid.type_syntax import layout_arguments
from cannery.cdk.calls import Outcome, Pending, read_outcome, read_raw_outcome
from cannery.cdk.component import let_go
from cannery.cdk.context import Context
from cannery.cdk.declare import Canister
from cannery.cdk.describe import Description, describe
from cannery.cdk.entries import ContinuationEntry, MethodEntry, TimerEntry
from cannery.cdk.failure import trap_of
from cannery.cdk.forward import FORWARD, decode_answerer
from cannery.cdk.guards import Refuse
from cannery.cdk.part import NO_ANSWER, SYSTEM_ATTRIBUTE, InternalHandler
from cannery.cdk.refusal import Refusal
from cannery.cdk.waiter import Continued
from cannery.errors import BadArgument, RejectCode, Trap
from cannery.ports import EntryKind, System

Runner = Callable[[System], None]
WaiterRunner = Callable[[System, Continued], None]

_HOOK_OF_KIND = {
    EntryKind.INIT: "init",
    EntryKind.PRE_UPGRADE: "pre_upgrade",
    EntryKind.POST_UPGRADE: "post_upgrade",
    EntryKind.HEALTH: "health",
    EntryKind.INSPECT: "inspect_message",
}
_KIND_OF_ROLE = {
    "update": EntryKind.UPDATE,
    "oneway": EntryKind.UPDATE,
    "query": EntryKind.QUERY,
    "composite_query": EntryKind.COMPOSITE_QUERY,
}
# What the machine decided is no trap of the program's: whoever runs it makes a verdict of it, for replays.
_PASSED_ON = (Trap, MemoryError, RecursionError)
_LINE_WIDTH_CHARS = 500
_EMPTY_ARGUMENT = encoder(())(())


class PythonProgram:
    """Run a canister class."""

    __slots__ = ("_hooks", "_named", "description")

    def __init__(self, cls: type[Canister]) -> None:
        self.description = describe(cls)
        self._named: dict[EntryKind, dict[str, Runner]] = {kind: {} for kind in EntryKind}
        self._hooks: dict[EntryKind, Runner] = {}
        self._compile()

    def run(self, system: System) -> None:
        """Run one activation to its end; raise Trap for what the author's code did wrong."""
        kind = system.kind
        runner = self._hooks.get(kind) or self._named[kind].get(system.name)
        if runner is not None:
            return runner(system)
        if kind in _HOOK_OF_KIND:
            return _run_without_hook(system)
        raise Trap(f"the canister has no {kind.name.lower().replace('_', ' ')} method {system.name!r:.200}")

    def _compile(self) -> None:
        d = self.description
        for kind, hook in _HOOK_OF_KIND.items():
            if hook in d.hooks:
                self._hooks[kind] = _hook_runner(d, d.hooks[hook], kind)
        self._hooks[EntryKind.INSPECT] = _inspect_runner(d, self._hooks.get(EntryKind.INSPECT))
        for entry in d.methods.values():
            runners = self._named[_KIND_OF_ROLE[entry.role]]
            runners[entry.name] = _method_runner(d, entry)
            if entry.role == "query":
                # A query called as an update runs in a round; the replica keeps nothing it writes.
                self._named[EntryKind.UPDATE][entry.name] = runners[entry.name]
        continuations, timers = self._named[EntryKind.CONTINUATION], self._named[EntryKind.TIMER]
        continuations[FORWARD] = functools.partial(_run_forward, d)
        waiters = {name: _waiter_runner(d, entry) for name, entry in d.continuations.items()}
        for name, continuation in d.continuations.items():
            continuations[name] = _continuation_runner(d, continuation, waiters)
        for name, timer in d.timers.items():
            timers[name] = _timer_runner(d, timer)
        for name, handler in d.internal_continuations.items():
            continuations[name] = _internal_runner(d, handler)
        for name, handler in d.internal_timers.items():
            timers[name] = _internal_runner(d, handler)


def _run_without_hook(system: System) -> None:
    """Do what a canister without this hook does: let a message in, need nothing else."""
    if system.kind == EntryKind.INSPECT:
        system.accept()


def _instance(cls: type[Canister], system: System) -> Canister:
    instance = cls.__new__(cls)
    instance.__dict__[SYSTEM_ATTRIBUTE] = system
    return instance


def _guarded(body: Runner) -> Runner:
    """Give every failure of the author's code its fate: a reject is answered, the rest is a trap."""

    def run(system: System) -> None:
        try:
            body(system)
        except Refusal as refusal:
            system.reject(str(refusal))
        except _PASSED_ON:
            raise
        except Exception as error:
            raise trap_of(error) from error

    return run


def _method_runner(d: Description, entry: MethodEntry) -> Runner:
    cls, function, new = d.cls, entry.function, d.cls.__new__
    continuations, timers = d.continuation_of, d.timer_of
    decode = decoder(entry.args)
    answer = _answer(entry.name, entry.results, entry.now, entry.later)
    answerer = (f"m:{entry.name}", entry.results) if entry.later else None

    def run(system: System) -> None:
        try:
            args = decode(system.arg)
        except CandidError as error:
            raise BadArgument(f"{entry.name} expects {_spell_types(entry.args)}: {error}") from None
        instance = new(cls)
        instance.__dict__[SYSTEM_ATTRIBUTE] = system
        try:
            answer(system, function(instance, Context(system, continuations, timers, answerer), *args))
        finally:
            let_go(instance)

    return _guarded(run if entry.refuse is None else _refusing(d, entry.refuse, run))


def _refusing(d: Description, refuse: Refuse, run: Runner) -> Runner:
    """Ask a method's guard first, and answer with its reject."""

    new_instance = functools.partial(_instance, d.cls)

    def run_allowed(system: System) -> None:
        text = refuse(system, new_instance)
        if text is None:
            run(system)
        else:
            system.reject(text)

    return run_allowed


def _inspect_runner(d: Description, own: Runner | None) -> Runner:
    """Ask the guard of the method that is to be called, then the author's hook where there is one."""
    inspect = own or _run_without_hook
    guarded = {
        m.name: _guarded(_refusing(d, m.refuse, inspect)) for m in d.methods.values() if m.refuse is not None
    }

    def run(system: System) -> None:
        guarded.get(system.name, inspect)(system)

    return run


def _answer(
    name: str, results: tuple[ct.Type, ...], now: bool, later: bool
) -> Callable[[System, object], None]:
    """Make the function that turns what a method returned into its answer."""
    encode = encoder(results)
    single, none = len(results) == 1, not results

    def answer(system: System, value: object) -> None:
        if type(value) is Pending:
            if not later:
                raise Trap(f"{name} returned a pending call: add Pending[...] to its return hint")
            _check_pending(name, results, value)
            system.answer_later(value.number)
            return
        if not now:
            raise Trap(f"{name} returned {value!r:.100}: its interface promises a pending call")
        try:
            if single:
                data = encode((value,))
            elif none and value is not None:
                raise CandidError("a method without a result returns None")
            else:
                data = encode(() if none else value)  # type: ignore[arg-type] # the encoder checks what it is given
        except CandidError as error:
            raise Trap(
                f"{name} returned {value!r:.100}; its interface promises {_spell_types(results)}: {error}"
            ) from None
        system.reply(data)

    return answer


def _check_pending(name: str, results: tuple[ct.Type, ...], pending: Pending[object]) -> None:
    later = pending.results
    if later is None or later is results or later == results:
        return
    if len(later) != len(results) or not all(map(is_subtype, later, results)):
        raise Trap(
            f"{name} promises {_spell_types(results)}; the continuation of the call that it returned answers "
            f"{_spell_types(later)}"
        )


def _continuation_runner(
    d: Description, entry: ContinuationEntry, waiters: Mapping[str, WaiterRunner]
) -> Runner:
    decode = None if entry.outcome is None else decoder(entry.outcome)
    saved = entry.saved
    answer = _answer(entry.name, entry.results, entry.now, entry.later)
    answerer = (f"c:{entry.name}", entry.results)

    def run(system: System) -> None:
        outcome: Outcome[object] = (
            read_raw_outcome(system.outcome) if decode is None else read_outcome(system.outcome, decode)
        )
        args = (outcome,) if saved is None else (outcome, saved.read(system.saved, system))
        ctx = Context(system, d.continuation_of, d.timer_of, answerer)
        value = entry.function(_instance(d.cls, system), ctx, *args)
        if type(value) is Continued:
            _run_waiter(waiters, system, value)
        else:
            answer(system, value)

    return _guarded(run)


def _run_waiter(waiters: Mapping[str, WaiterRunner], system: System, continued: Continued) -> None:
    """Let the waiter's continuation give the answer, after what its component has booked."""
    waiter = continued.waiter
    go_on = waiters.get(waiter.name)
    if go_on is None:
        system.reject(f"the method {waiter.name!r:.100}, which waits for this answer, is gone")
    else:
        go_on(system, continued)


def _waiter_runner(d: Description, entry: ContinuationEntry) -> WaiterRunner:
    saved = entry.saved
    answer = _answer(entry.name, entry.results, entry.now, entry.later)
    answerer = (f"c:{entry.name}", entry.results)

    def run(system: System, continued: Continued) -> None:
        outcome = continued.outcome
        args = (outcome,) if saved is None else (outcome, saved.read(continued.waiter.saved, system))
        ctx = Context(system, d.continuation_of, d.timer_of, answerer)
        answer(system, entry.function(_instance(d.cls, system), ctx, *args))

    return run


def _timer_runner(d: Description, entry: TimerEntry) -> Runner:
    saved = entry.saved

    def run(system: System) -> None:
        args = () if saved is None else (saved.read(system.saved, system),)
        ctx = Context(system, d.continuation_of, d.timer_of, None)
        _run_unanswered(lambda: entry.function(_instance(d.cls, system), ctx, *args))

    return run


def _hook_runner(d: Description, entry: MethodEntry, kind: EntryKind) -> Runner:
    decode = decoder(entry.args)

    def run(system: System) -> None:
        try:
            args = decode(system.arg or _EMPTY_ARGUMENT) if entry.args else ()
        except CandidError as error:
            raise Trap(f"{entry.name} expects {_spell_types(entry.args)}: {error}") from None
        ctx = Context(system, d.continuation_of, d.timer_of, None)
        # Who is not let in hears why; of other hooks nobody waits for an answer.
        refuse = system.reject if kind == EntryKind.INSPECT else None
        result = _run_unanswered(lambda: entry.function(_instance(d.cls, system), ctx, *args), refuse)
        if kind == EntryKind.HEALTH and result is not None and result is not True:
            told = "false" if result is False else f"{result!r:.100}, and not True"
            raise Trap(f"the health check {entry.function.__name__} answered {told}")
        if kind == EntryKind.INSPECT and result is True:
            system.accept()

    return run


def _run_unanswered(function: Callable[[], object], refuse: Callable[[str], None] | None = None) -> object:
    """Run a method that has nobody to answer: a reject is a trap there, unless `refuse` takes it."""
    try:
        return function()
    except Refusal as refusal:
        if refuse is None:
            raise Trap(str(refusal)) from None
        return refuse(str(refusal))
    except _PASSED_ON:
        raise
    except Exception as error:
        raise trap_of(error) from error


def _internal_runner(d: Description, handler: InternalHandler) -> Runner:
    """Run a continuation or timer of a part, like the author's own."""
    answer = _answer(handler.name, handler.results, now=True, later=True)
    answerer = (f"p:{handler.name}", handler.results)

    def run(system: System) -> None:
        ctx = Context(system, d.continuation_of, d.timer_of, answerer)
        value = handler.run(_instance(d.cls, system), ctx, system)
        if system.kind == EntryKind.CONTINUATION and value is not NO_ANSWER:
            answer(system, value)

    return _guarded(run)


def _run_forward(d: Description, system: System) -> None:
    """Pass a callee's answer on, once it is seen to be of the promised type."""
    answerer = decode_answerer(system.saved, system)
    entries: dict[str, Mapping[str, MethodEntry | ContinuationEntry | InternalHandler]]
    entries = {"m": d.methods, "c": d.continuations, "p": d.internal_continuations}
    entry = entries[answerer[0]].get(answerer[2:])
    outcome = system.outcome
    if outcome.reject_code:
        code = RejectCode.CANISTER_REJECT if outcome.reject_code > 5 else outcome.reject_code
        system.reject(outcome.reject_message, code)
    elif entry is None:
        system.reject(f"the method {answerer[2:]!r:.100}, which waits for this answer, is gone")
    else:
        try:
            values = decoder(entry.results)(outcome.reply)
        except CandidError as error:
            raise Trap(f"the callee's reply is not {_spell_types(entry.results)}: {error}") from None
        system.reply(encoder(entry.results)(values))


def _spell_types(types: tuple[ct.Type, ...]) -> str:
    return render(layout_arguments(types, ()), _LINE_WIDTH_CHARS)[:_LINE_WIDTH_CHARS]
