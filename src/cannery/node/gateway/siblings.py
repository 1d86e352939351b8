"""What the gateway processes of a node have in common: files in `run/gateways` that each maps or reads.

A gateway that is alone shares nothing but its page of counters, which its supervisor watches. The supervisor
empties the folder before the gateways start: nothing in it outlives the node.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cannery.errors import StoreError
from cannery.node.gateway.rate_limit import MemoryTable, Table
from cannery.node.gateway.shared_rates import SharedTable
from cannery.node.gateway.tally_page import Tallies, TallyPage


class SharedText:
    """A text that one process makes for all, with the time at which it was made."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[int, str] | None:
        """Give time and text; None where there is none."""
        try:
            made, _, text = self._path.read_text().partition("\n")
            return int(made), text
        except (OSError, ValueError):
            return None

    def write(self, made_ns: int, text: str) -> None:
        """Keep a text for the others; where that fails they make their own."""
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with suppress(OSError):
            partial.write_text(f"{made_ns}\n{text}")
            os.replace(partial, self._path)


@dataclass(frozen=True, slots=True)
class RateTables:
    """Where the buckets of the gateway's three limits stand."""

    addresses: Table
    principals: Table
    refused_calls: Table


@dataclass(frozen=True, slots=True)
class Siblings:
    """What one of a node's gateway processes shares with the others."""

    tallies: Tallies
    rates: RateTables
    fleets: SharedText | None = None


def no_siblings(rated_count_max: int) -> Siblings:
    """Give what a gateway has that shares nothing with anybody; `rated_count_max`: see `open_siblings`."""
    tables = [MemoryTable(rated_count_max) for _ in range(3)]
    return Siblings(Tallies((TallyPage(),)), RateTables(*tables))


def open_siblings(folder: Path, count: int, number: int, rated_count_max: int, secret: bytes) -> Siblings:
    """Open what gateway `number` of `count` shares, and begin its page of counters.

    `rated_count_max`: addresses and principals whose rate is remembered; `secret`: known to this node
    alone. Raises `StoreError`.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {folder}: {error.strerror or error}") from error
    tallies = Tallies(tuple(TallyPage(tally_path(folder, each)) for each in range(count)), number)
    tallies.own.begin(os.getpid())
    names = ("addresses", "principals", "refused-calls")
    tables: list[Table] = [
        SharedTable(folder / f"rates-{name}", secret, rated_count_max)
        if count > 1
        else MemoryTable(rated_count_max)
        for name in names
    ]
    return Siblings(tallies, RateTables(*tables), SharedText(folder / "fleets") if count > 1 else None)


def tally_path(folder: Path, number: int) -> Path:
    """Give where a gateway's page of counters stands."""
    return folder / f"tally-{number}"


def clear_shared(folder: Path) -> None:
    """Empty what gateways share, making the folder if need be."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink(missing_ok=True)
