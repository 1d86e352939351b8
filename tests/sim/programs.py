"""Programs of the simulated world: loaded once for all runs, and made to run away by the seed instead of a
clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from hashlib import sha256

from cannery import Canister
from cannery.apps.users.user_index import UserIndex
from cannery.apps.zones.zone import Zone
from cannery.cdk.build import build_module
from cannery.node.python_runtime import PythonPrograms, SourceLoader
from cannery.ports import EntryKind, Program, Stopped, System
from cannery.testing.class_source import source_of
from tests.events.club import Club
from tests.fleet.well_village import Springs
from tests.sim.asker import Asker
from tests.sim.builds import (
    SimUser,
    SimUserDeaf,
    SimUserHangs,
    SimUserLast,
    SimUserNext,
    SimUserSpoils,
    SimUserTraps,
)
from tests.sim.canisters import Nursery, Peer, PeerNext
from tests.sim.well import Well

RUNAWAYS = frozenset({"spin", "recurse"})
_STEPS_MAX = 40


class Modules:
    """The modules of the simulated world, and their loaded programs: they keep nothing between runs."""

    def __init__(self) -> None:
        self.programs = PythonPrograms()
        self.index = _build(UserIndex)
        self.index_next = _build(UserIndex, b"\n# The next version.\n")
        self.user = _build(SimUser)
        self.user_next = _build(SimUserNext)
        self.user_hangs = _build(SimUserHangs)
        self.user_hangs_hash = module_hash(self.user_hangs)
        self.user_last = _build(SimUserLast)
        self.bad_users = (
            _build(SimUserTraps),
            _build(SimUserSpoils),
            self.user_hangs,
            _build(SimUserDeaf),
        )
        self.peer = _build(Peer)
        self.peer_next = _build(PeerNext)
        self.nursery = _build(Nursery)
        self.zone = _build(Zone)
        self.club = _build(Club)
        self.asker = _build(Asker)
        self.springs = _build(Springs)
        self.well = _build(Well)


@cache
def modules() -> Modules:
    """Build everything once for a process."""
    return Modules()


def module_hash(module: bytes) -> bytes:
    """Give the hash by which a module is known."""
    return sha256(module).digest()


def _build(cls: type[Canister], more: bytes = b"") -> bytes:
    source = source_of(cls)
    files = dict(source.files)
    if more:
        files[next(path for path in sorted(files) if path.endswith("user_index.py"))] += more
    loader = SourceLoader()
    try:
        return build_module(files, source.entry, loader.load).module
    finally:
        loader.discard()


class SimWatch:
    """Behind `ports.Watch`: remembers what runs, as the file does that a killed process leaves behind."""

    def __init__(self) -> None:
        self.identity = b""

    def begin(self, identity: bytes, cpu_ns_max: int) -> None:
        self.identity = identity

    def end(self) -> None:
        """Keep the identity: it names the culprit."""


class SimPrograms:
    """Behind `ports.Programs`: the shared programs, with runaway methods stopped by `stop`.

    `stop` is called when a runaway method has run for long enough, and raises what ends it: the watch's
    `Stopped`, a MemoryError, or a crash of the process. In a replay verdicts stand in for it.
    """

    def __init__(self, stop: Callable[[], None], chance: random.Random) -> None:
        self._programs = modules().programs
        self._stop = stop
        self._chance = chance
        self._guarded: dict[bytes, Program] = {}

    def loaded(self, module_hash: bytes) -> Program | None:
        guarded = self._guarded.get(module_hash)
        if guarded is None:
            program = self._programs.loaded(module_hash)
            if program is None:
                return None
            guarded = self._guarded[module_hash] = _Guarded(
                program, self._stop, self._chance, hangs=module_hash == modules().user_hangs_hash
            )
        return guarded

    def load(self, module_hash: bytes, module: bytes) -> Program:
        self._programs.load(module_hash, module)
        found = self.loaded(module_hash)
        assert found is not None, "it was loaded just now"
        return found


class _Guarded:
    def __init__(
        self, program: Program, stop: Callable[[], None], chance: random.Random, *, hangs: bool
    ) -> None:
        self._program = program
        self._stop = stop
        self._chance = chance
        self._hangs = hangs

    def run(self, system: System) -> None:
        if system.name == "spin" or (self._hangs and system.kind is EntryKind.POST_UPGRADE):
            self._program.run(_Counted(system, self._chance.randint(1, _STEPS_MAX), self._stop))  # type: ignore[arg-type]
        else:
            self._program.run(system)


class _Counted:
    """A system whose reads come to an end."""

    def __init__(self, system: System, steps: int, stop: Callable[[], None]) -> None:
        self._system = system
        self._steps = steps
        self._stop = stop

    def __getattr__(self, name: str) -> object:
        return getattr(self._system, name)

    def get(self, key: bytes) -> bytes | None:
        self._steps -= 1
        if self._steps <= 0:
            self._stop()
        return self._system.get(key)


def stop_measured() -> None:
    """End a runaway program as the watch does."""
    raise Stopped
