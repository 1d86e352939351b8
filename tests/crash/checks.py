"""What clients can see of a node that was killed again and again, compared with what they were told."""

from __future__ import annotations

from cannery.apps.users.types import InboxPage
from cannery.apps.users.user import User
from cannery.client import AsyncAgent
from cannery.protocol.principal import Principal
from tests.crash.writer import Writer
from tests.sim.canisters import Books, Peer
from tests.sim.failure import Broken
from tests.sim.methods import shape
from tests.sim.peers import TOKENS


async def check_all(operator: AsyncAgent, writers: list[Writer], peers: list[Principal]) -> None:
    """Hold every law that clients can see. Raises `Broken`."""
    books = {peer: await read_books(operator, peer) for peer in peers}
    _check_journals(writers, books)
    _check_payments(writers, books)
    for writer in writers:
        _check_mailbox(writers, writer, await read_mailbox(writer))
        await writer.probe(writers[writer.number - 1])


async def read_books(operator: AsyncAgent, peer: Principal) -> Books:
    """Read a peer's books as its controller."""
    books = shape(Peer, "books").decode_results(
        await operator.query(peer, "books", shape(Peer, "books").encode_args(()))
    )
    assert isinstance(books, Books)
    return books


async def read_mailbox(writer: Writer) -> list[tuple[Principal, str]]:
    """Read a whole mailbox, oldest first: senders and texts."""
    method = shape(User, "inbox")
    found: list[tuple[Principal, str]] = []
    cursor: int | None = 0
    while cursor is not None:
        page = method.decode_results(
            await writer.agent.query(writer.mailbox, "inbox", method.encode_args((cursor, 500)))
        )
        assert isinstance(page, InboxPage)
        found += [(message.sender, message.body.text) for message in page.messages]
        cursor = page.next
    return found


def is_delivered(writers: list[Writer], mailboxes: dict[str, list[tuple[Principal, str]]]) -> bool:
    """Say whether every safe letter has arrived."""
    texts = {name: {text for _, text in mail} for name, mail in mailboxes.items()}
    return all(
        letter.text in texts[letter.to] for writer in writers for letter in writer.letters if letter.is_safe
    )


def _check_journals(writers: list[Writer], books: dict[Principal, Books]) -> None:
    for peer, book in books.items():
        if len(set(book.journal)) != len(book.journal):
            raise Broken("each call runs once", f"{peer} has an entry twice")
    for writer in writers:
        bumps = [call for call in writer.calls if call.name == "bump"]
        places: list[int] = []
        for call in bumps:
            journal = books[call.canister].journal
            if call.state == "replied":
                assert isinstance(call.value, int)
                if journal[call.value : call.value + 1] != [call.tag]:
                    raise Broken("acknowledged implies readable", f"{call} is not in the journal")
            elif call.state == "rejected" and call.tag in journal:
                raise Broken("a refused request has no effect", f"{call} is in the journal")
            if call.tag in journal:
                places.append(journal.index(call.tag))
        if places != sorted(places):
            raise Broken("one total order", f"calls of {writer.name} ran in another order")
    known = {call.tag for writer in writers for call in writer.calls if call.name == "bump"}
    strange = [tag for book in books.values() for tag in book.journal if tag not in known]
    if strange:
        raise Broken("each call runs once", f"entries of nobody: {strange}")


def _check_payments(writers: list[Writer], books: dict[Principal, Books]) -> None:
    came: dict[int, int] = {}
    for book in books.values():
        for tag, number in book.received:
            came[tag] = came.get(tag, 0) + number
    ends = {tag: end for book in books.values() for tag, end in book.outgoing}
    for writer in writers:
        for call in writer.calls:
            if call.name != "pay":
                continue
            end, number = ends.get(call.tag), came.pop(call.tag, 0)
            if number != (1 if end == "paid" else 0) or end == "open":
                raise Broken("exactly once between canisters", f"{call} is {end} and came {number} times")
            if call.state == "replied" and call.value != "poor" and call.value != end:
                raise Broken("acknowledged implies readable", f"{call} is {end}")
    if came:
        raise Broken("exactly once between canisters", f"payments of nobody: {came}")
    tokens = sum(book.tokens for book in books.values())
    if tokens != TOKENS * len(books):
        raise Broken("exactly once between canisters", f"{tokens} tokens, {TOKENS * len(books)} were made")


def _check_mailbox(writers: list[Writer], reader: Writer, mail: list[tuple[Principal, str]]) -> None:
    if len(set(mail)) != len(mail):
        raise Broken("exactly once between canisters", f"{reader.name} has a message twice")
    for writer in writers:
        found = [text for sender, text in mail if sender == writer.identity.principal]
        sent = [letter for letter in writer.letters if letter.to == reader.name]
        lost = [letter.text for letter in sent if letter.is_safe and letter.text not in found]
        if lost:
            raise Broken("acknowledged implies readable", f"{reader.name} never got {lost}")
        if found != [letter.text for letter in sent if letter.text in found]:
            raise Broken("one total order", f"{reader.name} has {found} from {writer.name}")
    senders = {writer.identity.principal for writer in writers}
    if any(sender not in senders for sender, _ in mail):
        raise Broken("exactly once between canisters", f"{reader.name} has mail of nobody")
