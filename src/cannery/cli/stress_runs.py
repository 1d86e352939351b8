"""The two stress runs: clients that catch up on their chats, and clients that post."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from cannery.cli.problem import Problem
from cannery.cli.stress_load import Load, Visit, run_load
from cannery.cli.stress_report import StressReport, report_of
from cannery.cli.stress_requests import Signer, check_history, encode_posts, history_of, topics_in_a_page
from cannery.cli.stress_town import Sizes, Town

# One client in so many keeps its first answer, which is decoded afterwards.
CHECK_EVERY: Final = 25
LAYOUTS: Final = ("topics", "requests", "zones")


@dataclass(frozen=True, slots=True)
class Pace:
    """When clients come, and how long one waits for an answer."""

    spread_s: float
    timeout_s: float
    seed: int = 0


def check_run(layout: str, sizes: Sizes) -> None:
    """Refuse a layout that is none, and chats that no page holds."""
    if layout not in LAYOUTS:
        raise Problem(f"--layout {layout}: say one of {', '.join(LAYOUTS)}")
    if not topics_in_a_page(sizes.messages, sizes.message_size_bytes):
        raise Problem(
            f"{sizes.messages} messages of {sizes.message_size_bytes} bytes are more than a page holds:"
            " make chats smaller"
        )


def catch_up(signer: Signer, town: Town, sizes: Sizes, layout: str, pace: Pace) -> StressReport:
    """Let each client fetch all messages of all its chats."""
    topics = topics_in_a_page(sizes.messages, sizes.message_size_bytes)
    # In one zone a request takes as many topics as fit a page; with a zone for each chat, it takes one.
    together = topics if layout == "topics" else 1
    visits = []
    for number, (client, chats) in enumerate(zip(town.clients, town.chats_of, strict=True)):
        groups = [chats[at : at + together] for at in range(0, len(chats), together)]
        requests = [
            signer.sign("query", group[0].zone, "history", history_of([chat.key for chat in group]), client)
            for group in groups
        ]
        visits.append(Visit(requests, keeps=number % CHECK_EVERY == 0))
    load = _run(signer, visits, pace)
    per_visit = sizes.chats * sizes.messages
    requests_of = len(visits[0].requests)
    what = {
        "topics": f"catch-up on {sizes.chats} topics of one zone in {requests_of} request(s)",
        "requests": f"catch-up on {sizes.chats} topics of one zone, one request each, one connection",
        "zones": f"catch-up on {sizes.chats} zones, one request each, one connection",
    }[layout]
    return report_of(what, load, per_visit / requests_of, _checked(load, sizes, min(together, sizes.chats)))


def _checked(load: Load, sizes: Sizes, topics: int) -> dict[str, int]:
    """Decode the answers that were kept: an answer is whole, or the word says what it is instead."""
    found: Counter[str] = Counter()
    for visit in load.visits:
        if visit.kept is not None:
            count, state = check_history(visit.kept)
            is_short = state == "complete" and count != topics * sizes.messages
            found["incomplete" if is_short else state] += 1
    return dict(found)


def post(signer: Signer, town: Town, sizes: Sizes, messages: int, batch: int, pace: Pace) -> StressReport:
    """Let each client post messages to its chats in turn, `batch` at a time, one call after another."""
    visits = []
    for number, (client, chats) in enumerate(zip(town.clients, town.chats_of, strict=True)):
        requests = []
        for place, begin in enumerate(range(0, messages, batch)):
            chat, end = chats[place % len(chats)], min(begin + batch, messages)
            bodies = [_body(number, each, sizes.message_size_bytes) for each in range(begin, end)]
            arg = encode_posts(([(chat.key, body) for body in bodies],))
            requests.append(signer.sign("call", chat.zone, "add_messages", arg, client))
        visits.append(Visit(requests))
    load = _run(signer, visits, pace)
    what = f"posting {messages} messages a client, {batch} at a time"
    return report_of(what, load, messages / len(visits[0].requests), {})


def _run(signer: Signer, visits: list[Visit], pace: Pace) -> Load:
    return run_load(signer.address, visits, spread_s=pace.spread_s, timeout_s=pace.timeout_s, seed=pace.seed)


def _body(client: int, number: int, size_bytes: int) -> bytes:
    """Make a message that nobody else posts."""
    return (client.to_bytes(4, "big") + number.to_bytes(4, "big")).ljust(size_bytes, b"\xa5")[:size_bytes]
