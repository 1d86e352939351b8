"""Labelled Merkle trees: build, prune to what a reader asked for, look up, encode and decode.

IC interface specification, sections "Certification", "Lookup" and "Encoding of certificates". Every node
knows its digest from the start, so pruning and signing hash nothing twice. Signatures are in `certificate`;
the tree that all answers of a round share has a faster way in `round_tree`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import TypeAlias

from cannery.errors import DecodeError
from cannery.limits import HASH_TREE_DEPTH_MAX
from cannery.protocol.cbor import CborError, decode_any_keys

DIGEST_SIZE_BYTES = 32

_EMPTY_DOMAIN = b"\x11ic-hashtree-empty"
_FORK_DOMAIN = b"\x10ic-hashtree-fork"
_LABELED_DOMAIN = b"\x13ic-hashtree-labeled"
_LEAF_DOMAIN = b"\x10ic-hashtree-leaf"

Path: TypeAlias = Sequence[bytes]
LabelledData: TypeAlias = "bytes | Mapping[bytes, LabelledData]"


class HashTreeError(DecodeError):
    """Bytes are not a well-formed hash tree within the bounds."""


# --- nodes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Empty:
    """Hold nothing."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Fork:
    """Join two trees, all labels of the left one below those of the right one."""

    left: HashTree
    right: HashTree
    digest: bytes


@dataclass(frozen=True, slots=True)
class Labeled:
    """Put a tree under a label."""

    label: bytes
    subtree: HashTree
    digest: bytes


@dataclass(frozen=True, slots=True)
class Leaf:
    """Hold a value."""

    value: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Pruned:
    """Stand for a tree of which only the digest is shown."""

    digest: bytes


HashTree: TypeAlias = Empty | Fork | Labeled | Leaf | Pruned

EMPTY = Empty(sha256(_EMPTY_DOMAIN).digest())


def fork(left: HashTree, right: HashTree) -> Fork:
    """Join two trees."""
    return Fork(left, right, fork_digest(left.digest, right.digest))


def labeled(label: bytes, subtree: HashTree) -> Labeled:
    """Put a tree under a label."""
    return Labeled(label, subtree, labeled_digest(label, subtree.digest))


def leaf(value: bytes) -> Leaf:
    """Make a leaf of a value."""
    return Leaf(value, leaf_digest(value))


def pruned(digest: bytes) -> Pruned:
    """Show only the digest of a tree."""
    assert len(digest) == DIGEST_SIZE_BYTES, "a digest is a SHA-256"
    return Pruned(digest)


def fork_digest(left: bytes, right: bytes) -> bytes:
    return sha256(_FORK_DOMAIN + left + right).digest()


def labeled_digest(label: bytes, subtree: bytes) -> bytes:
    return sha256(_LABELED_DOMAIN + label + subtree).digest()


def leaf_digest(value: bytes) -> bytes:
    return sha256(_LEAF_DOMAIN + value).digest()


# --- building -------------------------------------------------------------------------------------


def build_tree(data: LabelledData) -> HashTree:
    """Build the balanced tree of nested maps from labels to values; an empty map is an empty tree."""
    if isinstance(data, bytes):
        return leaf(data)
    return _balance([labeled(label, build_tree(data[label])) for label in sorted(data)])


def _balance(forest: Sequence[HashTree]) -> HashTree:
    if not forest:
        return EMPTY
    if len(forest) == 1:
        return forest[0]
    middle = len(forest) // 2
    return fork(_balance(forest[:middle]), _balance(forest[middle:]))


# --- pruning --------------------------------------------------------------------------------------


def prune(tree: HashTree, paths: Iterable[Path]) -> HashTree:
    """Keep what proves each path present (with all beneath it) or absent; the root's digest stays."""
    return _prune_tree(tree, [tuple(path) for path in paths])


def _prune_tree(tree: HashTree, paths: list[tuple[bytes, ...]]) -> HashTree:
    if () in paths:
        return tree
    if not paths or isinstance(tree, Pruned):
        return Pruned(tree.digest)
    if isinstance(tree, (Empty, Leaf)):
        return tree
    wanted: dict[bytes, list[tuple[bytes, ...]]] = {}
    for path in paths:
        wanted.setdefault(path[0], []).append(path[1:])
    shown = dict(wanted)
    labels = _labels(tree)
    for label in wanted.keys() - set(labels):
        for neighbour in _neighbours(labels, label):
            shown.setdefault(neighbour, [])
    return _prune_forest(tree, shown)[0]


class _Part(IntEnum):
    """What became of a part of a forest; the greater of two is what became of their fork."""

    VACANT = 0
    CUT = 1
    SHOWN = 2


def _prune_forest(tree: HashTree, shown: Mapping[bytes, list[tuple[bytes, ...]]]) -> tuple[HashTree, _Part]:
    """Keep the labels in `shown`, with the paths beneath each; cut branches that hold none of them.

    A branch of nothing but empty trees stays: a digest in its place would hide that no label is there.
    """
    if isinstance(tree, Labeled):
        if tree.label not in shown:
            return Pruned(tree.digest), _Part.CUT
        return Labeled(tree.label, _prune_tree(tree.subtree, shown[tree.label]), tree.digest), _Part.SHOWN
    if isinstance(tree, Fork):
        left, left_part = _prune_forest(tree.left, shown)
        right, right_part = _prune_forest(tree.right, shown)
        part = max(left_part, right_part)
        return (Pruned(tree.digest) if part is _Part.CUT else Fork(left, right, tree.digest)), part
    return tree, _Part.VACANT if isinstance(tree, Empty) else _Part.CUT


def _neighbours(labels: Sequence[bytes], absent: bytes) -> list[bytes]:
    below = [label for label in labels if label < absent][-1:]
    above = [label for label in labels if label > absent][:1]
    return below + above


def _labels(tree: HashTree) -> list[bytes]:
    return [node.label for node in _flatten_forks(tree) if isinstance(node, Labeled)]


def _flatten_forks(tree: HashTree) -> list[Labeled | Leaf | Pruned]:
    flat: list[Labeled | Leaf | Pruned] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, Fork):
            pending.append(node.right)
            pending.append(node.left)
        elif not isinstance(node, Empty):
            flat.append(node)
    return flat


# --- looking up -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """The path leads to this value."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Absent:
    """The tree proves that the path is not there."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The tree does not show whether the path is there: that part is pruned."""


@dataclass(frozen=True, slots=True)
class Inner:
    """The path is there and leads to no value: labels or a fork (`Error` in the specification)."""


Lookup: TypeAlias = Found | Absent | Unknown | Inner


def lookup(tree: HashTree, path: Path) -> Lookup:
    """Look a value up in a well-formed tree."""
    found = lookup_subtree(tree, path)
    if isinstance(found, (Absent, Unknown)):
        return found
    if isinstance(found, Leaf):
        return Found(found.value)
    if isinstance(found, Empty):
        return Absent()
    return Unknown() if isinstance(found, Pruned) else Inner()


def lookup_subtree(tree: HashTree, path: Path) -> HashTree | Absent | Unknown:
    """Find the tree at a path."""
    node = tree
    for label in path:
        found = _find_label(node, label)
        if isinstance(found, (Absent, Unknown)):
            return found
        node = found
    return node


def child_labels(tree: HashTree, path: Path) -> tuple[bytes, ...]:
    """List the labels that the tree shows directly beneath a path; none where it shows none."""
    found = lookup_subtree(tree, path)
    if isinstance(found, (Absent, Unknown)):
        return ()
    return tuple(_labels(found))


def _find_label(tree: HashTree, label: bytes) -> HashTree | Absent | Unknown:
    forest = _flatten_forks(tree)
    if not forest or (len(forest) == 1 and isinstance(forest[0], Leaf)):
        return Absent()
    below_is_label = True  # the left border of the forest proves as much as a smaller label does
    for node in forest:
        if not isinstance(node, Labeled):
            below_is_label = False
        elif node.label < label:
            below_is_label = True
        elif node.label == label:
            return node.subtree
        else:
            return Absent() if below_is_label else Unknown()
    return Absent() if below_is_label else Unknown()


# --- encoding -------------------------------------------------------------------------------------


def encode_tree(tree: HashTree) -> bytes:
    """Encode a tree as CBOR arrays."""
    parts: list[bytes] = []
    pending: list[HashTree] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, Fork):
            parts.append(b"\x83\x01")
            pending.append(node.right)
            pending.append(node.left)
        elif isinstance(node, Labeled):
            parts.append(b"\x83\x02" + encode_blob(node.label))
            pending.append(node.subtree)
        elif isinstance(node, Leaf):
            parts.append(b"\x82\x03" + encode_blob(node.value))
        elif isinstance(node, Pruned):
            parts.append(b"\x82\x04\x58\x20" + node.digest)
        else:
            parts.append(b"\x81\x00")
    return b"".join(parts)


def encode_blob(value: bytes) -> bytes:
    """Encode a CBOR byte string."""
    return encode_blob_head(len(value)) + value


def encode_blob_head(size: int) -> bytes:
    """Encode what stands before the bytes of a CBOR byte string."""
    if size < 24:
        return bytes((0x40 | size,))
    if size < 256:
        return bytes((0x58, size))
    if size < 65_536:
        return b"\x59" + size.to_bytes(2, "big")
    if size < 2**32:
        return b"\x5a" + size.to_bytes(4, "big")
    return b"\x5b" + size.to_bytes(8, "big")


def decode_tree(data: bytes) -> HashTree:
    """Read a well-formed tree from its CBOR bytes."""
    try:
        value, _tagged = decode_any_keys(data, HASH_TREE_DEPTH_MAX)
    except CborError as error:
        raise HashTreeError(f"a hash tree is CBOR: {error}") from None
    return parse_tree(value)


def parse_tree(value: object) -> HashTree:
    """Read a well-formed tree from decoded CBOR arrays, which are at most `HASH_TREE_DEPTH_MAX` deep."""
    tree = _parse_node(value)
    _check_well_formed(tree)
    return tree


def _parse_node(value: object) -> HashTree:
    if type(value) is not list or not value or type(value[0]) is not int:
        raise HashTreeError("a node of a hash tree is an array that begins with its kind, 0 to 4")
    kind, size = value[0], len(value)
    if kind == 1 and size == 3:
        return fork(_parse_node(value[1]), _parse_node(value[2]))
    if kind == 2 and size == 3:
        return labeled(_parse_blob(value[1], "label"), _parse_node(value[2]))
    if kind == 3 and size == 2:
        return leaf(_parse_blob(value[1], "value"))
    if kind == 4 and size == 2:
        digest = _parse_blob(value[1], "digest")
        if len(digest) != DIGEST_SIZE_BYTES:
            raise HashTreeError(f"a digest has {DIGEST_SIZE_BYTES} bytes, not {len(digest)}")
        return Pruned(digest)
    if kind == 0 and size == 1:
        return EMPTY
    raise HashTreeError("a node of a hash tree has a kind from 0 to 4 and as many parts as that kind has")


def _parse_blob(value: object, what: str) -> bytes:
    if type(value) is not bytes:
        raise HashTreeError(f"the {what} of a hash tree's node is a blob")
    return value


def _check_well_formed(tree: HashTree) -> None:
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, Leaf):
            continue
        forest = _flatten_forks(node)
        last: bytes | None = None
        for part in forest:
            if isinstance(part, Leaf):
                raise HashTreeError("a hash tree has a value among labels")
            if isinstance(part, Labeled):
                if last is not None and part.label <= last:
                    raise HashTreeError("the labels of a hash tree must rise strictly")
                last = part.label
                pending.append(part.subtree)
