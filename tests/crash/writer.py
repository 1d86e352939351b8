"""A client under load: calls and messages, one after the other, and what became of each."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from cannery.apps.users.types import Body, RegisterResult, SendResult, Who
from cannery.apps.users.user import User
from cannery.apps.users.user_index import UserIndex
from cannery.client import AsyncAgent, Rejected
from cannery.client.errors import ClientError
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from tests.crash.zone import TOPICS, KilledZone
from tests.sim.canisters import Payment, Peer
from tests.sim.failure import Broken
from tests.sim.methods import shape


@dataclass(slots=True)
class Call:
    """One call: acknowledged with a value, rejected, or unsure (the client gave up)."""

    name: str
    tag: int
    canister: Principal
    payment: Payment | None = None
    state: str = "unsure"
    value: object = None


@dataclass(slots=True)
class Letter:
    """One message to another writer."""

    to: str
    text: str
    is_safe: bool = False


@dataclass
class Writer:
    """One client with an identity, a mailbox, and the peers that it calls."""

    number: int
    url: str
    root_key: bytes
    index: Principal
    chance: random.Random
    names: list[str]
    calls: list[Call] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    acknowledged: int = 0
    is_over: bool = False
    peers: list[Principal] = field(default_factory=list)
    zone: KilledZone | None = None
    post_count: int = 0

    def __post_init__(self) -> None:
        self.name = self.names[self.number]
        self.identity = Ed25519Identity(self.chance.randbytes(32))
        self.agent = AsyncAgent(self.url, self.identity, root_key=self.root_key)
        self.mailbox = Principal.anonymous()

    async def register(self) -> None:
        """Get a mailbox."""
        method = shape(UserIndex, "register")
        while True:
            reply = await self.agent.call(self.index, "register", method.encode_args((self.name,)))
            result = method.decode_results(reply)
            assert isinstance(result, RegisterResult)
            if result.tag == "ok":
                self.mailbox = result.ok.canister
                return

    def begin(self, peers: list[Principal], zone: KilledZone) -> None:
        """Turn to new peers; what was called before has been checked."""
        self.peers, self.zone, self.calls, self.is_over = peers, zone, [], False

    async def run(self) -> None:
        """Call and write until told to end."""
        while not self.is_over:
            draw = self.chance.random()
            if draw < 0.4:
                await self._bump()
            elif draw < 0.65:
                await self._pay()
            elif draw < 0.85:
                await self._post()
            else:
                await self._write()
            self.acknowledged += 1

    async def _call(self, call: Call, *args: object) -> None:
        method = shape(Peer, call.name)
        self.calls.append(call)
        try:
            reply = await self.agent.call(call.canister, call.name, method.encode_args(args))
        except Rejected:
            call.state = "rejected"
        except ClientError:
            return
        else:
            call.state, call.value = "replied", method.decode_results(reply)

    def _tag(self) -> int:
        return self.number * 1_000_000 + len(self.calls)

    async def _bump(self) -> None:
        call = Call("bump", self._tag(), self.peers[self.number % len(self.peers)])
        await self._call(call, call.tag, 0)
        if call.state == "replied":
            await self._read_back(call)

    async def _read_back(self, call: Call) -> None:
        """What is acknowledged can be read, also after a kill in between."""
        method = shape(Peer, "entry")
        try:
            reply = await self.agent.query(call.canister, "entry", method.encode_args((call.value,)))
        except ClientError:
            return
        found = method.decode_results(reply)
        if found != call.tag:
            raise Broken("acknowledged implies readable", f"entry {call.value} is {found}, not {call.tag}")

    async def _pay(self) -> None:
        payer, to = self.chance.sample(self.peers, 2)
        mode = self.chance.choice(("plain", "plain", "relays", "traps", "rejects"))
        payment = Payment(self._tag(), to, self.chance.choice(self.peers), 1, 0, mode)
        await self._call(Call("pay", payment.tag, payer, payment), payment)

    async def _write(self) -> None:
        to = self.chance.choice([name for name in self.names if name != self.name])
        letter = Letter(to, f"~{self.name} to {to}, letter {len(self.letters)}~")
        self.letters.append(letter)
        method = shape(User, "send")
        arg = method.encode_args((Who.username(to), f"{len(self.letters)}".encode(), Body.text(letter.text)))
        try:
            result = method.decode_results(await self.agent.call(self.mailbox, "send", arg))
        except ClientError:
            return
        assert isinstance(result, SendResult)
        letter.is_safe = result.tag == "ok"

    async def _post(self) -> None:
        """Put a message into the zone that all share."""
        assert self.zone is not None
        self.post_count += 1
        body = f"~{self.name}, message {self.post_count}~".encode()
        await self.zone.post(self.agent, self.chance.choice(TOPICS), body)

    async def probe(self, other: Writer) -> None:
        """Look into another's mailbox, which must not open."""
        for name, args in (("inbox", (0, 100)), ("sent_messages", (None, 100))):
            arg = shape(User, name).encode_args(args)
            for ask in (self.agent.query, self.agent.call):
                try:
                    reply = await ask(other.mailbox, name, arg)
                except Rejected as rejected:
                    if "~" in str(rejected):
                        raise Broken("no message is visible to a non-member", str(rejected)) from None
                else:
                    raise Broken("no message is visible to a non-member", f"{name} gave {reply!r}")
