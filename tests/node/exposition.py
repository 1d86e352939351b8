"""A strict reader of Prometheus' text format 0.0.4, as `promtool check metrics` reads it.

Every sample belongs to the family whose HELP and TYPE stand before it; a family's lines stand together, once;
names, labels and numbers have the format's shapes; no series appears twice; a histogram's buckets rise and
end with +Inf, which is its count; a counter's name ends in `_total`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{((?:{LABEL})(?:,(?:{LABEL}))*)?\}})? (\S+)")
VALUE = re.compile(r"[+-]?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|Inf)|NaN")

Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """A metric: its type, help, and value by name and labels of each sample."""

    kind: str
    help: str = ""
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)


def read_exposition(text: str) -> dict[str, Family]:
    """Read a page; raise AssertionError where a strict parser would refuse it."""
    assert text.endswith("\n"), "the last line is not ended"
    families: dict[str, Family] = {}
    current, helps = "", {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, words = line.split(" ", 3)
            assert not {name} & (helps.keys() | families.keys()), f"HELP of {name} comes late or twice"
            assert NAME.fullmatch(name)
            assert words
            helps[name] = words
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in families, f"{name} has two types"
            assert kind in {"counter", "gauge", "histogram"}, line
            assert name in helps, f"{name} has no HELP before its TYPE"
            assert (kind == "counter") == name.endswith("_total"), f"{name} is a {kind}"
            families[name], current = Family(kind, helps[name]), name
        elif not line.startswith("#"):
            _sample(families, current, line)
    for name, family in families.items():
        assert family.samples, f"{name} has no sample"
        if family.kind == "histogram":
            _check_histogram(name, family)
    return families


def _sample(families: dict[str, Family], current: str, line: str) -> None:
    match = SAMPLE.fullmatch(line)
    assert match is not None, f"not a sample: {line!r}"
    name, value = match[1], match[len(match.groups())]
    labels = tuple(sorted((found[1], found[2]) for found in re.finditer(LABEL, match[2] or "")))
    assert len({label for label, _ in labels}) == len(labels), f"a label twice: {line}"
    assert VALUE.fullmatch(value), f"not a number: {line}"
    family = families[current]
    endings = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
    assert name in {current + ending for ending in endings}, f"{name} stands among {current}"
    assert (name, labels) not in family.samples, f"twice: {line}"
    family.samples[name, labels] = float(value)


def _check_histogram(name: str, family: Family) -> None:
    series: dict[Labels, list[tuple[float, float]]] = {}
    for (sample, labels), count in family.samples.items():
        if sample == f"{name}_bucket":
            rest = tuple(label for label in labels if label[0] != "le")
            series.setdefault(rest, []).append((float(dict(labels)["le"]), count))
    assert series
    for labels, buckets in series.items():
        assert buckets == sorted(buckets)
        assert [count for _, count in buckets] == sorted(count for _, count in buckets)
        assert math.isinf(buckets[-1][0])
        assert buckets[-1][1] == family.samples[f"{name}_count", labels]
        assert (f"{name}_sum", labels) in family.samples
