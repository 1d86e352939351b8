"""Runs one activation of a program, and decides what its end was.

Here stands the one `except BaseException` around programs: whatever a program raises ends its message, not
the node. What clock or memory decided becomes a verdict with the number of the activation; a block that
brings verdicts is obeyed and nothing is measured for those activations. This module changes no state.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cannery.errors import BadArgument, Reject, RejectCode, Trap
from cannery.limits import REJECT_TEXT_SIZE_CHARS_MAX
from cannery.ports import Program, Stopped, System, Watch
from cannery.replica.block import Block, Verdict
from cannery.replica.view import show

_POISONED = (
    "Canister {} was running this message when the node's process ended: it took too much time or memory. "
    "The message was not run again; give it less to do"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an activation left no trace. `measured`: clock or memory decided, so that counted work means
    nothing. `refused`: the program says that the argument is not what it takes.
    """

    text: str
    code: int = RejectCode.CANISTER_ERROR
    error_code: str = "IC0503"
    measured: bool = False
    refused: bool = False
    cause: BaseException = field(default_factory=Stopped, compare=False, repr=False)


class Runner:
    """Runs the activations of one round, in order, under the block's verdicts and the watch.

    `has_stopped`: a verdict was made or obeyed (a poisoned message costs no time, so it is none).
    """

    __slots__ = ("_poisoned", "_verdicts", "_watch", "has_stopped", "made", "ordinal")

    def __init__(self, block: Block, watch: Watch | None) -> None:
        self._watch = watch
        self._poisoned = frozenset(block.poisoned)
        self._verdicts = {verdict.ordinal: verdict.text for verdict in block.verdicts}
        self.made: list[Verdict] = list(block.verdicts)
        self.ordinal = 0
        self.has_stopped = False

    @property
    def needs_identity(self) -> bool:
        """Say whether `run` looks at identities."""
        return self._watch is not None or bool(self._poisoned)

    def run(self, program: Program, activation: System, identity: bytes, cpu_ns_max: int) -> Failure | None:
        """Run an activation to its end; None where it succeeded."""
        self.ordinal += 1
        if self._poisoned and identity in self._poisoned:
            return Failure(_POISONED.format(show(activation.canister_id)), error_code="IC0522", measured=True)
        text = self._verdicts.get(self.ordinal)
        if text is None:
            failure = run_watched(program, activation, identity, cpu_ns_max, self._watch)
            if failure is not None and failure.measured:
                self.has_stopped = True
                self.made.append(Verdict(self.ordinal, failure.text))
            return failure
        self.has_stopped = True
        return Failure(text, error_code="IC0522", measured=True)


def run_watched(
    program: Program, activation: System, identity: bytes, cpu_ns_max: int, watch: Watch | None
) -> Failure | None:
    """Run a program under the watch; None where it came to its end without raising.

    One that caught `Stopped` and went on is stopped all the same: what it made of that hangs on the clock.
    """
    has_stopped = False
    try:
        if watch is None:
            program.run(activation)
        else:
            try:
                watch.begin(identity, cpu_ns_max)
                program.run(activation)
            finally:
                has_stopped = watch.end()
    except BaseException as error:  # noqa: BLE001  (a program may raise anything, SystemExit included)
        # In no variable of its own: its traceback holds this frame, and through it the whole round.
        if has_stopped and not isinstance(error, Stopped):
            return _failure_of(Stopped(), activation, cpu_ns_max)
        return _failure_of(error, activation, cpu_ns_max)
    return _failure_of(Stopped(), activation, cpu_ns_max) if has_stopped else None


def run_nested(program: Program, activation: System) -> Failure | None:
    """Run a program within another's activation: what clock or memory decides ends the outer one too."""
    failure = run_watched(program, activation, b"", 0, None)
    if failure is not None and failure.measured:
        raise failure.cause
    return failure


def _failure_of(error: BaseException, activation: System, cpu_ns_max: int) -> Failure:
    name = show(activation.canister_id)
    if isinstance(error, Trap):
        refused = isinstance(error, BadArgument)
        return Failure(f"Canister {name} trapped: {_bounded(str(error))}", refused=refused)
    if isinstance(error, Reject):
        return Failure(
            f"Canister {name} trapped: a call was refused, and that not handled: {_bounded(error.message)}"
        )
    if isinstance(error, Stopped):
        text = (
            f"Canister {name} was stopped: the message used more than {cpu_ns_max / 1e9:g} s of CPU time. "
            "Do less in one message: work in pages, go on by a call to oneself or a timer"
        )
        return Failure(text, error_code="IC0522", measured=True, cause=error)
    if isinstance(error, MemoryError):
        text = f"Canister {name} was stopped: it used too much memory. Hold less at once: work in pages"
        return Failure(text, error_code="IC0522", measured=True, cause=error)
    if isinstance(error, RecursionError):
        text = f"Canister {name} was stopped: it recursed too deeply. Use a loop with a list of what is left"
        return Failure(text, error_code="IC0522", measured=True, cause=error)
    return Failure(f"Canister {name} trapped: {type(error).__name__}: {_bounded(str(error))}")


def _bounded(text: str) -> str:
    if len(text) <= REJECT_TEXT_SIZE_CHARS_MAX:
        return text
    return text[:REJECT_TEXT_SIZE_CHARS_MAX] + "..."
