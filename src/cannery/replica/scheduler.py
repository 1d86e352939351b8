"""Whose turn it is: the queues of each canister and the ring of canisters that wait.

Each canister has four lanes (calls from outside, calls of canisters, responses, timers) that take turns;
canisters with waiting messages stand in one ring and run up to `MESSAGES_PER_TURN_COUNT_MAX` messages per
turn. Both live in memory while a round runs and are written at its end, so that the next round goes on
exactly there, with whose turn it is at the end of the ring. An empty lane and an empty ring start again at
number 0. This module decides order and room; it runs nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cannery.limits import (
    CALL_QUEUE_COUNT_MAX,
    INGRESS_QUEUE_COUNT_MAX,
    MESSAGES_PER_TURN_COUNT_MAX,
    QUEUE_SIZE_BYTES_MAX,
    TURNS_PER_ROUND_COUNT_MIN,
)
from cannery.replica import keys, records
from cannery.replica.records import AccountRecord, Lane, Message

if TYPE_CHECKING:
    from cannery.replica.state import RoundState

_LANE_COUNT = len(Lane)


class Lanes:
    """The waiting messages of one receiver: an older part in the store, a newer part in memory."""

    __slots__ = ("_fresh", "_state", "first", "next", "receiver", "turn", "waiting")

    def __init__(self, state: RoundState, receiver: bytes, account: AccountRecord) -> None:
        self._state = state
        self.receiver = receiver
        self.turn = account.lane_turn
        stored = account.lanes
        self.first = list(stored[0::2]) if stored else [0] * _LANE_COUNT
        self.next = list(stored[1::2]) if stored else [0] * _LANE_COUNT
        self.waiting = sum(self.next) - sum(self.first)
        self._fresh: list[deque[Message] | None] = [None] * _LANE_COUNT

    def count(self, lane: Lane) -> int:
        """Give the number of messages in a lane."""
        return self.next[lane] - self.first[lane]

    def push(self, lane: Lane, message: Message) -> None:
        """Add a message at the end of a lane."""
        fresh = self._fresh[lane]
        if fresh is None:
            fresh = self._fresh[lane] = deque()
        fresh.append(message)
        self.next[lane] += 1
        self.waiting += 1

    def pop(self) -> Message:
        """Take the first message of the lane whose turn it is; at least one message must wait."""
        lane = self.turn
        while self.first[lane] == self.next[lane]:
            lane = (lane + 1) % _LANE_COUNT
        self.turn = (lane + 1) % _LANE_COUNT
        self.waiting -= 1
        number = self.first[lane]
        self.first[lane] = number + 1
        fresh = self._fresh[lane]
        if fresh is not None and number >= self.next[lane] - len(fresh):
            return fresh.popleft()
        return self._take_stored(lane, number)

    def take_all(self, lane: Lane) -> list[Message]:
        """Take every message of a lane."""
        taken: list[Message] = []
        fresh = self._fresh[lane]
        stored_end = self.next[lane] - (len(fresh) if fresh is not None else 0)
        for number in range(self.first[lane], stored_end):
            taken.append(self._take_stored(lane, number))
        if fresh is not None:
            taken += fresh
            self._fresh[lane] = None
        self.first[lane] = self.next[lane]
        self.waiting -= len(taken)
        return taken

    def flush(self, account: AccountRecord) -> None:
        """Write the newer part, and where each lane stands, at the end of the round."""
        layer = self._state.layer
        for lane, fresh in enumerate(self._fresh):
            if fresh:
                start = self.next[lane] - len(fresh)
                for offset, message in enumerate(fresh):
                    key = keys.queue_key(self.receiver, lane, start + offset)
                    layer.put(key, records.encode_message(message))
        if self.waiting == 0:
            account.lanes, account.lane_turn = (), 0
            return
        account.lane_turn = self.turn
        bounds: list[int] = []
        for first, following in zip(self.first, self.next, strict=True):
            bounds += (first, following) if first < following else (0, 0)
        account.lanes = tuple(bounds)

    def _take_stored(self, lane: int, number: int) -> Message:
        layer = self._state.layer
        key = keys.queue_key(self.receiver, lane, number)
        data = layer.get(key)
        assert data is not None, "a lane's bounds name only messages that are stored"
        layer.delete(key)
        return records.decode_message(data)


class Scheduler:
    """The ring of receivers that wait for their turn, and their lanes. A receiver stands in it once, while it
    waits and does not have its turn.
    """

    __slots__ = ("_first", "_fresh", "_lanes", "_left", "_next", "_state", "_turn")

    def __init__(self, state: RoundState) -> None:
        self._state = state
        self._first = state.subnet.ring_first
        self._next = state.subnet.ring_next
        self._fresh: deque[bytes] = deque()
        self._lanes: dict[bytes, Lanes] = {}
        # Whose turn it is, and how many more messages it may run.
        self._turn: bytes | None = None
        self._left = 0

    def lanes(self, receiver: bytes, account: AccountRecord) -> Lanes:
        """Give a receiver's lanes."""
        lanes = self._lanes.get(receiver)
        if lanes is None:
            lanes = self._lanes[receiver] = Lanes(self._state, receiver, account)
        return lanes

    def has_room(self, receiver: bytes, account: AccountRecord, lane: Lane, size_bytes: int) -> bool:
        """Say whether a lane takes one more message. Responses and timers always fit: others bound them."""
        if account.queued_bytes + size_bytes > QUEUE_SIZE_BYTES_MAX:
            return False
        count_max = INGRESS_QUEUE_COUNT_MAX if lane == Lane.INGRESS else CALL_QUEUE_COUNT_MAX
        return self.lanes(receiver, account).count(lane) < count_max

    def enqueue(self, receiver: bytes, account: AccountRecord, lane: Lane, message: Message) -> None:
        """Let a message wait. `account` is the round's own."""
        lanes = self.lanes(receiver, account)
        if lanes.waiting == 0 and receiver != self._turn:
            self._stand(receiver)
        lanes.push(lane, message)
        account.queued_bytes += records.message_size_bytes(message)

    def next_message(self) -> tuple[bytes, Message] | None:
        """Take the next message of the receiver whose turn it is; where its turn is over and more waits, it
        goes to the end of the ring.
        """
        while True:
            receiver = self._turn
            if receiver is not None and self._left == 0:
                self._end_turn()
                receiver = None
            if receiver is None:
                if self._first == self._next:
                    return None
                receiver = self._turn = self._pop_receiver()
                self._left = self._messages_per_turn()
            account = self._state.account_for_change(receiver)
            lanes = None if account is None else self.lanes(receiver, account)
            if account is None or lanes is None or lanes.waiting == 0:
                self._turn = None
                continue
            self._left -= 1
            message = lanes.pop()
            account.queued_bytes -= records.message_size_bytes(message)
            return receiver, message

    @property
    def waiting(self) -> bool:
        """Say whether any message waits."""
        return self._first < self._next or (self._turn is not None and self._has_waiting(self._turn))

    def flush(self) -> None:
        """Write lanes and ring at the end of the round."""
        state = self._state
        self._end_turn()
        for receiver, lanes in self._lanes.items():
            account = state.view.account(receiver)
            if account is not None:
                if lanes.waiting or account.lanes:
                    state.changed_accounts[receiver] = None
                lanes.flush(account)
        start = self._next - len(self._fresh)
        for offset, receiver in enumerate(self._fresh):
            state.layer.put(keys.ready_key(start + offset), receiver)
        subnet = state.subnet
        subnet.ring_first, subnet.ring_next = (self._first, self._next) if self.waiting else (0, 0)

    def _stand(self, receiver: bytes) -> None:
        self._fresh.append(receiver)
        self._next += 1

    def _end_turn(self) -> None:
        receiver, self._turn = self._turn, None
        if receiver is not None and self._has_waiting(receiver):
            self._stand(receiver)

    def _messages_per_turn(self) -> int:
        share = self._state.view.config.activation_count_max // TURNS_PER_ROUND_COUNT_MIN
        return max(1, min(share, MESSAGES_PER_TURN_COUNT_MAX))

    def _has_waiting(self, receiver: bytes) -> bool:
        account = self._state.view.account(receiver)
        return account is not None and self.lanes(receiver, account).waiting > 0

    def _pop_receiver(self) -> bytes:
        place = self._first
        self._first += 1
        if place >= self._next - len(self._fresh):
            return self._fresh.popleft()
        key = keys.ready_key(place)
        receiver = self._state.layer.get(key)
        assert receiver is not None, "the ring's bounds name only places that are stored"
        self._state.layer.delete(key)
        return receiver
