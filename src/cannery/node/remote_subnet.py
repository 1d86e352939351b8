"""The subnet port over the local socket: what a gateway process uses.

Everything is sent in batches: what a turn of the loop brings, some messages at a time, so that the subnet
works on the first while the gateway still reads the others. Where the connection breaks (the subnet
restarts), it is opened again, and whatever has no answer yet is sent again: a repeated update is known to the
subnet by its request id and runs once, so that clients only wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, TypeVar, cast

from cannery.errors import CanneryError, RejectCode
from cannery.limits import (
    HANDOVER_COUNT_MAX,
    PORT_REQUEST_COUNT_MAX,
    RECONNECT_PAUSE_MS,
    SOCKET_BUFFER_BYTES_MAX,
)
from cannery.node.answers import discard_spooled
from cannery.node.handover import (
    Accepted,
    Answered,
    Ask,
    Decided,
    Events,
    EventsRead,
    Examine,
    Examined,
    FrameError,
    FrameSplitter,
    IngressMessage,
    Measure,
    Measured,
    QueryDone,
    QueryMessage,
    Read,
    ReadEvents,
    Refused,
    Settled,
    Stale,
    StateRead,
    Submit,
    ToGateway,
    ToSubnet,
    Unwatch,
    Values,
    Watch,
    decode_to_gateway,
    encode_frames,
)
from cannery.node.settling import CLOSED, Submissions
from cannery.node.subnet_port import EventListener, Submission
from cannery.node.vitals import Vitals

_BUSY: Final = "the node is busy: try again in a moment"

R = TypeVar("R", QueryDone, Values, Measured, Examined, EventsRead)


class SubnetUnreachableError(CanneryError):
    """The subnet does not answer on its socket."""


class RemoteSubnet:
    """Behind `SubnetPort`. Make it and use it on one loop; `start` before the first use."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._loop = asyncio.get_running_loop()
        self._submissions = Submissions(self._loop)
        self._asked: dict[int, tuple[ToSubnet, asyncio.Future[ToGateway]]] = {}
        self._watches: dict[int, Watch] = {}
        self._listener: EventListener | None = None
        self._outbox: list[ToSubnet] = []
        self._transport: asyncio.Transport | None = None
        self._flush_handle: asyncio.Handle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._id = 0
        self._is_closed = False

    async def start(self, timeout_s: float) -> None:
        """Wait until the subnet answers. Raises `SubnetUnreachableError`."""
        self._connect()
        try:
            await asyncio.wait_for(self.measure(), timeout_s)
        except TimeoutError:
            await self.close()
            raise SubnetUnreachableError(f"the subnet does not answer on {self._path}") from None

    # --- SubnetPort

    def submit(self, ingress: IngressMessage) -> Submission:
        id = self._next_id()
        text = CLOSED if self._is_closed else _BUSY
        if self._is_closed or len(self._submissions) >= PORT_REQUEST_COUNT_MAX:
            return self._submissions.refused_at_once(Refused(id, int(RejectCode.SYS_TRANSIENT), text))
        submission = self._submissions.add(id, ingress)
        self._send(Submit(id, ingress))
        return submission

    async def ask(self, query: QueryMessage) -> QueryDone:
        if self._is_closed or len(self._asked) >= PORT_REQUEST_COUNT_MAX:
            return QueryDone(0, 0, Answered(b"", int(RejectCode.SYS_TRANSIENT), _BUSY))
        id = self._next_id()
        return await self._request(id, Ask(id, query), QueryDone)

    async def read(self, read: StateRead) -> Values:
        if self._is_closed or len(self._asked) >= PORT_REQUEST_COUNT_MAX:
            return Values(0, 0, (), _BUSY)
        id = self._next_id()
        return await self._request(id, Read(id, read), Values)

    async def measure(self) -> str:
        id = self._next_id()
        return (await self._request(id, Measure(id), Measured)).text

    async def examine(self) -> Vitals:
        id = self._next_id()
        return (await self._request(id, Examine(id), Examined)).vitals

    async def close(self) -> None:
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._submissions.refuse_all()
        for id, (message, future) in self._asked.items():
            if not future.done():
                future.set_result(_closed_answer(id, message))

    # --- EventPort

    def listen(self, listener: EventListener) -> None:
        self._listener = listener

    def watch(self, query: QueryMessage) -> int:
        id = self._next_id()
        message = self._watches[id] = Watch(id, query)
        self._send(message)
        return id

    def unwatch(self, id: int) -> None:
        if self._watches.pop(id, None) is not None:
            self._send(Unwatch(id))

    async def read_events(self, canister_id: bytes, since: int) -> EventsRead:
        if self._is_closed or len(self._asked) >= PORT_REQUEST_COUNT_MAX:
            return EventsRead(0, 0, 0, (), _BUSY)
        id = self._next_id()
        return await self._request(id, ReadEvents(id, canister_id, since), EventsRead)

    # --- sending

    def _next_id(self) -> int:
        self._id += 1
        return self._id

    async def _request(self, id: int, message: ToSubnet, shape: type[R]) -> R:
        future: asyncio.Future[ToGateway] = self._loop.create_future()
        self._asked[id] = message, future
        self._send(message)
        try:
            answer = await future
        finally:
            self._asked.pop(id, None)
        assert isinstance(answer, shape), "each request has one kind of answer"
        return answer

    def _send(self, message: ToSubnet) -> None:
        if self._transport is None:
            return
        self._outbox.append(message)
        if len(self._outbox) >= HANDOVER_COUNT_MAX:
            self._flush()
        elif self._flush_handle is None:
            self._flush_handle = self._loop.call_soon(self._flush_rest)

    def _flush_rest(self) -> None:
        self._flush_handle = None
        self._flush()

    def _flush(self) -> None:
        messages, self._outbox = self._outbox, []
        if self._transport is not None and messages:
            self._transport.writelines(encode_frames(messages))

    # --- the connection

    def _connect(self) -> None:
        if not self._is_closed and (self._connecting is None or self._connecting.done()):
            self._connecting = self._loop.create_task(self._open_connection())

    async def _open_connection(self) -> None:
        while not self._is_closed:
            try:
                await self._loop.create_unix_connection(lambda: _SubnetConnection(self), self._path)
                return
            except OSError:
                await asyncio.sleep(RECONNECT_PAUSE_MS / 1000)

    def connected(self, transport: asyncio.Transport) -> None:
        """Send everything that has no answer yet."""
        self._transport = transport
        self._outbox = [Submit(id, ingress) for id, ingress in self._submissions.unanswered()]
        self._outbox += [message for message, _ in self._asked.values()]
        self._outbox += self._watches.values()
        self._flush()

    def disconnected(self) -> None:
        """Open the connection again. No watch holds until the subnet has decided it anew."""
        self._transport = None
        self._outbox = []
        if self._listener is not None:
            self._listener.stale(tuple(self._watches))
        self._connect()

    def received(self, messages: Iterable[ToGateway]) -> None:
        """Take what the subnet sent in one frame."""
        settled: list[tuple[int, Answered]] = []
        time_ns = 0
        for message in messages:
            match message:
                case QueryDone(id):
                    self._answer(message, id)
                case Settled(id, settled_ns, answer):
                    settled.append((id, answer))
                    time_ns = max(time_ns, settled_ns)
                case Accepted(id):
                    self._submissions.accept(id)
                case Refused():
                    self._submissions.refuse(message)
                case Decided() | Stale() | Events():
                    self._hear(message)
                case _:
                    self._answer(message, message.id)
        if settled:
            self._submissions.settle(time_ns, settled)

    def _answer(self, message: ToGateway, id: int) -> None:
        asked = self._asked.get(id)
        if asked is not None and not asked[1].done():
            asked[1].set_result(message)
        elif isinstance(message, QueryDone):
            # It came too late for whoever had asked.
            discard_spooled(message.answer.spooled)

    def _hear(self, message: Decided | Stale | Events) -> None:
        if self._listener is None:
            return
        match message:
            case Decided():
                if message.id in self._watches:
                    self._listener.decided(message)
            case Stale(ids):
                self._listener.stale(ids)
            case Events():
                self._listener.events(message)


def _closed_answer(id: int, message: ToSubnet) -> ToGateway:
    if isinstance(message, Ask):
        return QueryDone(id, 0, Answered(b"", int(RejectCode.SYS_TRANSIENT), CLOSED))
    if isinstance(message, Examine):
        return Examined(id, Vitals(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, CLOSED))
    if isinstance(message, ReadEvents):
        return EventsRead(id, 0, 0, (), CLOSED)
    return Values(id, 0, (), CLOSED) if isinstance(message, Read) else Measured(id, "")


class _SubnetConnection(asyncio.BufferedProtocol):
    def __init__(self, port: RemoteSubnet) -> None:
        self._port = port
        self._splitter = FrameSplitter()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # cast: uvloop's transports have the methods of asyncio.Transport without being one.
        stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=SOCKET_BUFFER_BYTES_MAX)
        self._transport = stream
        self._port.connected(stream)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (asyncio's name)
        return self._splitter.room()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for body in self._splitter.took(nbytes):
                self._port.received(decode_to_gateway(body))
        except FrameError:
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's name)
        self._port.disconnected()
