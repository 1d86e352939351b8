"""`cannery store`: notes and values under keys, in buckets that appear while one writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cannery.cli.options import DEFAULT_URL, IdentityOption, JsonOption, NodeOption
from cannery.cli.output import emit, note

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="1 to 512 bytes.")]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="STORE",
        envvar="CANNERY_STORE",
        help="The store's index: a canister id, or a name that the node knows.",
    ),
]
DEFAULT_STORE = "store_index"


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the tree."""
    group = typer.Typer(no_args_is_help=True, help="Notes and values under keys, in many buckets.")
    group.command(
        short_help="Store a value.",
        epilog="Examples: cannery store put greeting 'hello' --tag demo; "
        "cannery store put photo --file photo.jpg --private; cannery store put --note 'buy milk' --tag home",
    )(put)
    group.command(short_help="Read a value.", epilog="Example: cannery store get photo --out photo.jpg")(get)
    group.command(
        short_help="List entries, newest first.", epilog="Example: cannery store find home urgent --limit 20"
    )(find)
    group.command("rm", short_help="Delete an entry.", epilog="Example: cannery store rm greeting")(remove)
    group.command(short_help="Show how much is stored where.", epilog="Example: cannery store stats")(stats)
    app.add_typer(group, name="store")


def put(
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="1 to 512 bytes; none with --note.")
    ] = None,
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="A text; '-' reads standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="PATH", help="Store this file's bytes.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--note", metavar="TEXT", help="Store a text under a new key.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="May be repeated.")] = None,
    private: Annotated[
        bool, typer.Option("--private", help="For you, --reader and moderators alone.")
    ] = False,
    reader: Annotated[
        list[str] | None,
        typer.Option("--reader", metavar="WHO", help="Who may read it too; may be repeated."),
    ] = None,
    expect: Annotated[
        int | None,
        typer.Option("--expect", metavar="N", min=0, help="Only if it has revision N now; 0: is not there."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Store a value under a key that is new or yours; it is safe once this command returns."""
    from cannery.cli.problem import Problem
    from cannery.cli.session import read_principal, user_identity
    from cannery.cli.store_door import note_key, read_value, require_text, with_store

    if text is not None:
        if key is not None or value is not None:
            raise Problem("a --note has no KEY and no VALUE: it gets a key of its own")
        key, value = note_key(), text
    if key is None:
        raise Problem("say under which KEY, or --note TEXT")
    require_text(key, *(tag or ()))
    content = read_value(value, file)
    readers = [read_principal(who) for who in reader or ()]
    chosen = key
    stored = with_store(
        node,
        user_identity(identity),
        store,
        "putting",
        lambda door: door.put(
            chosen, content, tags=tag or (), private=private, readers=readers, expect=expect
        ),
    )
    did = "stored" if stored.is_new else "updated"
    emit(
        {"key": key, "bucket": stored.bucket, "revision": stored.revision, "is_new": stored.is_new},
        as_json,
        [f"{did}: {key}, revision {stored.revision}, in {stored.bucket}"],
    )


def get(
    key: KeyArgument,
    out: Annotated[Path | None, typer.Option("--out", metavar="PATH", help="Write it to this file.")] = None,
    store: StoreOption = DEFAULT_STORE,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Read a value that you may see, to standard output or a file; --json tells all about it."""
    from cannery.cli.problem import Problem
    from cannery.cli.session import caller_identity
    from cannery.cli.store_door import EXIT_FAILED, require_text, with_store, write_item

    require_text(key)
    item = with_store(node, caller_identity(identity), store, "getting", lambda door: door.get(key))
    if item is None:
        raise Problem(f"nothing that you may read lies under {key!r}", EXIT_FAILED)
    if as_json:
        emit(item if out is None else item.entry, as_json, [])
    if out is not None or not as_json:
        write_item(item, out)
    if out is not None and not as_json:
        note(f"{item.entry.size} bytes written to {out}")


def find(
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG]...", help="All of these.")] = None,
    owner: Annotated[str | None, typer.Option("--owner", metavar="WHO", help="Only of this owner.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 50,
    store: StoreOption = DEFAULT_STORE,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """List the entries that you may see, newest first, out of all buckets; where one does not answer, those
    of the others, and exit code 1.
    """
    from cannery.cli.session import caller_identity, read_principal
    from cannery.cli.store_door import entry_lines, require_text, with_store
    from cannery.client.store import StoreIncomplete

    require_text(*(tags or ()))
    of = None if owner is None else read_principal(owner)
    try:
        found = with_store(
            node,
            caller_identity(identity),
            store,
            "finding",
            lambda door: door.find(*(tags or ()), owner=of, limit=limit),
        )
    except StoreIncomplete as incomplete:
        emit(incomplete.entries, as_json, entry_lines(incomplete.entries))
        raise
    emit(found, as_json, entry_lines(found))


def remove(
    key: KeyArgument,
    store: StoreOption = DEFAULT_STORE,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Delete an entry of yours, or any one as a moderator; its room is free at once."""
    from cannery.cli.problem import Problem
    from cannery.cli.session import user_identity
    from cannery.cli.store_door import EXIT_FAILED, require_text, with_store

    require_text(key)
    was_there = with_store(node, user_identity(identity), store, "deleting", lambda door: door.delete(key))
    if not was_there:
        raise Problem(f"nothing that you may read lies under {key!r}", EXIT_FAILED)
    emit({"key": key}, as_json, [f"deleted: {key}"])


def stats(
    store: StoreOption = DEFAULT_STORE,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show how much is stored, and in which buckets."""
    from cannery.cli.session import caller_identity
    from cannery.cli.store_door import stats_lines, with_store

    found = with_store(node, caller_identity(identity), store, "asking", lambda door: door.stats())
    emit(found, as_json, stats_lines(found))
