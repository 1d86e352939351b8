"""What a canister is asked before its events go to anybody: its query `events_allowed` decides.

`events_allowed : (EventRequest) -> (vec text) query` gives back those of the topics that its caller may have;
a canister without it gives its events to nobody. The node asks again whenever something changes that the
query has read. Challenge and origin are those of the connection: the node has compared them.
"""

from __future__ import annotations

from typing import Final

from cannery.candid.python import nat64, record

EVENTS_METHOD: Final = "events_allowed"


@record
class EventRequest:
    """A client asks for events of these topics, from the one with the number `since` on; none: from now on.

    `origin` is the web page's, as the browser says; empty for clients that are no browsers.
    """

    challenge: bytes
    origin: str
    topics: list[str]
    since: nat64 | None
