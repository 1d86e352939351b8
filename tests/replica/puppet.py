"""A program that does what its argument says: the argument, or a saved value, is a list of acts."""

from __future__ import annotations

from typing import Any

import msgspec

from cannery.errors import Reject, Trap
from cannery.ports import CallRequest, EntryKind, Stopped, System
from tests.replica.world import Script

# An act is a list: its name, then what it needs; tests write them as plain Python values.
Act = list[Any]
_TYPE = bytes(8)


def pack(acts: list[Act]) -> bytes:
    return msgspec.msgpack.encode(acts)


def _run(system: System) -> None:
    data = system.saved[8:] if system.kind in (EntryKind.CONTINUATION, EntryKind.TIMER) else system.arg
    calls: list[int] = []
    for act in msgspec.msgpack.decode(data) if data else []:
        _do(system, act, calls)


def _do(system: System, act: Act, calls: list[int]) -> None:
    match act:
        case ["put", key, value]:
            system.put(key, value)
        case ["delete", key]:
            system.delete(key)
        case ["range", start, end]:
            system.delete_range(start, end)
        case ["scan", start, end, backwards]:
            found = b"".join(key + value for key, value in system.scan(start, end, reverse=backwards))
            system.put(b"scanned", found)
        case ["note", key]:
            outcome = system.outcome
            text = b"%d:" % outcome.reject_code + outcome.reply + outcome.reject_message.encode()
            system.put(key, text)
        case ["reply", value]:
            system.reply(value)
        case ["pass"]:
            system.reply(system.outcome.reply)
        case ["reject", text]:
            system.reject(text)
        case ["trap", text]:
            raise Trap(text)
        case ["call", callee, method, acts, cycles, then]:
            continuation = None if then is None else "then"
            saved = b"" if then is None else _TYPE + pack(then)
            try:
                calls.append(
                    system.call(CallRequest(callee, method, pack(acts), cycles, continuation, saved))
                )
            except Reject as reject:
                system.put(b"refused", reject.message.encode())
        case ["raw", callee, method, arg, cycles, then]:
            calls.append(system.call(CallRequest(callee, method, arg, cycles, "then", _TYPE + pack(then))))
        case ["later", index]:
            if index < len(calls):
                system.answer_later(calls[index])
        case ["accept", amount]:
            system.cycles_accept(amount)
        case ["timer", delay_ns, every_ns, acts]:
            system.timer_set("tick", system.now_ns + delay_ns, every_ns, _TYPE + pack(acts))
        case ["cancel", number]:
            system.timer_cancel(number)
        case ["count", key]:
            before = system.get(key)
            system.put(key, b"%d" % (len(before or b"") + 1))
        case ["emit", topic, payload]:
            system.emit(topic, payload)
        case ["log", text]:
            system.log(text)
        case ["random", key]:
            system.put(key, system.random_bytes(40))
        case ["stop"]:
            raise Stopped
        case ["memory"]:
            raise MemoryError
        case ["recurse"]:
            raise RecursionError
        case ["exit"]:
            raise SystemExit(3)
        case _:
            raise Trap(f"unknown act {act!r}")


def puppet() -> Script:
    return Script({"run": _run, "go": _run}, {"read": _run}, None, {"then": _run, "tick": _run})
