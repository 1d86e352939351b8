"""Keys of the state machine: one byte of space, then what the space is ordered by.

A canister id inside a key is length-prefixed (one byte), so that no id is the beginning of another's keys.
Numbers are big-endian. Spaces below `LOCAL_SPACE` are replicated: they belong to `state_hash`; the rest is
each node's own memory of the blocks it ran. `tests/formats/keys.json` holds one example of each. This
module reads no state.
"""

from __future__ import annotations

from struct import Struct

META = 0x01
CANISTERS = 0x02
ACCOUNTS = 0x03
STABLE = 0x04
SCHEMAS = 0x05
TYPES = 0x06
MODULES = 0x07
MODULE_FILES = 0x08
MODULE_USES = 0x09
CHUNKS = 0x0A
HISTORY = 0x0B
LOGS = 0x0C
CERTIFIED = 0x0D
QUEUES = 0x0E
READY = 0x0F
CONTEXTS = 0x10
CALLBACKS = 0x11
PAIRS = 0x12
STREAM_HEADS = 0x13
STREAMS = 0x14
TIMERS = 0x15
DUE = 0x16
STOPS = 0x17
REQUESTS = 0x18
OPERATORS = 0x19
NAMES = 0x1A
SNAPSHOTS = 0x1B
SNAPSHOT_DATA = 0x1C
FLEETS = 0x1D
FLEET_MODULES = 0x1E
FLEET_MEMBERS = 0x1F
FLEET_ROLES = 0x20
FLEET_VALUES = 0x21
UPGRADE_BATCHES = 0x22
UPGRADE_RESULTS = 0x23
EVENTS = 0x24
OUTCALLS = 0x25
OUTCALL_COUNTS = 0x26
SENT_MODULES = 0x27
CREATIONS = 0x28
PEERS = 0x29
FLEETS_AWAY = 0x2A
FLEET_WAITS = 0x2B
FANS = 0x2C
FAN_PARTS = 0x2D
FLEET_LOCALS = 0x2E

LOCAL_SPACE = 0x80
BLOCKS = 0x80
HEAD = 0x81

CONFIG_KEY = bytes((META, 1))
SUBNET_KEY = bytes((META, 2))
HEAD_KEY = bytes((HEAD,))

DUE_TIMER = 1
DUE_STOP = 2
DUE_OUTCALL = 3
DUE_FLEET = 4

MINUTE_NS = 60 * 1_000_000_000

_U64 = Struct(">Q")
_U32 = Struct(">I")
_ID_TAIL = b"\x01\x01"
_CANISTER_ID_SIZE_BYTES = 10


def canister_id(counter: int) -> bytes:
    """Make the canister id with this counter: 8 bytes big-endian, then 0x01 0x01."""
    return _U64.pack(counter) + _ID_TAIL


def snapshot_page_key(owner: bytes, number: int, kind: int, page: int) -> bytes:
    """Give the key of a page of a snapshot: its canister, its number, archive or module, the page."""
    return numbered(SNAPSHOT_DATA, owner, number) + bytes((kind,)) + _U32.pack(page)


def chosen_id_key(counter: int) -> bytes:
    """Give the key that marks a canister id as chosen by an operator; it stays when the canister goes."""
    return bytes((META, 3)) + _U64.pack(counter)


def canister_counter(raw: bytes) -> int | None:
    """Give the counter of a canister id; None for principals of another form."""
    if len(raw) != _CANISTER_ID_SIZE_BYTES or raw[8:] != _ID_TAIL:
        return None
    return int.from_bytes(raw[:8], "big")


def u64(number: int) -> bytes:
    """Give a number as 8 bytes, in the order of numbers."""
    return _U64.pack(number)


def space_range(space: int) -> tuple[bytes, bytes]:
    """Give the bounds of a whole space, for scans and range deletions."""
    return bytes((space,)), bytes((space + 1,))


def owned(space: int, owner: bytes, rest: bytes = b"") -> bytes:
    """Give a key in one of the spaces ordered by canister (or by any other length-prefixed name)."""
    return bytes((space, len(owner))) + owner + rest


def owned_range(space: int, owner: bytes) -> tuple[bytes, bytes]:
    """Give the bounds of what one canister has in a space."""
    start = bytes((space, len(owner))) + owner
    return start, after_prefix(start)


def after_prefix(prefix: bytes) -> bytes:
    """Give the first key behind all keys that begin with `prefix`."""
    number = int.from_bytes(prefix, "big") + 1
    return number.to_bytes(len(prefix), "big")


def numbered(space: int, owner: bytes, number: int) -> bytes:
    """Give the key of an owner's numbered record: a context, callback, timer, log entry."""
    return bytes((space, len(owner))) + owner + _U64.pack(number)


def number_of(key: bytes) -> int:
    """Give the number that ends a key of `numbered`."""
    return int.from_bytes(key[-8:], "big")


def owner_of(key: bytes) -> bytes:
    """Give the owner of a key made by `owned` or `numbered`."""
    return key[2 : 2 + key[1]]


def hashed(space: int, name: bytes) -> bytes:
    """Give a key of a space ordered by bytes of one fixed or final length: module hash, type number,
    principal.
    """
    return bytes((space,)) + name


def queue_key(receiver: bytes, lane: int, number: int) -> bytes:
    """Give the key of a waiting message: its receiver, its lane, its place in the lane."""
    return bytes((QUEUES, len(receiver))) + receiver + bytes((lane,)) + _U64.pack(number)


def ready_key(turn: int) -> bytes:
    """Give the key of a place in the ring of canisters that wait for their turn."""
    return bytes((READY,)) + _U64.pack(turn)


def fleet_role_key(fleet: bytes, role: str, principal: bytes = b"") -> bytes:
    """Give the key that says that a principal has a role in a fleet; without one, where the role's begin."""
    name = role.encode()
    return owned(FLEET_ROLES, fleet, bytes((len(name),)) + name + principal)


def pair_key(caller: bytes, callee: bytes) -> bytes:
    """Give the key of the count of calls in flight from one canister to another."""
    return bytes((PAIRS, len(caller))) + caller + bytes((len(callee),)) + callee


def stream_head_key(subnet: int) -> bytes:
    """Give the key of a stream's counters; streams are known by the number of the destination subnet."""
    return bytes((STREAM_HEADS,)) + _U64.pack(subnet)


def stream_key(subnet: int, sequence: int) -> bytes:
    """Give the key of a message in the stream to a subnet."""
    return bytes((STREAMS,)) + _U64.pack(subnet) + _U64.pack(sequence)


def sent_module_key(subnet: int, module_hash: bytes) -> bytes:
    """Give the key that says that a module is on its way to a subnet, or there."""
    return bytes((SENT_MODULES,)) + _U64.pack(subnet) + module_hash


def peer_key(subnet: int) -> bytes:
    """Give the key of what is known of another subnet."""
    return bytes((PEERS,)) + _U64.pack(subnet)


def due_key(due_ns: int, kind: int, owner: bytes, number: int) -> bytes:
    """Give the key under which something falls due: a timer, a stop or an outcall, of one canister, by
    number.
    """
    return bytes((DUE,)) + _U64.pack(due_ns) + bytes((kind, len(owner))) + owner + _U64.pack(number)


def parse_due_key(key: bytes) -> tuple[int, int, bytes, int]:
    """Take a key of `due_key` apart: time, kind, canister, number."""
    return int.from_bytes(key[1:9], "big"), key[9], key[11:-8], int.from_bytes(key[-8:], "big")


def due_range(until_ns: int) -> tuple[bytes, bytes]:
    """Give the bounds of all that falls due up to and including this time."""
    return bytes((DUE,)), bytes((DUE,)) + _U64.pack(until_ns + 1)


def minute_of(expiry_ns: int) -> int:
    """Give the minute that an expiry falls into; request statuses are pruned by whole minutes."""
    return min(expiry_ns // MINUTE_NS, 0xFFFF_FFFF)


def request_key(expiry_ns: int, request_id: bytes) -> bytes:
    """Give the key of a request's status: the minute of its expiry, then its id."""
    return bytes((REQUESTS,)) + _U32.pack(minute_of(expiry_ns)) + request_id


def request_minute_start(minute: int) -> bytes:
    """Give the first possible key of the request statuses whose expiry falls into a minute."""
    return bytes((REQUESTS,)) + _U32.pack(minute)


def block_key(number: int) -> bytes:
    """Give the key of a block."""
    return bytes((BLOCKS,)) + _U64.pack(number)
