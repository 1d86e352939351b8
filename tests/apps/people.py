"""The users app on an in-process node: people by name, their mailboxes, and one message after the other."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from cannery.apps.users.types import Body, IndexSettings, Message, RegisterResult, SendResult, Who
from cannery.apps.users.user import User
from cannery.apps.users.user_index import UserIndex
from cannery.ports import Store
from cannery.replica.block import ReplicaConfig
from cannery.testing import Actor, Node

_MODULES: dict[str, bytes] = {}


class People:
    """A node with the users app. `mailbox("ann")` is Ann's own canister, spoken to as Ann."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        per_minute: int = 10_000,
        seed: int = 0,
        config: ReplicaConfig | None = None,
    ) -> None:
        self.node = Node(store, seed=seed, config=config)
        for name, cls in (("index", UserIndex), ("user", User)):
            if name not in _MODULES:
                _MODULES[name] = self.node.build(cls)
        self.index = self.node.install(_MODULES["index"])
        self.index = self.node.actor(self.index.id, UserIndex)
        self.node.manage("cannery_module_add", _MODULES["user"])
        self.configure(per_minute)
        self.release(1, _MODULES["user"])
        self._canisters: dict[str, Any] = {}  # Principal of each one's canister, as registered

    def configure(self, per_minute: int) -> None:
        self.index.as_(self.node.operator).configure(IndexSettings(per_minute))

    def release(self, version: int, module: bytes) -> None:
        module_hash = sha256(module).digest()
        added = self.index.as_(self.node.operator).fleet_release_add("user", version, module_hash, "new")
        assert added.tag == "ok", added

    def register(self, name: str, username: str | None = None) -> RegisterResult:
        result = self.index.as_(name).register(username or name)
        assert isinstance(result, RegisterResult)
        if result.tag == "ok":
            self._canisters[name] = result.ok.canister
        return result

    def mailbox(self, name: str, caller: str | None = None) -> Actor:
        if name not in self._canisters:
            assert self.register(name).tag == "ok"
        return self.node.actor(self._canisters[name], User).as_(caller or name)

    def send(self, sender: str, receiver: str, text: str, message_id: bytes | None = None) -> SendResult:
        result = self.mailbox(sender).send(
            Who.username(receiver), message_id or text.encode()[:32], Body.text(text)
        )
        assert isinstance(result, SendResult)
        return result

    def inbox(self, name: str, page_count: int = 100) -> list[Message]:
        """Read a whole mailbox, page by page, oldest first."""
        messages: list[Message] = []
        cursor: int | None = 0
        while cursor is not None:
            page: Any = self.mailbox(name).inbox(cursor, page_count)
            messages.extend(page.messages)
            cursor = page.next
        return messages

    def texts(self, name: str) -> list[str]:
        return [message.body.text for message in self.inbox(name)]
