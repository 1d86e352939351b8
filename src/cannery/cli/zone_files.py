"""`cannery zone put`, `get` and `ls`: a zone's files and attachments from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli.options import DEFAULT_URL, IdentityOption, JsonOption, NodeOption
from cannery.cli.output import emit, format_size
from cannery.cli.zone_options import ZoneArgument

if TYPE_CHECKING:
    from cannery.cli.output import Progress
    from cannery.client.zone import Zone
    from cannery.client.zone_values import FileInfo

AttachmentOption = Annotated[
    bool, typer.Option("--attachment", help="An attachment, which goes by its hash instead of a path.")
]


def add_to(group: typer.Typer) -> None:
    """Hang these commands into `cannery zone`."""
    group.command(
        epilog="Examples: cannery zone put team plan.pdf; cannery zone put team plan.pdf /2026/plan.pdf"
    )(put)
    group.command(
        epilog="Examples: cannery zone get team /2026/plan.pdf; cannery zone get team /2026/plan.pdf my.pdf"
    )(get)
    group.command(epilog="Example: cannery zone ls team /2026")(ls)


def put(
    zone: ZoneArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file on this machine.")],
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="Its path in the zone; without it the file's name.")
    ] = None,
    attachment: AttachmentOption = False,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Put a file into the zone, in the place of one that is there; or an attachment: its hash is printed."""
    from cannery.cli.zone_session import run_zone

    data = _content_of(file)
    wanted = path or file.name

    async def act(zone: Zone, line: Progress) -> FileInfo | bytes:
        if attachment:
            return await zone.files.put_attachment(data, on_progress=line.bytes_done)
        return await zone.files.put(wanted, data, on_progress=line.bytes_done)

    done = run_zone(node, identity, zone, f"putting {file.name}", act)
    if isinstance(done, bytes):
        emit({"attachment": done, "size": len(data)}, as_json, [done.hex()])
    else:
        emit(done, as_json, [f"{done.path}  {format_size(len(data))}"])


def _content_of(file: Path) -> bytes:
    from cannery.cli.problem import Problem
    from cannery.limits import CONTENT_SIZE_BYTES_MAX

    if not file.is_file():
        raise Problem(f"{file}: there is no such file")
    size = file.stat().st_size
    if not 0 < size <= CONTENT_SIZE_BYTES_MAX:
        raise Problem(f"{file} has {size} bytes; a zone keeps files of 1 to {CONTENT_SIZE_BYTES_MAX} bytes")
    return file.read_bytes()


def get(
    zone: ZoneArgument,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A path in the zone; with --attachment a hash (64 digits).")
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Where to write it; without it the path's last name."),
    ] = None,
    attachment: AttachmentOption = False,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Get a file out of the zone; it is written when all of it has come and is what its hash says."""
    from cannery.cli.problem import Problem
    from cannery.cli.zone_session import run_zone

    target = file or Path(path.rstrip("/").rpartition("/")[2])
    if not target.name or target.is_dir():
        raise Problem(f"{target} is a directory: name a file to write")
    digest = _read_digest(path) if attachment else b""

    async def act(zone: Zone, line: Progress) -> None:
        if attachment:
            await zone.files.get_attachment(digest, target, on_progress=line.bytes_done)
        else:
            await zone.files.get(path, target, on_progress=line.bytes_done)

    run_zone(node, identity, zone, f"getting {target.name}", act)
    size = target.stat().st_size
    emit({"file": str(target), "size": size}, as_json, [f"{target}  {format_size(size)}"])


def _read_digest(text: str) -> bytes:
    from cannery.cli.problem import Problem

    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise Problem(f"{text[:80]!r} is no hash: an attachment's has 64 hex digits")
    return digest


def ls(
    zone: ZoneArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A directory; the root without it.")] = "/",
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """List a directory of the zone."""
    from cannery.cli.zone_lines import file_lines
    from cannery.cli.zone_session import run_zone

    async def act(zone: Zone, line: Progress) -> list[FileInfo]:  # noqa: ARG001
        return await zone.files.entries(path)

    found = run_zone(node, identity, zone, "listing", act)
    emit(found, as_json, file_lines(found))
