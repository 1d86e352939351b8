"""Who may see which message: every answer that leaves the node is searched for what its reader may not know.

Each message's text names itself; whoever is shown such a text and is neither sender nor receiver has found a
leak.
"""

from __future__ import annotations

import re

from cannery.protocol.principal import Principal
from tests.sim.failure import Broken

_MARK = re.compile(rb"~(\d+)~")


class Secrets:
    """Texts by number, with those who may read them."""

    def __init__(self) -> None:
        self._readers: list[frozenset[Principal]] = []

    def text_for(self, *readers: Principal) -> str:
        """Make a text that only these may see."""
        self._readers.append(frozenset(readers))
        return f"~{len(self._readers) - 1}~"

    def shown(self, reader: Principal, data: bytes) -> None:
        """Check what somebody is shown. Raises `Broken`."""
        if b"~" not in data:
            return
        for found in _MARK.finditer(data):
            number = int(found.group(1))
            if number < len(self._readers) and reader not in self._readers[number]:
                raise Broken("no message is visible to a non-member", f"{reader} was shown message {number}")
