"""Follows another subnet's stream over its local socket, from where the own durable state stands.

Where the connection breaks it is opened again, and everything that was not durable here is asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, cast

from cannery.errors import StoreError
from cannery.limits import RECONNECT_PAUSE_MS
from cannery.node.driver import SubnetDriver
from cannery.node.handover import (
    Follow,
    FrameError,
    FrameSplitter,
    Received,
    Slice,
    ToGateway,
    ToSubnet,
    decode_to_gateway,
    encode_frames,
)
from cannery.replica.block import PeerLost

_ID: Final = 1


class StreamClient:
    """Behind `links.StreamPort`: one other subnet's stream to this one."""

    def __init__(self, driver: SubnetDriver, peer: int, path: str) -> None:
        self._driver = driver
        self._peer = peer
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._told = 0
        self._is_closed = False
        self._connecting: asyncio.Task[None] | None = None
        self.is_paused = False

    def start(self) -> None:
        """Connect, now or as soon as the other subnet is there."""
        if not self._is_closed:
            self._connecting = self._loop.create_task(self._connect())

    def close(self) -> None:
        """Follow no more."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()

    def note_durable(self) -> None:
        """Tell the other side what has become durable here, and read on where room was made."""
        transport = self._transport
        if transport is None:
            return
        try:
            received = self._driver.subnet.received_from(self._peer)
        except StoreError:
            # It is told after a sync when it can be read again.
            received = self._told
        if received > self._told:
            self._told = received
            self._send([Received(self._driver.subnet.number, received)])
        if self.is_paused and not self._driver.subnet.links.is_full:
            self.is_paused = False
            transport.resume_reading()

    # --- the connection

    async def _connect(self) -> None:
        while not self._is_closed:
            try:
                await self._loop.create_unix_connection(lambda: _Connection(self), self._path)
                return
            except OSError:
                await asyncio.sleep(RECONNECT_PAUSE_MS / 1000)

    def connected(self, transport: asyncio.Transport) -> None:
        """Ask for what is not durable here."""
        self._transport = transport
        self.is_paused = False
        subnet = self._driver.subnet
        self._told = subnet.received_from(self._peer)
        self._send([Follow(_ID, subnet.number, self._told)])

    def disconnected(self) -> None:
        """Connect again."""
        self._transport = None
        if not self._is_closed:
            self._driver.subnet.links.put(PeerLost(self._peer))
            self._driver.wake()
            self._loop.call_later(RECONNECT_PAUSE_MS / 1000, self.start)

    def received(self, messages: Sequence[ToGateway]) -> None:
        """Take what came in one frame."""
        links = self._driver.subnet.links
        for message in messages:
            if isinstance(message, Slice):
                links.put(message.slice)
        if links.is_full and self._transport is not None:
            self.is_paused = True
            self._transport.pause_reading()
        self._driver.wake()

    def _send(self, messages: list[ToSubnet]) -> None:
        if self._transport is not None:
            self._transport.writelines(encode_frames(messages))


class _Connection(asyncio.Protocol):
    def __init__(self, client: StreamClient) -> None:
        self._client = client
        self._splitter = FrameSplitter()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # cast: uvloop's transports have the methods of asyncio.Transport without being one.
        self._transport = cast(asyncio.Transport, transport)
        self._client.connected(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._splitter.feed(data):
                self._client.received(decode_to_gateway(body))
        except FrameError:
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's name)
        self._client.disconnected()
