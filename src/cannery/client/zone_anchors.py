"""What is known of the keys of zones, for one person on one machine: the newest record that was seen of each.

`zones.json` under `~/.config/cannery` (or `CANNERY_HOME`). A zone that shows another history of its keys
later, an older one, or none, is not believed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cannery.client.identity_store import StoreProblem, default_home, write_private
from cannery.limits import ZONE_ANCHOR_COUNT_MAX
from cannery.protocol.principal import Principal


@dataclass(frozen=True, slots=True)
class Anchor:
    """A record of a zone key that is believed: its version and its hash."""

    version: int
    hash: bytes


class Anchors(Protocol):
    """Where anchors are kept, by zone and by who is a member."""

    def find(self, zone: Principal, member: Principal) -> Anchor | None: ...

    def set(self, zone: Principal, member: Principal, anchor: Anchor) -> None: ...


class MemoryAnchors:
    """Anchors for as long as the program runs: each start believes what the zone shows first."""

    def __init__(self) -> None:
        self._anchors: dict[tuple[Principal, Principal], Anchor] = {}

    def find(self, zone: Principal, member: Principal) -> Anchor | None:
        return self._anchors.get((zone, member))

    def set(self, zone: Principal, member: Principal, anchor: Anchor) -> None:
        self._anchors[zone, member] = anchor


class ZoneAnchors:
    """Anchors in a file."""

    def __init__(self, home: Path | None = None) -> None:
        self._path = (home or default_home()) / "zones.json"

    def find(self, zone: Principal, member: Principal) -> Anchor | None:
        """Give what is known of a zone; None where nothing is."""
        return self._read().get(f"{zone} {member}")

    def set(self, zone: Principal, member: Principal, anchor: Anchor) -> None:
        """Note what is known of a zone, in place of what was."""
        known = self._read()
        if known.get(f"{zone} {member}") == anchor:
            return
        known[f"{zone} {member}"] = anchor
        if len(known) > ZONE_ANCHOR_COUNT_MAX:
            raise StoreProblem(f"{self._path} knows {ZONE_ANCHOR_COUNT_MAX} zones; delete what is not needed")
        shown = {name: [each.version, each.hash.hex()] for name, each in known.items()}
        write_private(self._path, json.dumps(shown, indent=1, sort_keys=True) + "\n")

    def _read(self) -> dict[str, Anchor]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            return {
                name: Anchor(int(version), bytes.fromhex(digest)) for name, (version, digest) in known.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise StoreProblem(f"cannot read {self._path}: {error}; delete it to trust zones anew") from None
