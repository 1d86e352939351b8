"""A library with readers on a real node: the example of docs/fleet.md, for tests of `cannery fleet`."""

from __future__ import annotations

from hashlib import sha256

from cannery import nat64
from cannery.cli.typed_calls import TypedCanister
from cannery.fleet.directory_types import Child
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from tests.conftest import Cli, Ran
from tests.node_under_test import ROOT, NodeUnderTest

LIBRARY = f"{ROOT / 'examples' / 'library.py'}:Library"
SHELF = f"{ROOT / 'examples' / 'library.py'}:Shelf"
SHELF_2 = str(ROOT / "examples" / "shelf_2.py")


class Town:
    """A library of its own name, with shelves."""

    def __init__(self, cli: Cli, node: NodeUnderTest, name: str) -> None:
        self._cli = cli
        self.node = node
        self.name = name
        self.shelves: list[Principal] = []
        done = cli("deploy", LIBRARY, "--name", name, node=node)
        assert done.code == 0, done.err
        self.id = Principal.parse(done.out.splitlines()[-1])

    def fleet(self, *arguments: str) -> Ran:
        """Run `cannery fleet` for this library, as the operator."""
        return self._cli("fleet", *arguments, "--index", self.name, node=self.node)

    def release(self, file: str = SHELF, note: str = "the first shelves") -> Ran:
        """Add a release of shelves."""
        done = self.fleet("release", "add", file, "--kind", "shelf", "--note", note, "--json")
        assert done.code == 0, done.err
        return done

    def reader(self, number: int) -> Ed25519Identity:
        """Return the identity of a reader."""
        return Ed25519Identity(sha256(f"{self.name} {number}".encode()).digest())

    def open_shelves(self, count: int) -> None:
        """Give readers a shelf each."""
        for number in range(len(self.shelves), len(self.shelves) + count):
            with self.node.agent(self.reader(number)) as agent:
                self.shelves.append(TypedCanister(agent, self.id).call("shelf", Child).canister)

    def put(self, number: int, book: int, title: str) -> None:
        """Put a book on a reader's shelf."""
        with self.node.agent(self.reader(number)) as agent:
            TypedCanister(agent, self.shelves[number]).call_for_effect("put", (book, title), (nat64, str))
