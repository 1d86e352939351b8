"""Options that many commands share, declared once."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

DEFAULT_URL = "http://127.0.0.1:4943"
DEFAULT_DATA = "./cannery-data"
DEFAULT_INDEX = "user_index"

NodeOption: TypeAlias = Annotated[
    str, typer.Option("--node", metavar="URL", envvar="CANNERY_URL", help="The node to talk to.")
]
IdentityOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--identity",
        metavar="NAME",
        envvar="CANNERY_IDENTITY",
        help="Who you are: a name of 'cannery identity list', or 'anonymous'.",
    ),
]
OperatorOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--identity",
        metavar="NAME",
        envvar="CANNERY_IDENTITY",
        help="Who you are; without it the operator of ./cannery-data (or of CANNERY_DATA).",
    ),
]
IndexOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--index",
        metavar="INDEX",
        envvar="CANNERY_INDEX",
        help="The fleet's index: a canister id, or a name that the node knows.",
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
CandidOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--arg", metavar="CANDID", help="""Install argument, as in '("hello", 3 : nat64)'."""),
]
