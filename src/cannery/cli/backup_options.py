"""Options that the commands about backups share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

PlaceArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="PLACE", help="A folder, or a URL such as s3://bucket/path.")
]
BackupOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--backup", metavar="N", min=1, help="Number of a backup; the newest unless named."),
]
