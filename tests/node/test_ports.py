"""Both sides of the subnet port: the same answers in process and over the socket, restarts included."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from msgspec.structs import replace

from cannery import Canister, Context, StableLog, nat32, query, update
from cannery.limits import HANDOVER_COUNT_MAX, INLINE_SIZE_BYTES_MAX
from cannery.node.answers import ReplySpool, query_answer_of
from cannery.node.handover import (
    FrameSplitter,
    IngressMessage,
    QueryMessage,
    Refused,
    Spooled,
    StateRead,
    Submit,
    decode_to_subnet,
)
from cannery.node.local_subnet import LocalSubnet
from cannery.node.remote_subnet import RemoteSubnet, SubnetUnreachableError
from cannery.node.subnet_port import SettledAnswer, SubnetPort
from cannery.node.subnet_server import SubnetServer
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from cannery.protocol.query_signature import NodeSignature, verify_query_answer
from cannery.replica.elsewhere import AskedBy
from cannery.testing import MemoryStore, Node
from cannery.testing.actor import Actor


class Blobs(Canister):
    sizes = StableLog(nat32)

    @update
    def put(self, ctx: Context, data: bytes) -> nat32:
        return self.sizes.append(len(data))

    @query
    def get(self, ctx: Context, size: nat32) -> bytes:
        return bytes(size)

    @query
    def fail(self, ctx: Context) -> None:
        ctx.trap("no")

    @query
    def count(self, ctx: Context) -> nat32:
        return len(self.sizes)


OpenPort = Callable[[Node, Path], AbstractAsyncContextManager[SubnetPort]]


@asynccontextmanager
async def local_port(node: Node, folder: Path) -> AsyncIterator[SubnetPort]:
    port = LocalSubnet(node.subnet)
    yield port
    await port.close()


@asynccontextmanager
async def remote_port(node: Node, folder: Path) -> AsyncIterator[SubnetPort]:
    server = SubnetServer(node.subnet, ReplySpool(folder))
    await server.start(str(folder / "s"))
    port = RemoteSubnet(str(folder / "s"))
    await port.start(10)
    yield port
    await port.close()
    await server.stop()


def message(node: Node, canister: Actor, data: bytes, request: int) -> IngressMessage:
    arg = canister.put._shape.encode_args((data,))
    request_id = request.to_bytes(32, "big")
    return IngressMessage(request_id, node.operator.raw, canister.id.raw, "put", arg, node.now_ns + 10**11)


def question(canister: Actor, method: str, *args: object) -> QueryMessage:
    arg = canister[method]._shape.encode_args(args)
    return QueryMessage(os.urandom(32), Principal.anonymous().raw, canister.id.raw, method, arg)


@pytest.mark.parametrize("open_port", [local_port, remote_port])
def test_both_sides_answer_alike(open_port: OpenPort, tmp_path: Path) -> None:
    async def run(node: Node, canister: Actor) -> None:
        async with open_port(node, tmp_path) as port:
            sent = [port.submit(message(node, canister, b"x" * n, n)) for n in (1, 2, 2, 3)]
            settled = [await one.settled for one in sent]
            assert all(isinstance(one, SettledAnswer) for one in settled)
            assert [one.accepted.result() for one in sent] == [True] * 4
            rounds = {one.round for one in settled if isinstance(one, SettledAnswer)}
            assert len(rounds) == 1, "what one sync covers comes together"
            assert len(rounds.pop().answers) == 3, "a repeated request stands there once"
            replies = [one.answer.reply for one in settled if isinstance(one, SettledAnswer)]
            assert replies[1] == replies[2] != replies[3]
            counted = await port.ask(question(canister, "count"))
            assert canister.count._shape.decode_results(counted.answer.reply) == 3
            repeated = await port.submit(message(node, canister, b"", 3)).settled
            assert isinstance(repeated, SettledAnswer)
            assert repeated.answer.reply == replies[3]
            refused = await port.submit(
                IngressMessage(bytes(32), node.operator.raw, canister.id.raw, "no", b"", node.now_ns + 10**9)
            ).settled
            assert isinstance(refused, Refused)
            rejected = await port.ask(question(canister, "fail"))
            assert rejected.answer.reject_code == 5
            paths = ((b"request_status", (1).to_bytes(32, "big"), b"status"),)
            values = await port.read(StateRead(node.operator.raw, canister.id.raw, paths))
            assert values.values == (b"replied",)
            denied = await port.read(StateRead(b"\x04", canister.id.raw, paths))
            assert denied.denied or denied.values == (None,)
            assert "cannery_rounds_total" in await port.measure()

    with Node() as node:
        asyncio.run(run(node, node.install(Blobs)))


def test_the_subnet_signs_what_its_queries_answer_to_clients(tmp_path: Path) -> None:
    node_key = Ed25519Identity(b"\x07" * 32)

    async def run(node: Node, canister: Actor) -> None:
        server = SubnetServer(node.subnet, ReplySpool(tmp_path), node_key=node_key)
        await server.start(str(tmp_path / "s"))
        port = RemoteSubnet(str(tmp_path / "s"))
        await port.start(10)
        for asked in (question(canister, "get", 5), question(canister, "fail")):
            done = await port.ask(asked)
            made = done.signature
            assert made is not None
            assert made.timestamp_ns == done.time_ns
            signature = NodeSignature(made.timestamp_ns, made.signature, node_key.principal)
            answer = query_answer_of(done.answer, done.answer.reply)
            assert verify_query_answer(node_key.public_key_der, answer, asked.request_id, signature)
            assert not verify_query_answer(node_key.public_key_der, answer, bytes(32), signature)
        # What stands in the spool is the gateway's to sign, and between canisters nobody asks for it.
        large = await port.ask(question(canister, "get", INLINE_SIZE_BYTES_MAX + 10))
        assert large.answer.spooled is not None
        assert large.signature is None
        asker = AskedBy(fleet=b"", depth=1)
        inner = await port.ask(replace(question(canister, "get", 5), asked_by=asker))
        assert inner.answer.reject_code == 0
        assert inner.signature is None
        await port.close()
        await server.stop()

    with Node() as node:
        asyncio.run(run(node, node.install(Blobs)))


def test_large_values_travel_through_files(tmp_path: Path) -> None:
    size = INLINE_SIZE_BYTES_MAX + 10

    async def run(node: Node, canister: Actor) -> None:
        async with remote_port(node, tmp_path) as port:
            plain = message(node, canister, bytes(size), 1)
            (tmp_path / "arg").write_bytes(b"head" + plain.arg + b"tail")
            spooled = Spooled(str(tmp_path / "arg"), 4, len(plain.arg))
            large = IngressMessage(
                plain.request_id, plain.sender, plain.canister_id, "put", b"", plain.expiry_ns, spooled
            )
            settled = await port.submit(large).settled
            assert isinstance(settled, SettledAnswer)
            assert settled.answer.reject_code == 0
            found = (await port.ask(question(canister, "get", size))).answer
            assert found.spooled is not None
            assert canister.get._shape.decode_results(Path(found.spooled.path).read_bytes()) == bytes(size)
            missing = IngressMessage(
                bytes(32),
                plain.sender,
                plain.canister_id,
                "put",
                b"",
                plain.expiry_ns,
                Spooled("/none", 0, 9),
            )
            refused = await port.submit(missing).settled
            assert isinstance(refused, Refused)
            assert "spooled argument" in refused.reject_message

    with Node() as node:
        asyncio.run(run(node, node.install(Blobs)))


def test_a_restart_of_the_subnet_only_makes_clients_wait(tmp_path: Path) -> None:
    path = str(tmp_path / "s")

    async def run(node: Node, canister: Actor) -> None:
        server = SubnetServer(node.subnet, ReplySpool(tmp_path))
        await server.start(path)
        port = RemoteSubnet(path)
        await port.start(10)
        first = await port.submit(message(node, canister, b"1", 1)).settled
        await server.stop()
        waiting = [port.submit(message(node, canister, b"2", number)) for number in (1, 2, 3)]
        asked = asyncio.ensure_future(port.ask(question(canister, "count")))
        await asyncio.sleep(0)
        node.subnet = node._open()
        server = SubnetServer(node.subnet, ReplySpool(tmp_path))
        await server.start(path)
        settled = [await one.settled for one in waiting]
        assert isinstance(first, SettledAnswer)
        assert isinstance(settled[0], SettledAnswer)
        assert settled[0].answer == first.answer, "a repeated call gets the stored answer"
        assert (await asked).answer.reject_code == 0
        counted = await port.ask(question(canister, "count"))
        assert canister.count._shape.decode_results(counted.answer.reply) == 3
        late = port.submit(message(node, canister, b"9", 9))
        await port.close()
        assert isinstance(await late.settled, Refused)
        assert isinstance(await port.submit(message(node, canister, b"9", 9)).settled, Refused)
        await server.stop()

    with Node(MemoryStore()) as node:
        asyncio.run(run(node, node.install(Blobs)))


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_full_batch_leaves_at_once_and_the_rest_with_the_turn(
    make_loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.setblocking(False)
        port = RemoteSubnet(str(tmp_path / "s"))
        starting = asyncio.ensure_future(port.start(10))
        subnet, _ = await loop.sock_accept(listener)
        splitter = FrameSplitter()
        measured = [body async for body in _frames_of(loop, subnet, splitter)]
        assert len(measured) == 1
        for number in range(HANDOVER_COUNT_MAX + 1):
            port.submit(IngressMessage(number.to_bytes(32, "big"), b"", b"", "m", b"", 1))
        (body,) = splitter.feed(subnet.recv(1 << 20))
        assert len(decode_to_subnet(body)) == HANDOVER_COUNT_MAX, "the loop has had no turn yet"
        with pytest.raises(BlockingIOError):
            subnet.recv(1 << 20)
        ((rest,),) = [decode_to_subnet(body) async for body in _frames_of(loop, subnet, splitter)]
        assert isinstance(rest, Submit)
        starting.cancel()
        await port.close()
        subnet.close()
        listener.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(run())


async def _frames_of(
    loop: asyncio.AbstractEventLoop, socket_: socket.socket, splitter: FrameSplitter
) -> AsyncIterator[bytes]:
    """Give the frames that come next."""
    for body in splitter.feed(await loop.sock_recv(socket_, 1 << 20)):
        yield body


def test_a_subnet_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(SubnetUnreachableError, match="does not answer"):
            await RemoteSubnet(str(tmp_path / "none")).start(0.05)

    asyncio.run(run())
