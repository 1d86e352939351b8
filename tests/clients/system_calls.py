"""What a traced node wrote, synced and sent, in the order in which it happened.

Reads the output of `strace -f -yy` over all processes of a node: one line for each system call, or two where
calls of other threads lie between its begin and its end. The kernel stops a thread at both until strace has
written its line, so that the order of lines is an order of causes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

WRITES = ("write", "writev", "pwrite64", "pwritev")
SENDS = ("sendto", "sendmsg", "sendmmsg", *WRITES)
SYNCS = ("fsync", "fdatasync")
ARGUMENTS = ("-f", "-yy", "-s", "1000000", "-e", "signal=none", "--seccomp-bpf")
TRACED = ("-e", "trace=" + ",".join(dict.fromkeys((*SENDS, *SYNCS))))

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\((\d+)<(.*?)>[,)]?)(.*)", re.DOTALL)
_UNFINISHED = "<unfinished ...>"


@dataclass(frozen=True)
class SystemCall:
    """A call that succeeded: who made it, on which file or socket, with what; its first and last line."""

    thread: int
    name: str
    target: str
    text: str
    begun: int
    ended: int


def read_trace(lines: Iterable[str]) -> list[SystemCall]:
    """Parse a trace; calls that failed are left out. In the order of their begins."""
    return sorted(_calls(lines), key=lambda call: call.begun)


def _calls(lines: Iterable[str]) -> Iterator[SystemCall]:
    open_calls: dict[int, tuple[str, str, str, int]] = {}
    for number, line in enumerate(lines):
        found = _LINE.match(line)
        if found is None:
            continue
        thread, resumed, name, _, target, rest = found.groups()
        if resumed is None and rest.rstrip().endswith(_UNFINISHED):
            open_calls[int(thread)] = name, target, rest, number
            continue
        begun = number
        if resumed is not None:
            if int(thread) not in open_calls:
                continue
            name, target, text, begun = open_calls.pop(int(thread))
        else:
            text = rest
        if " = -1 " not in rest[-80:]:
            yield SystemCall(int(thread), name, target, text, begun, number)


@dataclass(frozen=True)
class Marked:
    """A message with a marker in its argument: where it was written to the log, and what sent it back."""

    marker: str
    written: SystemCall
    sent: tuple[SystemCall, ...]


def find_marked(calls: list[SystemCall], markers: Iterable[str]) -> list[Marked]:
    """Find each marker's write to the store's log, and the answers: what the subnet and the gateway sent."""
    logged = [call for call in calls if call.name in WRITES and call.target.endswith(".log")]
    assert logged, "nothing was written to the store's log"
    subnet = {call.thread for call in logged}
    answers = [call for call in calls if call.name in SENDS and _is_answer(call, subnet)]
    return [_find(marker, logged, answers) for marker in markers]


def _is_answer(call: SystemCall, subnet: set[int]) -> bool:
    return call.target.startswith("TCP") or (call.target.startswith("UNIX") and call.thread in subnet)


def _find(marker: str, logged: list[SystemCall], answers: list[SystemCall]) -> Marked:
    written = next((call for call in logged if marker in call.text), None)
    assert written is not None, f"{marker} was not written to the store's log"
    return Marked(marker, written, tuple(call for call in answers if marker in call.text))


def is_synced_before(calls: list[SystemCall], written: SystemCall, sent: SystemCall) -> bool:
    """Tell whether a sync of the log began after a write had ended, and ended before an answer began."""
    return any(
        call.name in SYNCS
        and call.target == written.target
        and call.begun > written.ended
        and call.ended < sent.begun
        for call in calls
    )
