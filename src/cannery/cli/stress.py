"""`cannery stress`: load a node as many clients would, over real connections, and say how it did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from cannery.cli.options import DEFAULT_URL, JsonOption, NodeOption, OperatorOption
from cannery.cli.output import note

if TYPE_CHECKING:
    from cannery.cli.session import Session
    from cannery.cli.stress_report import StressReport
    from cannery.cli.stress_requests import Signer
    from cannery.cli.stress_town import Sizes, Town
    from cannery.protocol.principal import Principal

EXIT_FAILED = 1

stress = typer.Typer(
    name="stress",
    short_help="Load a node as many clients would.",
    help="Load a node as many clients would, over real connections. Zones are made for the run and taken "
    "away afterwards. Requests are signed beforehand. Do not run it against a node that people use.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ClientsOption: TypeAlias = Annotated[
    int, typer.Option("--clients", metavar="N", min=1, max=10_000, help="Clients, each with a connection.")
]
ChatsOption: TypeAlias = Annotated[
    int, typer.Option("--chats", metavar="N", min=1, max=1_000, help="Chats that each client has.")
]
SizeOption: TypeAlias = Annotated[
    int, typer.Option("--size", metavar="BYTES", min=8, max=1_000_000, help="Size of a message.")
]
PoolOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--pool",
        metavar="N",
        min=1,
        help="Chats in all, of which each client has some by chance; ten times --chats unless given.",
    ),
]
LayoutOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--layout",
        metavar="LAYOUT",
        help="'topics': all chats are topics of one zone, asked for together; 'requests': the same, one "
        "request each; 'zones': each chat is a zone, one request each.",
    ),
]
SpreadOption: TypeAlias = Annotated[
    float,
    typer.Option(
        "--spread", metavar="SECONDS", min=0, max=200, help="Clients come within this time; 0: all at once."
    ),
]
TimeoutOption: TypeAlias = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long a client waits for an answer."),
]


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the tree."""
    app.add_typer(stress)


@stress.command(epilog="Example: cannery stress mailserver --clients 500 --chats 60 --messages 100")
def mailserver(
    clients: ClientsOption = 500,
    chats: ChatsOption = 60,
    messages: Annotated[
        int, typer.Option("--messages", metavar="N", min=1, max=20_000, help="Messages in each chat.")
    ] = 100,
    size: SizeOption = 236,
    pool: PoolOption = None,
    layout: LayoutOption = "topics",
    spread: SpreadOption = 0.0,
    timeout: TimeoutOption = 10.0,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> int:
    """Let each client catch up on all its chats, as after a time away."""
    from cannery.cli.stress_runs import Pace, catch_up, check_run
    from cannery.cli.stress_town import Sizes

    sizes = Sizes(clients, chats, messages, size, pool_of(pool, chats), layout == "zones")
    check_run(layout, sizes)
    with _town(node, identity, sizes) as (_, town, signer):
        report = catch_up(signer, town, sizes, layout, Pace(spread, timeout))
    return _tell(report, as_json)


@stress.command(epilog="Example: cannery stress posting --clients 100 --messages 50 --batch 5")
def posting(
    clients: ClientsOption = 500,
    chats: ChatsOption = 60,
    messages: Annotated[
        int, typer.Option("--messages", metavar="N", min=1, help="Messages that each client posts.")
    ] = 20,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, max=1_000, help="Messages of one call.")
    ] = 1,
    size: SizeOption = 236,
    pool: PoolOption = None,
    zones: Annotated[bool, typer.Option("--zones", help="Each chat is a zone of its own.")] = False,
    spread: SpreadOption = 0.0,
    timeout: TimeoutOption = 10.0,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> int:
    """Let each client post to its chats in turn, one call after another; none may be lost."""
    from cannery.cli.stress_runs import Pace, post
    from cannery.cli.stress_town import Sizes, count_stored

    sizes = Sizes(clients, chats, 0, size, pool_of(pool, chats), zones)
    with _town(node, identity, sizes) as (session, town, signer):
        report = post(signer, town, sizes, messages, batch, Pace(spread, timeout))
        stored = count_stored(session, town)
    if stored < report.messages:
        note(f"the zones hold {stored} messages, of {report.messages} that were acknowledged")
        _tell(report, as_json)
        return EXIT_FAILED
    return _tell(report, as_json)


def pool_of(pool: int | None, chats: int) -> int:
    """Give the number of chats in all."""
    from cannery.cli.problem import Problem

    if pool is not None and pool < chats:
        raise Problem(f"--pool {pool}: there are at least the {chats} chats that each client has")
    return pool or 10 * chats


@contextmanager
def _town(node: str, identity: str | None, sizes: Sizes) -> Iterator[tuple[Session, Town, Signer]]:
    """Set everything up, and take it away whatever happens."""
    from cannery.cli.session import open_session, operator_identity
    from cannery.cli.stress_requests import Signer
    from cannery.cli.stress_town import build_town, remove_town

    operator = operator_identity(identity)
    signer = Signer(node)
    with open_session(node, operator, "stress") as session:
        made: list[Principal] = []
        try:
            town = build_town(session, operator, signer, sizes, made)
            session.line.say("clients are at work")
            yield session, town, signer
        finally:
            remove_town(session, made)


def _tell(report: StressReport, as_json: bool) -> int:
    from cannery.cli.output import emit
    from cannery.cli.stress_report import report_json, report_lines

    emit(report_json(report), as_json, report_lines(report))
    is_whole = report.succeeded == report.clients and set(report.outcomes) <= {"complete"}
    return 0 if is_whole else EXIT_FAILED
