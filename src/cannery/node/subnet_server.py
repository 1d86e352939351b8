"""A subnet's end of the local socket: frames in, one frame of results out per sync and per turn.

Each connection is a gateway. What a sync lets out goes to each gateway in one frame, so that it can sign the
answers together. A gateway that is gone gets nothing; it asks again when it is back. What a slow gateway has
not taken yet is bounded: its connection is not read until it has.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

from cannery.errors import Reject, RejectCode, StoreError
from cannery.limits import HANDOVER_SOCKET_SIZE_BYTES, HOLD_S_MAX, SOCKET_BUFFER_BYTES_MAX
from cannery.node.answers import ReplySpool, answered, ingress_of, read_values, rejected, run_query
from cannery.node.driver import SubnetDriver
from cannery.node.followers import Followers
from cannery.node.handover import (
    Accepted,
    Ask,
    Checkpoint,
    Checkpointed,
    Examine,
    Examined,
    Follow,
    FrameError,
    FrameSplitter,
    Held,
    Hold,
    Measure,
    Measured,
    QueryDone,
    Read,
    ReadEvents,
    Received,
    Refused,
    Settled,
    Submit,
    ToGateway,
    ToSubnet,
    Unwatch,
    Values,
    Watch,
    decode_to_subnet,
    encode_frames,
)
from cannery.node.links import StreamPort
from cannery.node.service import Subnet
from cannery.node.submitted import Durable, Known, Refusing, Waiting
from cannery.node.watches import Watches
from cannery.protocol.identity import Ed25519Identity

_BUSY: Final = Reject(
    RejectCode.SYS_TRANSIENT, "the node is busy with queries: try again in a moment", "CNRY0204"
)

Ticket = tuple["GatewayConnection", int]


class SubnetServer:
    """Serves a subnet on a Unix socket until `stop`."""

    def __init__(
        self,
        subnet: Subnet,
        spool: ReplySpool,
        checkpoint: Path | None = None,
        node_key: Ed25519Identity | None = None,
    ) -> None:
        """`checkpoint`: where a copy of the store is made for a backup; nowhere, without. `node_key`: signs
        the answers of queries; without, gateways do.
        """
        self._spool = spool
        self._node_key = node_key
        self._checkpoint_path = checkpoint
        self._changed: dict[GatewayConnection, None] = {}
        self._connections: set[GatewayConnection] = set()
        self._server: asyncio.AbstractServer | None = None
        self._holders: set[GatewayConnection] = set()
        self._is_stopping = False
        self.driver = SubnetDriver(subnet, asyncio.get_running_loop(), self._deliver, on_turn_end=self._flush)
        self.followers = Followers(lambda: self.driver.subnet)
        self.streams: list[StreamPort] = []
        self.watches = Watches(lambda: self.driver.subnet, self.driver.ask)

    @property
    def subnet(self) -> Subnet:
        return self.driver.subnet

    async def start(self, path: str) -> None:
        """Listen on a socket; one that an earlier process left behind is replaced."""
        with suppress(FileNotFoundError):
            os.unlink(path)
        loop = asyncio.get_running_loop()
        old_mask = os.umask(0o077)
        try:
            self._server = await loop.create_unix_server(lambda: GatewayConnection(self), path)
        finally:
            os.umask(old_mask)

    async def stop(self) -> None:
        """Stop listening, let out what is being synced, close the subnet and the connections.

        What comes in meanwhile is left: its gateways send it again to the next process.
        """
        self._is_stopping = True
        if self._server is not None:
            self._server.close()
        await self.driver.stop()
        self._flush()
        for connection in list(self._connections):
            connection.close()

    def handle(self, connection: GatewayConnection, messages: Iterable[ToSubnet]) -> None:
        """Take what a gateway sent."""
        if self._is_stopping:
            return
        for message in messages:
            match message:
                case Submit():
                    self._submit(connection, message)
                case Ask():
                    self._ask(connection, message)
                case Read():
                    self._read(connection, message)
                case Measure():
                    connection.post(Measured(message.id, self.subnet.measure()))
                case Examine():
                    connection.post(Examined(message.id, self.subnet.vitals()))
                case Watch():
                    self.watches.watch(connection, message)
                case Unwatch():
                    self.watches.unwatch(connection, message.id)
                case ReadEvents():
                    connection.post(self.watches.read(message))
                case Follow() | Received():
                    self._follow(connection, message)
                case Checkpoint():
                    connection.post(self._checkpoint(message.id))
                case Hold():
                    connection.post(self._hold(connection, message.id))
        self.driver.wake()

    def changed(self, connection: GatewayConnection) -> None:
        """Note that a connection has something to send at the end of this turn."""
        self._changed[connection] = None

    def opened(self, connection: GatewayConnection) -> None:
        """Note a new connection."""
        self._connections.add(connection)

    def closed(self, connection: GatewayConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        self._let_go(connection)
        self.watches.drop(connection)
        self.followers.drop(connection)

    # --- inside

    def _submit(self, connection: GatewayConnection, message: Submit) -> None:
        try:
            found = self.subnet.submit(ingress_of(message.ingress), (connection, message.id))
        except StoreError as error:
            found = Refusing(Reject(RejectCode.SYS_TRANSIENT, str(error)))
        match found:
            case Refusing(reject):
                connection.post(Refused(message.id, int(reject.code), reject.message, reject.error_code))
            case Known(time_ns, answer):
                connection.post(Settled(message.id, time_ns, answered(answer, self._spool)))
            case Waiting(is_accepted=True):
                connection.post(Accepted(message.id))

    def _ask(self, connection: GatewayConnection, message: Ask) -> None:
        def job() -> None:
            if connection.is_open:
                try:
                    done = run_query(self.subnet, message.id, message.query, self._spool, self._node_key)
                except StoreError as error:
                    answer = rejected(Reject(RejectCode.SYS_TRANSIENT, str(error)))
                    done = QueryDone(message.id, self.subnet.time_ns, answer)
                connection.post(done)

        if not self.driver.ask(job):
            connection.post(QueryDone(message.id, self.subnet.time_ns, rejected(_BUSY)))

    def _read(self, connection: GatewayConnection, message: Read) -> None:
        try:
            connection.post(read_values(self.subnet, message.id, message.read))
        except StoreError as error:
            connection.post(Values(message.id, self.subnet.time_ns, (), str(error)))

    def _follow(self, connection: GatewayConnection, message: Follow | Received) -> None:
        try:
            if isinstance(message, Follow):
                self.followers.follow(connection, message)
            else:
                self.followers.received(connection, message)
        except StoreError:
            # The other subnet connects again, and asks for what it lacks.
            connection.close()

    def _checkpoint(self, id: int) -> Checkpointed:
        if self._checkpoint_path is None:
            return Checkpointed(id, 0, "this subnet has no place for a copy of its store")
        try:
            return Checkpointed(id, self.subnet.checkpoint(str(self._checkpoint_path)))
        except StoreError as error:
            return Checkpointed(id, 0, str(error))

    def _hold(self, connection: GatewayConnection, id: int) -> Held:
        """Take nothing from other subnets while somebody copies the stores of all."""
        self._holders.add(connection)
        self.subnet.links.is_held = True
        asyncio.get_running_loop().call_later(HOLD_S_MAX, self._let_go, connection)
        return Held(id)

    def _let_go(self, connection: GatewayConnection) -> None:
        self._holders.discard(connection)
        if self.subnet.links.is_held and not self._holders:
            self.subnet.links.is_held = False
            self.driver.wake()

    def _deliver(self, durable: Durable) -> None:
        for ticket in durable.accepted:
            connection, id = _ticket(ticket)
            connection.post(Accepted(id))
        for ticket, answer in durable.settled:
            connection, id = _ticket(ticket)
            if connection.is_open:
                connection.post(Settled(id, durable.time_ns, answered(answer, self._spool)))
        self.watches.deliver(durable)
        self.followers.note_durable()
        for port in self.streams:
            port.note_durable()
        self._flush()

    def _flush(self) -> None:
        changed, self._changed = self._changed, {}
        for connection in changed:
            connection.flush()


class GatewayConnection(asyncio.BufferedProtocol):
    """One gateway's connection."""

    def __init__(self, server: SubnetServer) -> None:
        self._server = server
        self._splitter = FrameSplitter()
        self._outbox: list[ToGateway] = []
        self._transport: asyncio.Transport | None = None
        self._is_paused = False

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    @property
    def is_full(self) -> bool:
        """Say whether the gateway has not taken what it was sent."""
        return self._is_paused

    def post(self, message: ToGateway) -> None:
        """Send a message with the next frame."""
        if self._transport is not None:
            self._outbox.append(message)
            self._server.changed(self)

    def flush(self) -> None:
        """Send what was posted."""
        messages, self._outbox = self._outbox, []
        if self._transport is not None and messages:
            self._transport.writelines(encode_frames(messages))

    def close(self) -> None:
        """Close the connection after what was sent."""
        if self._transport is not None:
            self._transport.close()

    # --- asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # cast: uvloop's transports have the methods of asyncio.Transport without being one.
        stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=SOCKET_BUFFER_BYTES_MAX)
        # As far as the system allows: what one turn answers leaves in one piece, and the next turn begins.
        pipe = stream.get_extra_info("socket")
        pipe.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HANDOVER_SOCKET_SIZE_BYTES)
        self._transport = stream
        self._server.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (asyncio's name)
        return self._splitter.room()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for body in self._splitter.took(nbytes):
                self._server.handle(self, decode_to_subnet(body))
        except FrameError:
            if self._transport is not None:
                self._transport.abort()

    def pause_writing(self) -> None:
        self._is_paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_paused = False
        self._server.watches.resume(self)
        self._server.followers.note_durable()
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's name)
        self._transport = None
        self._outbox = []
        self._server.closed(self)


def _ticket(ticket: object) -> Ticket:
    assert isinstance(ticket, tuple), "tickets are made in this module"
    return ticket
