"""What must hold of a zone: of every history that is read page by page, and of all it keeps at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cannery.apps.zones.diode_types import Message
from cannery.apps.zones.history import HistoryAsk, HistoryOrder, HistoryPage, HistoryRange, MissingPage
from cannery.apps.zones.retention import ZoneUsage
from cannery.protocol.principal import Principal
from tests.sim.failure import Broken

if TYPE_CHECKING:
    from tests.sim.zones import Zones

Known = dict[int, tuple[bytes, bytes]]
LAST_ID = 2**32 - 1


class Walk:
    """A history that somebody reads page by page, with what was known to be in the zone when it began."""

    def __init__(self, reader: Principal, ask: HistoryAsk, known: Known, erased: set[int]) -> None:
        self.reader = reader
        self.ask = ask
        self.is_over = False
        self.given: dict[int, bytes] = {}
        self._known = {id: item for id, item in known.items() if item[0] in ask.topics}
        self._erased = erased
        self._order: list[tuple[int, int]] = []
        self._gaps: list[tuple[int, int, int]] = []

    def take(self, page: HistoryPage) -> None:
        """Take a page in. Raises `Broken`."""
        for gap in page.gaps:
            self._gaps.append((gap.topic, gap.first, gap.last))
        for run in page.runs:
            for message in run.messages:
                self._take_message(run.topic, message.id, message.payload)
        if page.state.tag == "more":
            if not page.runs:
                raise Broken("each page brings something", f"{page}")
            return
        self.is_over = True
        if (page.state.tag == "gap") != bool(self._gaps):
            raise Broken("a gap is explicit", f"the end is {page.state}, gaps were {self._gaps}")
        for id, (topic, _) in self._known.items():
            place = self.ask.topics.index(topic)
            told = any(each == place and first <= id <= last for each, first, last in self._gaps)
            if id not in self.given and not told:
                raise Broken("a gap is explicit", f"message {id} was neither given nor named as gone")

    def _take_message(self, topic: int, id: int, payload: bytes) -> None:
        if id in self.given:
            raise Broken("a history gives each message once", f"message {id}")
        sign = -1 if self.ask.order.tag == "newest_first" else 1
        place = (0 if self.ask.merged else topic, sign * id)
        if self._order and place <= self._order[-1]:
            raise Broken("a history is in order", f"{place} after {self._order[-1]}")
        self._order.append(place)
        self.given[id] = payload
        item = self._known.get(id)
        if item is not None and id not in self._erased and item != (self.ask.topics[topic], payload):
            raise Broken("acknowledged implies readable", f"message {id} is {payload!r}, not {item}")


def check_zone(zones: Zones) -> None:
    """Hold every law of a zone that has come to rest. Raises `Broken`."""
    usage = zones.ask("usage")
    assert isinstance(usage, ZoneUsage)
    found = _read_all(zones)
    _check_posts(zones, usage, found)
    _check_order(zones, found)
    _check_chains(zones, usage)
    _check_marks(zones, usage)
    _check_arrivals(zones, usage, found)
    zones._check_limits(usage)
    if usage.messages.count != len(found):
        raise Broken("accounts equal a full count", f"{usage} and {len(found)} messages")


def _read_all(zones: Zones) -> Known:
    order = HistoryOrder.oldest_first()
    ask = HistoryAsk(zones.keys, HistoryRange.all(), order, False, True, 7, None, None, None)
    known = {} if zones.may_drop else zones._acknowledged()
    walk = Walk(zones.owner, ask, known, zones.erased)
    found: Known = {}
    while not walk.is_over:
        zones.go_on(walk)
    for id, payload in walk.given.items():
        found[id] = (b"", payload)
    for topic in zones.keys:
        for message in zones.ask("get_messages_by_range_for_key", topic, 0, LAST_ID):  # type: ignore[attr-defined]
            if found.get(message.id, (b"", b""))[1] != message.ciphertext:
                raise Broken("all readings agree", f"{message} is not in the history")
            found[message.id] = (topic, message.ciphertext)
    return found


def _check_posts(zones: Zones, usage: ZoneUsage, found: Known) -> None:
    texts: dict[bytes, int] = {}
    for id, (_, text) in found.items():
        if text and texts.setdefault(text, id) != id:
            raise Broken("each call runs once", f"messages {texts[text]} and {id} are the same")
    known = {text: post for post in zones.posts for _, text in post.items}
    for text, id in texts.items():
        post = known.get(text)
        if post is None:
            raise Broken("each call runs once", f"the zone has {text!r} of nobody")
        if post.request.state in ("refused", "rejected"):
            raise Broken("a refused request has no effect", f"message {id} is {text!r}")
    for post in zones.posts:
        ids = [texts.get(text) for _, text in post.items]
        if post.ids is None:
            if post.request.state == "replied" and any(id is not None for id in ids):
                raise Broken("a refused request has no effect", f"{post.items} were not taken, and are {ids}")
            continue
        for id, item in zip(post.ids, post.items, strict=True):
            if id in zones.erased:
                continue
            if id >= usage.first_id and found.get(id) != item:
                raise Broken("acknowledged implies readable", f"message {id} is {found.get(id)}, not {item}")
            if id < usage.first_id and not zones.may_drop:
                raise Broken("acknowledged implies readable", f"message {id} is gone")
    if sorted(found) != list(range(usage.first_id, usage.next_id)):
        raise Broken("ids are dense", f"{sorted(found)} of {usage}")


def _check_order(zones: Zones, found: Known) -> None:
    """Ids are given in the order of blocks."""
    order = zones.world.order_of_requests()
    known = {text: post for post in zones.posts for _, text in post.items}
    places = [order[known[text].request.id] for _, (_, text) in sorted(found.items()) if text]
    if places != sorted(places):
        raise Broken("one total order", f"ids are in another order than that of blocks: {places}")


def _check_chains(zones: Zones, usage: ZoneUsage) -> None:
    """Each message of a topic names its neighbours."""
    for topic in zones.keys:
        messages = zones.ask("get_messages_by_range_for_key", topic, 0, LAST_ID)
        assert isinstance(messages, list)
        for before, after in zip([None, *messages], [*messages, None], strict=True):
            _check_link(topic, before, after)


def _check_link(topic: bytes, before: Message | None, after: Message | None) -> None:
    following = 0 if after is None else after.id
    preceding = 0 if before is None else before.id
    if before is not None and (before.next_msg_id or 0) != following:
        raise Broken("chains are whole", f"{topic!r}: {before} is not followed by {following}")
    if after is not None and (after.prev_msg_id or 0) != preceding:
        raise Broken("chains are whole", f"{topic!r}: {after} does not follow {preceding}")


def _check_marks(zones: Zones, usage: ZoneUsage) -> None:
    """What was acknowledged stays so."""
    page = zones.ask("missing", None, 1_000)
    assert isinstance(page, MissingPage)
    firsts = {missing.member: missing.first for missing in page.members}
    for guest in zones.guests:
        if guest.is_in and firsts.get(guest.principal, 0) < guest.acknowledged:
            raise Broken(
                "acknowledged implies readable",
                f"{guest.principal} has acknowledged up to {guest.acknowledged}: {page}",
            )
        if guest.is_in is False and guest.principal in firsts:
            raise Broken("no message is visible to a non-member", f"{guest.principal} is still waited for")


def _check_arrivals(zones: Zones, usage: ZoneUsage, found: Known) -> None:
    """Who follows a zone hears of each message once and in order, or that some have gone by unheard."""
    if zones.outsider.heard:
        raise Broken("no message is visible to a non-member", f"a stranger heard {zones.outsider.heard}")
    arrivals = zones.arrivals()
    ids = [arrival.message.id for arrival in arrivals]
    lost = sum(gap.next - gap.first_lost for gap in zones.listener.gaps)
    if ids != sorted(set(ids)) or len(ids) + lost != usage.next_id - 1:
        raise Broken("each event is heard once and in order", f"{ids}, {lost} lost, {usage}")
    for arrival in arrivals:
        item = found.get(arrival.message.id)
        if item is not None and item[1] and item != (arrival.topic, arrival.message.payload):
            raise Broken("all readings agree", f"{arrival} was heard, {item} is stored")
