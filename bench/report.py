"""What a bench says: a measured figure beside its limit or peer, as a ratio, on the terminal and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `value` of ours beside `reference`; the ratio is ours over theirs."""

    bench: str
    what: str
    value: float
    unit: str
    against: str = ""
    reference: float | None = None
    notes: dict[str, float | str] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Ours over theirs, where there is something to compare with."""
        return self.value / self.reference if self.reference else None


def median_of(runs: int, measure: Callable[[], float]) -> float:
    """Measure several times and give the median."""
    return statistics.median(measure() for _ in range(runs))


def machine() -> str:
    """Name the machine in a few words."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


def print_line(line: Line) -> None:
    """Print one line as soon as it is measured."""
    text = f"{line.bench:<12} {line.what:<44} {line.value:>12,.1f} {line.unit:<10}"
    if line.ratio is not None:
        text += f" {line.ratio:>7.2f} x {line.against} ({line.reference:,.1f})"
    if line.notes:
        text += "   " + ", ".join(f"{key} {_shown(value)}" for key, value in line.notes.items())
    print(text, flush=True)


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.2f}"


def write_results(lines: Sequence[Line]) -> Path:
    """Write all lines as JSON and return the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("bench-%Y%m%d-%H%M%S.json")
    rows = [{**asdict(line), "ratio": line.ratio} for line in lines]
    path.write_text(json.dumps({"machine": machine(), "lines": rows}, indent=2))
    return path
