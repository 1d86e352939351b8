"""Agents: the client's door to a node, blocking (`Agent`) and async (`AsyncAgent`).

Both verify every answer: certificates against the root key, query answers against the certified keys of the
subnet's nodes. Without a root key the agent believes the one that the node shows first; give one where it
is known. Connections are kept and reused; an agent may be shared between threads (`Agent`) or tasks
(`AsyncAgent`).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack
from urllib.parse import urlsplit

import httpx

from cannery.client.conversation import Conversation, Path, SignedCall, Status
from cannery.client.errors import Unverified
from cannery.client.exchange import Exchange, WaitReport, hold, hold_async
from cannery.client.transfer import ProgressReport
from cannery.limits import CLIENT_EXCHANGE_COUNT_MAX
from cannery.protocol.certificate import Certificate
from cannery.protocol.hash_tree import Absent, Found, lookup
from cannery.protocol.identity import AnonymousIdentity, Identity
from cannery.protocol.principal import Principal

if TYPE_CHECKING:
    from cannery.client.events import Event, Follower, Gap, Subscribed

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:4943"
_TIMEOUT = httpx.Timeout(120.0, connect=5.0)
_LIMITS = httpx.Limits(
    max_connections=CLIENT_EXCHANGE_COUNT_MAX, max_keepalive_connections=CLIENT_EXCHANGE_COUNT_MAX
)
_LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


class AgentOptions(TypedDict, total=False):
    """What an agent may be told beside its node and its identity.

    `root_key` (DER): whom to believe; without it the node's own word at first contact. `patience_s` (240):
    how long an unreachable or busy node is asked again, a call at most until it expires (4 minutes).
    `answer_wait_s` (300): how long to wait for a call that runs. `on_wait(reason)` hears of every pause,
    `on_progress(bytes_there, bytes_in_all)` of large bodies on their way. `now_ns` is the clock.
    """

    root_key: bytes | None
    patience_s: float
    answer_wait_s: float
    on_wait: WaitReport | None
    on_progress: ProgressReport | None
    now_ns: Callable[[], int]


def _converse(identity: Identity | None, options: AgentOptions) -> Conversation:
    return Conversation(
        identity=identity or AnonymousIdentity(),
        now_ns=options.get("now_ns", time.time_ns),
        nonce=lambda: secrets.token_bytes(16),
        root_key=options.get("root_key"),
        patience_ns=int(options.get("patience_s", 240.0) * 1e9),
        answer_wait_ns=int(options.get("answer_wait_s", 300.0) * 1e9),
        on_progress=options.get("on_progress"),
    )


def _uses_proxies(url: str) -> bool:
    """Say whether a proxy of the environment may be meant: not for this machine."""
    return (urlsplit(url).hostname or "") not in _LOOPBACK_HOSTS


def _uses_tls(url: str) -> bool:
    """Say whether certificates of the system are needed: reading them takes longer than a whole command."""
    return url.startswith("https:")


def _metadata_value(certificate: Certificate, path: Path) -> bytes | None:
    found = lookup(certificate.tree, path)
    if isinstance(found, Found):
        return found.value
    if isinstance(found, Absent):
        return None
    raise Unverified("the certificate neither shows the value nor proves its absence")


class Agent:
    """Talk to a node, blocking."""

    def __init__(
        self, url: str = DEFAULT_URL, identity: Identity | None = None, **options: Unpack[AgentOptions]
    ) -> None:
        self.url = url.rstrip("/")
        self._conversation = _converse(identity, options)
        self._on_wait = options.get("on_wait")

    @property
    def identity(self) -> Identity:
        """The identity that signs."""
        return self._conversation.identity

    @property
    def principal(self) -> Principal:
        """The principal that the node sees as the caller."""
        return self._conversation.identity.principal

    def trust(self, root_key: bytes) -> None:
        """Believe this root key (DER) from now on."""
        self._conversation.root_key = root_key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, {self.principal})"

    @cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, timeout=_TIMEOUT, trust_env=_uses_proxies(self.url), verify=_uses_tls(self.url)
        )

    def _hold(self, exchange: Exchange[T]) -> T:
        return hold(exchange, self._client, self._on_wait)

    def status(self, *, patience_s: float | None = None) -> Status:
        """Ask what the node says of itself; unsigned."""
        return self._hold(self._conversation.status(_ns(patience_s)))

    def root_key(self) -> bytes:
        """Give the root key that this agent believes, DER."""
        return self._hold(self._conversation.trusted_root_key())

    def call(
        self, canister_id: Principal, method: str, arg: bytes, *, effective: Principal | None = None
    ) -> bytes:
        """Run an update, once, and return its verified reply.

        `effective` is the canister that a management call is about. Raises `Rejected`, `Refused`,
        `Unreachable`, `Unverified` and `Expired`.
        """
        return self._hold(self._conversation.sign_and_call(canister_id, method, arg, effective))

    def sign_call(self, canister_id: Principal, method: str, arg: bytes) -> SignedCall:
        """Sign a call without sending it; `send` may be asked for it again after a crash of the caller."""
        return self._conversation.sign_call(canister_id, method, arg)

    def send(self, signed: SignedCall) -> bytes:
        """Have a signed call run, once however often it is sent, and return its verified reply."""
        return self._hold(self._conversation.call(signed))

    def query(
        self, canister_id: Principal, method: str, arg: bytes, *, effective: Principal | None = None
    ) -> bytes:
        """Ask a query and return its reply, signed by a node of the canister's subnet."""
        return self._hold(self._conversation.query(canister_id, method, arg, effective))

    def read_state(self, paths: Sequence[Path], effective: Principal) -> Certificate:
        """Read values of the state tree; the certificate that comes back is verified."""
        return self._hold(self._conversation.read_state(paths, effective))

    def metadata(self, canister_id: Principal, name: str = "candid:service") -> bytes | None:
        """Read a canister's metadata section; None where the canister certifiably has none of that name."""
        path = [b"canister", canister_id.raw, b"metadata", name.encode()]
        return _metadata_value(self.read_state([path], canister_id), path)

    def module_hash(self, canister_id: Principal) -> bytes | None:
        """Read the hash of the module that runs in a canister; None where it is empty."""
        path = [b"canister", canister_id.raw, b"module_hash"]
        return _metadata_value(self.read_state([path], canister_id), path)

    def names(self) -> dict[str, Principal]:
        """Read the node's named canisters from /cannery.json; unsigned, as a telephone book is."""
        return self._hold(self._conversation.names())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncAgent:
    """Talk to a node without blocking the event loop; otherwise as `Agent`."""

    def __init__(
        self, url: str = DEFAULT_URL, identity: Identity | None = None, **options: Unpack[AgentOptions]
    ) -> None:
        self.url = url.rstrip("/")
        self._conversation = _converse(identity, options)
        self._on_wait = options.get("on_wait")

    @property
    def identity(self) -> Identity:
        """The identity that signs."""
        return self._conversation.identity

    @property
    def principal(self) -> Principal:
        """The principal that the node sees as the caller."""
        return self._conversation.identity.principal

    def trust(self, root_key: bytes) -> None:
        """Believe this root key (DER) from now on."""
        self._conversation.root_key = root_key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, {self.principal})"

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url,
            timeout=_TIMEOUT,
            limits=_LIMITS,
            trust_env=_uses_proxies(self.url),
            verify=_uses_tls(self.url),
        )

    @cached_property
    def _turns(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(CLIENT_EXCHANGE_COUNT_MAX)

    async def _hold(self, exchange: Exchange[T]) -> T:
        # The pool of connections slows down with the number of those who wait for one: they wait here.
        async with self._turns:
            return await hold_async(exchange, self._client, self._on_wait)

    async def status(self, *, patience_s: float | None = None) -> Status:
        """Ask what the node says of itself; unsigned."""
        return await self._hold(self._conversation.status(_ns(patience_s)))

    async def root_key(self) -> bytes:
        """Give the root key that this agent believes, DER."""
        return await self._hold(self._conversation.trusted_root_key())

    async def call(
        self, canister_id: Principal, method: str, arg: bytes, *, effective: Principal | None = None
    ) -> bytes:
        """Run an update, once, and return its verified reply; see `Agent.call`."""
        return await self._hold(self._conversation.sign_and_call(canister_id, method, arg, effective))

    def sign_call(self, canister_id: Principal, method: str, arg: bytes) -> SignedCall:
        """Sign a call without sending it."""
        return self._conversation.sign_call(canister_id, method, arg)

    async def send(self, signed: SignedCall) -> bytes:
        """Have a signed call run, once however often it is sent, and return its verified reply."""
        return await self._hold(self._conversation.call(signed))

    async def query(
        self, canister_id: Principal, method: str, arg: bytes, *, effective: Principal | None = None
    ) -> bytes:
        """Ask a query and return its reply, signed by a node of the canister's subnet."""
        return await self._hold(self._conversation.query(canister_id, method, arg, effective))

    async def read_state(self, paths: Sequence[Path], effective: Principal) -> Certificate:
        """Read values of the state tree; the certificate that comes back is verified."""
        return await self._hold(self._conversation.read_state(paths, effective))

    async def metadata(self, canister_id: Principal, name: str = "candid:service") -> bytes | None:
        """Read a canister's metadata section; None where the canister certifiably has none of that name."""
        path = [b"canister", canister_id.raw, b"metadata", name.encode()]
        return _metadata_value(await self.read_state([path], canister_id), path)

    async def module_hash(self, canister_id: Principal) -> bytes | None:
        """Read the hash of the module that runs in a canister; None where it is empty."""
        path = [b"canister", canister_id.raw, b"module_hash"]
        return _metadata_value(await self.read_state([path], canister_id), path)

    async def names(self) -> dict[str, Principal]:
        """Read the node's named canisters from /cannery.json; unsigned, as a telephone book is."""
        return await self._hold(self._conversation.names())

    def events(
        self, canister_id: Principal, topics: Sequence[str], *, since: int | None = None
    ) -> AsyncIterator[Event | Gap]:
        """Follow a canister's events of some topics, from a number on (without one: from now on).

        Each event comes once, in order, over as many connections as it takes; events that have left the
        canister's log come as a `Gap`. Raises `EventsEnded` where the canister denies them, and `Unreachable`
        after `patience_s` without the node. The number of the last event, plus one, is where to go on later.
        """
        follower = self._follower(canister_id, topics, since)
        return follower.follow(uses_proxies=_uses_proxies(self.url), on_wait=self._on_wait)

    def event_steps(
        self, canister_id: Principal, topics: Sequence[str], *, since: int | None = None
    ) -> AsyncGenerator[Event | Gap | Subscribed]:
        """Follow events as `events` does, and hear when each connection has begun to tell (`Subscribed`)."""
        follower = self._follower(canister_id, topics, since)
        return follower.steps(uses_proxies=_uses_proxies(self.url), on_wait=self._on_wait)

    def _follower(self, canister_id: Principal, topics: Sequence[str], since: int | None) -> Follower:
        # Most programs follow no events, and the library takes a while to load.
        from cannery.client.events import Follower

        follower = Follower(self.url, self._conversation, canister_id, topics)
        follower.next = since
        return follower

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> AsyncAgent:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1e9)
