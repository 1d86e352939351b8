"""Who may see which message: every answer that leaves the node is searched for what its reader may not know.

Each message's text names itself; whoever is shown such a text and is neither sender nor receiver has found a
leak.
"""

from __future__ import annotations

import re
from collections.abc import Set

from cannery.protocol.principal import Principal
from tests.sim.failure import Broken

_MARK = re.compile(rb"~(\d+)~")
# Longer, since it stands beside hashes, where a short one comes about by chance.
_MARK_AMONG = re.compile(rb"~among(\d+)~")


class Secrets:
    """Texts by number, with those who may read them."""

    def __init__(self) -> None:
        self._readers: list[Set[Principal]] = []
        self._among: list[Set[Principal]] = []

    def text_for(self, *readers: Principal) -> str:
        """Make a text that only these may see."""
        self._readers.append(frozenset(readers))
        return f"~{len(self._readers) - 1}~"

    def text_among(self, readers: Set[Principal]) -> str:
        """Make a text that only these may see, and whoever joins them later."""
        self._among.append(readers)
        return f"~among{len(self._among) - 1}~"

    def shown(self, reader: Principal, data: bytes) -> None:
        """Check what somebody is shown. Raises `Broken`."""
        if b"~" not in data:
            return
        for mark, readers in ((_MARK, self._readers), (_MARK_AMONG, self._among)):
            for found in mark.finditer(data):
                number = int(found.group(1))
                if number < len(readers) and reader not in readers[number]:
                    raise Broken(
                        "no message is visible to a non-member", f"{reader} was shown message {number}"
                    )
