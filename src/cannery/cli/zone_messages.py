"""`cannery zone post`, `tail` and `history`: a zone's messages from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli.options import DEFAULT_URL, IdentityOption, JsonOption, NodeOption
from cannery.cli.output import emit, note
from cannery.cli.zone_options import TopicsOption, ZoneArgument

if TYPE_CHECKING:
    from cannery.cli.output import Progress
    from cannery.client.zone import Zone
    from cannery.client.zone_history import Fetch
    from cannery.client.zone_values import Message

HISTORY_COUNT = 100
MESSAGE_SIZE_BYTES_MAX = 2_000_000
AcknowledgeOption = Annotated[
    bool, typer.Option("--acknowledge", help="Tell the zone that you have everything up to the last one.")
]


def add_to(group: typer.Typer) -> None:
    """Hang these commands into `cannery zone`."""
    group.command(
        epilog="Examples: cannery zone post team lunch 'at noon?'; date | cannery zone post team log -"
    )(post)
    group.command(epilog="Examples: cannery zone tail team; cannery zone tail team --after 0 --topic lunch")(
        tail
    )
    group.command(
        epilog="Examples: cannery zone history team; cannery zone history team --topic lunch --since 2h"
    )(history)


def post(
    zone: ZoneArgument,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A name, or a key in hex (82 digits).")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What you write; '-' reads standard input.")],
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Post a message; it is safe once this command returns. Prints its id."""
    from cannery.cli.zone_options import read_topic
    from cannery.cli.zone_session import run_zone

    body = _read_body(text)

    async def act(zone: Zone, line: Progress) -> int:  # noqa: ARG001
        return await zone.post(read_topic(topic), body)

    id = run_zone(node, identity, zone, "posting", act)
    emit({"id": id}, as_json, [str(id)])


def _read_body(text: str) -> bytes:
    import sys

    from cannery.cli.problem import Problem

    if text == "-":
        stream = getattr(sys.stdin, "buffer", None)
        body = sys.stdin.read().encode() if stream is None else stream.read(MESSAGE_SIZE_BYTES_MAX + 2)
        body = body.removesuffix(b"\n")
    else:
        body = text.encode("utf-8", "surrogateescape")
    if not body:
        raise Problem("an empty message is not posted")
    if len(body) > MESSAGE_SIZE_BYTES_MAX:
        raise Problem(
            f"a message has at most {MESSAGE_SIZE_BYTES_MAX} bytes; put a file in the zone: cannery zone put"
        )
    return body


def tail(
    zone: ZoneArgument,
    topic: TopicsOption = None,
    after: Annotated[
        int | None,
        typer.Option(
            "--after", metavar="ID", min=0, max=2**63 - 1, help="Begin after this id (0: with the oldest)."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="End after N messages.")
    ] = None,
    acknowledge: AcknowledgeOption = False,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Print new messages as they come, each once, until Ctrl-C; --json: one document a line."""
    from contextlib import aclosing

    from cannery.cli.zone_lines import print_now
    from cannery.cli.zone_options import read_topics
    from cannery.cli.zone_session import run_zone
    from cannery.client.zone_values import Message

    _only_all(topic, acknowledge)

    async def act(zone: Zone, line: Progress) -> None:
        left = limit
        line.stop()
        async with aclosing(zone.live(read_topics(topic), after=after)) as items:
            async for item in items:
                print_now(item, as_json)
                if not isinstance(item, Message):
                    continue
                if acknowledge:
                    await zone.acknowledge(item.id)
                left = None if left is None else left - 1
                if left == 0:
                    return

    run_zone(node, identity, zone, "waiting for messages", act)


def history(
    zone: ZoneArgument,
    topic: TopicsOption = None,
    after: Annotated[
        int | None, typer.Option("--after", metavar="ID", min=0, max=2**63 - 1, help="Begin after this id.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="With topics: 90s, 10m, 2h, 3d ago, or a UTC time."),
    ] = None,
    newest: Annotated[bool, typer.Option("--newest", help="With topics: the newest first.")] = False,
    per_topic: Annotated[
        int | None,
        typer.Option("--per-topic", metavar="N", min=1, max=2**32 - 1, help="At most N of each topic."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", min=1, help="At most N; without it the last 100, or all with topics."
        ),
    ] = None,
    acknowledge: AcknowledgeOption = False,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Print messages that the zone keeps; at the end those that are gone are named."""
    import time

    from cannery.cli.log_lines import read_since
    from cannery.cli.problem import Problem
    from cannery.cli.zone_options import read_topics
    from cannery.cli.zone_session import run_zone

    _only_all(topic, acknowledge)
    if not topic and (since is not None or newest or per_topic is not None):
        raise Problem("--since, --newest and --per-topic go with --topic: every topic is read by id")
    if since is not None and after is not None:
        raise Problem("a range is of ids or of times: leave out --after or --since")
    topics = read_topics(topic)
    times_ns = None if since is None else (read_since(since, time.time_ns()), 2**64 - 1)

    async def act(zone: Zone, line: Progress) -> tuple[Fetch, list[Message]]:
        first, most = (after or 0) + 1, limit
        if topics is None and after is None:
            first, most = max(1, (await zone.usage()).next_id - (limit or HISTORY_COUNT)), None
        fetch = zone.history(
            topics, first_id=first, times_ns=times_ns, newest_first=newest, per_topic=per_topic, limit=most
        )
        found: list[Message] = []
        async for message in fetch:
            found.append(message)
            line.say(f"{len(found)} messages")
        if acknowledge and found:
            await zone.acknowledge(found[-1].id)
        return fetch, found

    _show(*run_zone(node, identity, zone, "reading the history", act), as_json)


def _show(fetch: Fetch, found: list[Message], as_json: bool) -> None:
    from cannery.cli.zone_lines import message_fields, message_line

    shown = {
        "messages": [message_fields(message) for message in found],
        "state": fetch.state.value,
        "gaps": [message_fields(gap)["missing"] for gap in fetch.gaps],
    }
    emit(shown, as_json, [message_line(item) for item in found])
    if not as_json:
        for gap in fetch.gaps:
            note(message_line(gap))


def _only_all(topic: list[str] | None, acknowledge: bool) -> None:
    from cannery.cli.problem import Problem

    if topic and acknowledge:
        raise Problem("an acknowledgement covers every topic up to an id: leave out --topic or --acknowledge")
