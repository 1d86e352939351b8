"""`cannery start`: the wiring of a node and the apps that come with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cannery.cli.options import DEFAULT_DATA, JsonOption

DataOption = Annotated[
    Path, typer.Option("--data", metavar="DIR", envvar="CANNERY_DATA", help="Where everything is kept.")
]
PortOption = Annotated[
    int | None,
    typer.Option(
        "--port", metavar="N", min=0, max=65535, help="Port; 4943 unless named, 0 takes a free one."
    ),
]
HostOption = Annotated[
    str | None,
    typer.Option("--host", metavar="H", help="Address to listen on; 127.0.0.1 and ::1 unless named."),
]


SubnetsOption = Annotated[
    int | None,
    typer.Option(
        "--subnets",
        metavar="N",
        min=1,
        max=64,
        help="State machines with a process and a store each; as many as there are, at first 1.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Hang this command into the tree."""
    app.command(
        short_help="Start a node.",
        epilog="Examples: cannery start; cannery start --data /srv/cannery --port 5000",
    )(start)


def start(
    data: DataOption = Path(DEFAULT_DATA),
    port: PortOption = None,
    host: HostOption = None,
    subnets: SubnetsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a node; it runs until Ctrl-C or SIGTERM."""
    from cannery.cli.node_run import run_node

    run_node(data, host, port, as_json, subnets=subnets)
