"""Keys of stable collections: one order-preserving, prefix-free encoding for each key type.

The format is Cannery's own; golden keys stand in tests/formats/stable_keys.json. Order of the bytes is the
order of the values; no key is a prefix of another, so that keys concatenate into tuples and scans need no
separator.

    bool            one byte, 00 or 01
    natN            N/8 bytes, big-endian
    intN            N/8 bytes, big-endian, the sign bit flipped
    nat             length of the magnitude (one byte), magnitude big-endian; up to 254 bytes
    int             80+length, magnitude of n; or 7f-length, complement of -1-n; up to 127 bytes
    text, blob      UTF-8 or raw bytes with 00 written as 00 ff, then 00 00
    principal       length (one byte), raw bytes: shorter ones sort first
    tuple, record   the parts one after the other, a record's in the order of its class

This module knows nothing of collections, stores or values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from cannery import limits
from cannery.candid import types as ct
from cannery.candid.binding import binding_of, record_builder
from cannery.errors import DecodeError
from cannery.protocol.principal import Principal


class KeyTypeError(TypeError):
    """A type cannot be a key, or a value is not of the key's type."""


class StoredKeyError(DecodeError):
    """Bytes are not a key of this type."""


# A value read at a position, and the position after it.
Part = tuple[object, int]


@dataclass(frozen=True, slots=True)
class KeyCodec:
    """Encode and decode the keys of one type.

    `shape` names what the bytes mean, field names included: two key types with equal shapes share their bytes
    and their meaning. `start` encodes what a range of keys begins with: the leading parts of a tuple or
    record, or the beginning of a text or blob.
    """

    shape: str
    encode: Callable[[object], bytes]
    read: Callable[[bytes, int], Part]
    start: Callable[[object], bytes]

    def decode(self, data: bytes, at: int = 0) -> object:
        """Read the one key that fills `data` from `at` on; raise StoredKeyError where it does not."""
        value, end = self.read(data, at)
        if end != len(data):
            raise StoredKeyError(f"{len(data) - end} bytes follow a key of type {self.shape}")
        return value


def key_codec(type_: ct.Type) -> KeyCodec:
    """Compile the codec of a key type; raise KeyTypeError where a type cannot be a key."""
    codec = _codec(type_, 0)
    encode = codec.encode

    def encode_bounded(value: object) -> bytes:
        data = encode(value)
        if len(data) > limits.STABLE_KEY_SIZE_BYTES_MAX:
            raise ValueError(
                f"a key of {len(data)} bytes is longer than {limits.STABLE_KEY_SIZE_BYTES_MAX} bytes: "
                "use a hash of it as the key"
            )
        return data

    if codec.shape in _FIXED_SHAPES:
        return codec
    return KeyCodec(codec.shape, encode_bounded, codec.read, codec.start)


def _codec(type_: ct.Type, depth: int) -> KeyCodec:
    if depth > limits.STABLE_KEY_DEPTH_MAX:
        raise KeyTypeError(f"a key type nests at most {limits.STABLE_KEY_DEPTH_MAX} tuples")
    while isinstance(type_, ct.Rec):
        depth += 1
        if depth > limits.STABLE_KEY_DEPTH_MAX:
            raise KeyTypeError("a recursive type cannot be a key")
        type_ = _unfold(type_)
    match type_:
        case ct.Bool():
            return _bool_codec()
        case ct.Nat8() | ct.Nat16() | ct.Nat32() | ct.Nat64():
            return _nat_codec(int(type(type_).__name__[3:]))
        case ct.Int8() | ct.Int16() | ct.Int32() | ct.Int64():
            return _int_codec(int(type(type_).__name__[3:]))
        case ct.Nat():
            return _big_nat_codec()
        case ct.Int():
            return _big_int_codec()
        case ct.Text():
            return _text_codec()
        case ct.Vec(inner=ct.Nat8()):
            return _blob_codec()
        case ct.PrincipalType():
            return _principal_codec()
        case ct.Record():
            return _record_codec(type_, depth)
        case _:
            raise KeyTypeError(
                f"{type(type_).__name__.lower()} cannot be a key: use bool, an integer type, str, bytes, "
                "Principal, or a tuple or record of them"
            )


def _unfold(type_: ct.Rec) -> ct.Type:
    inner = type_.env[type_.name]
    while isinstance(inner, ct.Ref):
        inner = type_.env[inner.name]
    return _close(inner, type_.env)


def _close(type_: ct.Type, env: ct.Env) -> ct.Type:
    if isinstance(type_, ct.Ref):
        return ct.Rec(type_.name, env)
    return ct.map_children(type_, lambda t: _close(t, env))


def _no_start(shape: str) -> Callable[[object], bytes]:
    def start(_value: object) -> bytes:
        raise KeyTypeError(f"a key of type {shape} has no leading part to scan by: use start= and end=")

    return start


def _is_int(value: object, shape: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise KeyTypeError(f"a key of type {shape} is an int, got {type(value).__name__}")


def _bool_codec() -> KeyCodec:
    def encode(value: object) -> bytes:
        if not isinstance(value, bool):
            raise KeyTypeError(f"a key of type bool is a bool, got {type(value).__name__}")
        return b"\x01" if value else b"\x00"

    def read(data: bytes, at: int) -> Part:
        byte = data[at : at + 1]
        if byte not in (b"\x00", b"\x01"):
            raise StoredKeyError("a bool key is one byte, 00 or 01")
        return byte == b"\x01", at + 1

    return KeyCodec("bool", encode, read, _no_start("bool"))


def _nat_codec(bits: int) -> KeyCodec:
    shape, size = f"nat{bits}", bits // 8

    def encode(value: object) -> bytes:
        number = value if type(value) is int else _is_int(value, shape)
        try:
            return number.to_bytes(size, "big")
        except OverflowError:
            raise ValueError(f"{number} is no {shape}") from None

    def read(data: bytes, at: int) -> Part:
        end = at + size
        if end > len(data):
            raise StoredKeyError(f"a {shape} key is {size} bytes")
        return int.from_bytes(data[at:end], "big"), end

    return KeyCodec(shape, encode, read, _no_start(shape))


def _int_codec(bits: int) -> KeyCodec:
    shape, size = f"int{bits}", bits // 8
    offset = 1 << (bits - 1)

    def encode(value: object) -> bytes:
        number = value if type(value) is int else _is_int(value, shape)
        try:
            return (number + offset).to_bytes(size, "big")
        except OverflowError:
            raise ValueError(f"{number} is no {shape}") from None

    def read(data: bytes, at: int) -> Part:
        end = at + size
        if end > len(data):
            raise StoredKeyError(f"an {shape} key is {size} bytes")
        return int.from_bytes(data[at:end], "big") - offset, end

    return KeyCodec(shape, encode, read, _no_start(shape))


def _big_nat_codec() -> KeyCodec:
    def encode(value: object) -> bytes:
        number = _is_int(value, "nat")
        size = (number.bit_length() + 7) // 8
        if number < 0 or size > _NAT_SIZE_BYTES_MAX:
            raise ValueError(f"a nat key is between 0 and 2^{8 * _NAT_SIZE_BYTES_MAX}-1")
        return bytes((size,)) + number.to_bytes(size, "big")

    def read(data: bytes, at: int) -> Part:
        size = _byte_at(data, at, "nat")
        body = data[at + 1 : at + 1 + size]
        if len(body) != size or size > _NAT_SIZE_BYTES_MAX or body[:1] == b"\x00":
            raise StoredKeyError("a nat key is its length, then that many bytes, the first not zero")
        return int.from_bytes(body, "big"), at + 1 + size

    return KeyCodec("nat", encode, read, _no_start("nat"))


def _big_int_codec() -> KeyCodec:
    def encode(value: object) -> bytes:
        number = _is_int(value, "int")
        magnitude = number if number >= 0 else -1 - number
        size = (magnitude.bit_length() + 7) // 8
        if size > _INT_SIZE_BYTES_MAX:
            raise ValueError(
                f"an int key is between -2^{8 * _INT_SIZE_BYTES_MAX} and 2^{8 * _INT_SIZE_BYTES_MAX}-1"
            )
        body = magnitude.to_bytes(size, "big")
        if number >= 0:
            return bytes((0x80 + size,)) + body
        return bytes((0x7F - size,)) + body.translate(_COMPLEMENT)

    def read(data: bytes, at: int) -> Part:
        head = _byte_at(data, at, "int")
        negative = head < 0x80
        size = 0x7F - head if negative else head - 0x80
        body = data[at + 1 : at + 1 + size]
        if negative:
            body = body.translate(_COMPLEMENT)
        if len(body) != size or size > _INT_SIZE_BYTES_MAX or body[:1] == b"\x00":
            raise StoredKeyError(
                "an int key is its sign and length, then that many bytes, the first not zero"
            )
        number = int.from_bytes(body, "big")
        return (-1 - number if negative else number), at + 1 + size

    return KeyCodec("int", encode, read, _no_start("int"))


def _text_codec() -> KeyCodec:
    def start(value: object) -> bytes:
        if not isinstance(value, str):
            raise KeyTypeError(f"a key of type text is a str, got {type(value).__name__}")
        return value.encode().replace(b"\x00", b"\x00\xff")

    def encode(value: object) -> bytes:
        return start(value) + _END

    def read(data: bytes, at: int) -> Part:
        raw, end = _read_escaped(data, at)
        try:
            return raw.decode(), end
        except UnicodeDecodeError:
            raise StoredKeyError("a text key is not UTF-8") from None

    return KeyCodec("text", encode, read, start)


def _blob_codec() -> KeyCodec:
    def start(value: object) -> bytes:
        if not isinstance(value, bytes):
            raise KeyTypeError(f"a key of type blob is bytes, got {type(value).__name__}")
        return value.replace(b"\x00", b"\x00\xff")

    def encode(value: object) -> bytes:
        return start(value) + _END

    return KeyCodec("blob", encode, _read_escaped, start)


def _principal_codec() -> KeyCodec:
    def encode(value: object) -> bytes:
        if not isinstance(value, Principal):
            raise KeyTypeError(f"a key of type principal is a Principal, got {type(value).__name__}")
        raw = value.raw
        return bytes((len(raw),)) + raw

    def read(data: bytes, at: int) -> Part:
        end = at + 1 + _byte_at(data, at, "principal")
        if end > len(data):
            raise StoredKeyError("a principal key is its length, then that many bytes")
        try:
            return Principal(data[at + 1 : end]), end
        except DecodeError as error:
            raise StoredKeyError(f"a principal key does not hold a principal: {error}") from None

    return KeyCodec("principal", encode, read, _no_start("principal"))


def _record_codec(type_: ct.Record, depth: int) -> KeyCodec:
    if not type_.fields:
        raise KeyTypeError("a key needs at least one part")
    bound = type_.bound
    if bound is None and not type_.is_tuple:
        raise KeyTypeError("a record key is declared with @record, so that its parts have an order")
    by_label = {f.label: f.type for f in type_.fields}
    labels = list(by_label) if bound is None else _declared_order(bound, by_label)
    codecs = tuple(_codec(by_label[label], depth + 1) for label in labels)
    if bound is None:
        shape = "(" + "; ".join(c.shape for c in codecs) + ")"
    else:
        shape = "{" + "; ".join(f"{n} {c.shape}" for n, c in zip(labels, codecs, strict=True)) + "}"
    return _parts_codec(shape, bound, tuple(labels), codecs)


def _declared_order(bound: type, by_label: dict[str, ct.Type]) -> list[str]:
    """Return the fields of a record class in the order in which the class declares them."""
    binding = binding_of(bound)
    labels = {binding.attribute(label): label for label in by_label}
    return [labels[field.name] for field in fields(bound)]


def _parts_codec(
    shape: str, bound: type | None, labels: tuple[str, ...], codecs: tuple[KeyCodec, ...]
) -> KeyCodec:
    encoders = tuple(c.encode for c in codecs)
    readers = tuple(c.read for c in codecs)
    attributes = () if bound is None else tuple(binding_of(bound).attribute(label) for label in labels)
    build = tuple if bound is None else record_builder(bound, labels)

    def parts_of(value: object) -> tuple[object, ...]:
        if bound is not None and isinstance(value, bound):
            return tuple([getattr(value, name) for name in attributes])
        if bound is None and isinstance(value, tuple):
            return value
        raise KeyTypeError(
            f"a key of type {shape} is a {'tuple' if bound is None else bound.__name__}, got {value!r:.100}"
        )

    def encode(value: object) -> bytes:
        parts = parts_of(value)
        if len(parts) != len(encoders):
            raise KeyTypeError(f"a key of type {shape} has {len(encoders)} parts, got {len(parts)}")
        return b"".join([encoder(part) for encoder, part in zip(encoders, parts, strict=True)])

    def read(data: bytes, at: int) -> Part:
        parts = []
        for reader in readers:
            part, at = reader(data, at)
            parts.append(part)
        return build(parts), at

    def start(value: object) -> bytes:
        parts = value if isinstance(value, tuple) else (value,)
        if len(parts) > len(encoders):
            raise KeyTypeError(f"a key of type {shape} has {len(encoders)} parts, got {len(parts)}")
        return b"".join([encoder(part) for encoder, part in zip(encoders, parts, strict=False)])

    return KeyCodec(shape, encode, read, start)


def _byte_at(data: bytes, at: int, shape: str) -> int:
    if at >= len(data):
        raise StoredKeyError(f"a {shape} key is missing")
    return data[at]


def _read_escaped(data: bytes, at: int) -> tuple[bytes, int]:
    parts = []
    while True:
        zero = data.find(b"\x00", at)
        follower = data[zero + 1 : zero + 2]
        if zero < 0 or follower not in (b"\x00", b"\xff"):
            raise StoredKeyError("a text or blob key does not end with 00 00")
        if follower == b"\x00":
            parts.append(data[at:zero])
            return b"".join(parts), zero + 2
        parts.append(data[at : zero + 1])
        at = zero + 2


def next_prefix(prefix: bytes) -> bytes | None:
    """Return the first bytes after everything that begins with `prefix`; None where nothing comes after."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes((stripped[-1] + 1,))


_END = b"\x00\x00"
_NAT_SIZE_BYTES_MAX = 254
_INT_SIZE_BYTES_MAX = 127
_COMPLEMENT = bytes(255 - byte for byte in range(256))
_FIXED_SHAPES = frozenset(
    {"bool", "principal", "nat", "int"}
    | {f"{sign}{bits}" for sign in ("nat", "int") for bits in (8, 16, 32, 64)}
)
