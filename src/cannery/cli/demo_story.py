"""What happens in the demo: three people, what they write to each other, a guestbook, and one that is frozen.

Everything goes through the same commands' code as a person's would, at the IC's prices. A second start finds
it done.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cannery.candid.python import nat
from cannery.cli.app_install import APPS
from cannery.cli.building import build_source
from cannery.cli.demo_store import fill_store, store_hints
from cannery.cli.deploy import install_named
from cannery.cli.mailbox import INDEX_NAME, register_user, send_text
from cannery.cli.management import Management
from cannery.cli.node_run import RunningNode
from cannery.cli.output import Progress
from cannery.cli.session import Session
from cannery.cli.typed_calls import TypedCanister
from cannery.client.actor import open_actor
from cannery.client.agent import Agent
from cannery.client.identity_store import IdentityStore
from cannery.errors import CanneryError
from cannery.fleet.funding_types import FundingResult
from cannery.fleet.top_up import Refill, Threshold, TopUpRule
from cannery.node.config import CONFIG_FILE
from cannery.node.source_files import read_source
from cannery.protocol.principal import Principal
from cannery.replica.management.types import CanisterSettings

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
FROZEN_NAME = "frozen_book"
DAY_S = 86_400
BATTERY = 10**15
BORN_WITH = 10**12
LOW, FULL = 4 * 10**11, 5 * 10**11
PRICES = '[prices]\nschedule = "ic"\n'


def people_home(data: Path) -> Path:
    """Say where the identities of the demo's people lie."""
    return data / "people"


def set_prices(data: Path) -> None:
    """Have a new demo charge the IC's prices; a configuration that is there stays."""
    path = data / CONFIG_FILE
    if not data.exists():
        data.mkdir(parents=True)
        path.write_text(PRICES)


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
    yield from store_hints()
    yield "what it costs (the prices are those of the Internet Computer):"
    yield "  cannery fleet status"
    yield f"  cannery canister call {FROZEN_NAME} sign '(\"let me\")'"
    yield f"  cannery canister top-up {FROZEN_NAME} {BORN_WITH}   # and sign once more"


def _play(node: RunningNode, store: IdentityStore, operator: Agent) -> Iterator[str]:
    _fund(operator)
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
    yield from fill_store(node, operator, store.load(PEOPLE[0]), BATTERY, BORN_WITH)
    _freeze(operator, install_named(Session(operator, line), built, FROZEN_NAME, b"DIDL\x00\x00").canister_id)
    yield f"{'frozen':<12}{FROZEN_NAME}: read, but not written, until it gets cycles"


def _fund(operator: Agent) -> None:
    """Give the index of users a battery, and say what users are born with and when they are topped up."""
    index_id = operator.names()[INDEX_NAME]
    Management(operator).top_up(index_id, BATTERY)
    index = TypedCanister(operator, index_id)
    index.call_for_effect("fleet_birth_set", (APPS["users"].kind, BORN_WITH), (str, nat))
    rule = TopUpRule(Threshold.cycles(LOW), Refill.to_balance(FULL))
    hints = (str, TopUpRule | None)
    set_ = index.call("fleet_rule_set", FundingResult, (APPS["users"].kind, rule), hints)
    if set_.tag == "err":
        raise CanneryError(f"the demo's users get no cycles: {set_.err}")


def _freeze(operator: Agent, book: Principal) -> None:
    """Have a guestbook keep back a quarter more than it has, for the storage of a very long time."""
    open_actor(operator, book).sign("What is written stays.")
    management = Management(operator)
    status = management.status(book)
    days = status.cycles * 5 // 4 // max(1, status.idle_cycles_burned_per_day)
    management.update_settings(book, CanisterSettings(freezing_threshold=days * DAY_S))


def _meet(node: RunningNode, store: IdentityStore, name: str) -> Session:
    identity = store.load(name) if name in store.names() else store.create(name)
    return Session(Agent(node.url, identity, root_key=node.root_key), Progress(""))
