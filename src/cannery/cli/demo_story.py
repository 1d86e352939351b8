"""What happens in the demo: three people, what they write to each other, and a guestbook.

Everything goes through the same commands' code as a person's would. A second start finds it done.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cannery.cli.building import build_source
from cannery.cli.deploy import install_named
from cannery.cli.mailbox import register_user, send_text
from cannery.cli.node_run import RunningNode
from cannery.cli.output import Progress
from cannery.cli.session import Session
from cannery.client.actor import open_actor
from cannery.client.agent import Agent
from cannery.client.identity_store import IdentityStore
from cannery.node.source_files import read_source

PEOPLE = ("ann", "bob", "carol")
LETTERS = (
    ("ann", "bob", "Are you there? The node was down all night and nothing got lost."),
    ("bob", "ann", "Just back. Your message was waiting for me."),
    ("ann", "carol", "Bob is back. Dinner at eight?"),
    ("carol", "ann", "Eight is fine."),
    ("carol", "bob", "See you at eight. Bring the book."),
)
ENTRIES = ("First!", "A small durable server, all mine.")
BOOK_NAME = "guestbook"


def people_home(data: Path) -> Path:
    """Say where the identities of the demo's people lie."""
    return data / "people"


def fill_demo(node: RunningNode) -> Iterator[str]:
    """Fill a node, once; yield what to tell the person who started it."""
    home = people_home(node.data)
    store = IdentityStore(home)
    with Agent(node.url, node.operator, root_key=node.root_key) as operator:
        if BOOK_NAME not in operator.names():
            yield from _play(node, store, operator)
    yield "try, in another terminal:"
    yield f"  export CANNERY_HOME={home} CANNERY_URL={node.url} CANNERY_DATA={node.data}"
    yield "  cannery inbox --identity bob"
    yield "  cannery send carol 'hello' --identity ann"
    yield f"  cannery canister call {BOOK_NAME} sign '(\"me too\")' --identity carol"
    yield f"  cannery canister call {BOOK_NAME} latest '(10)' --query"


def _play(node: RunningNode, store: IdentityStore, operator: Agent) -> Iterator[str]:
    sessions = {name: _meet(node, store, name) for name in PEOPLE}
    for name, session in sessions.items():
        register_user(session, name)
    for sender, receiver, text in LETTERS:
        send_text(sessions[sender], receiver, text)
    yield f"{'people':<12}{', '.join(PEOPLE)}, {len(LETTERS)} messages between them"
    line = Progress("")
    built = build_source(read_source(str(Path(__file__).with_name("demo_book.py"))))
    book = install_named(Session(operator, line), built, BOOK_NAME, b"DIDL\x00\x00").canister_id
    for session, text in zip(sessions.values(), ENTRIES, strict=False):
        open_actor(session.agent, book).sign(text)
    for session in sessions.values():
        session.agent.close()


def _meet(node: RunningNode, store: IdentityStore, name: str) -> Session:
    identity = store.load(name) if name in store.names() else store.create(name)
    return Session(Agent(node.url, identity, root_key=node.root_key), Progress(""))
