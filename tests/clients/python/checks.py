"""The frame of the client checks in Python: each check prints one line of JSON, as those in JavaScript do."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable

_failed: list[str] = []


def check(name: str) -> Callable[[Callable[[], None]], None]:
    """Run the decorated function as a check."""

    def run(body: Callable[[], None]) -> None:
        try:
            body()
        except Exception:
            _failed.append(name)
            print(json.dumps({"check": name, "ok": False, "error": traceback.format_exc()}), flush=True)
        else:
            print(json.dumps({"check": name, "ok": True}), flush=True)

    return run


def equal(actual: object, expected: object) -> None:
    """Demand that two values are equal."""
    assert actual == expected, f"{actual!r} is not {expected!r}"


def refused(call: Callable[[], object], part: str) -> None:
    """Demand that a call raises an error whose text has a part."""
    try:
        answer = call()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        assert part in text, f"{part!r} is not in {text!r}"
        return
    raise AssertionError(f"was not refused but answered {answer!r}")


def finish() -> None:
    """End the script; its exit code says whether a check failed."""
    sys.exit(1 if _failed else 0)
