"""Hash trees: the specification's example, and the laws of pruning, looking up and encoding."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.limits import HASH_TREE_DEPTH_MAX
from cannery.protocol.hash_tree import (
    EMPTY,
    Absent,
    Found,
    HashTree,
    HashTreeError,
    Inner,
    LabelledData,
    Lookup,
    Pruned,
    Unknown,
    build_tree,
    child_labels,
    decode_tree,
    encode_blob,
    encode_tree,
    fork,
    labeled,
    leaf,
    lookup,
    prune,
    pruned,
)

EXAMPLE = fork(
    fork(
        labeled(b"a", fork(fork(labeled(b"x", leaf(b"hello")), EMPTY), labeled(b"y", leaf(b"world")))),
        labeled(b"b", leaf(b"good")),
    ),
    fork(labeled(b"c", EMPTY), labeled(b"d", leaf(b"morning"))),
)
EXAMPLE_ROOT = "eb5c5b2195e62d996b84c9bcc8259d19a83786a2f59e0878cec84c811f669aa0"
EXAMPLE_CBOR = (
    "8301830183024161830183018302417882034568656c6c6f810083024179820345776f726c6483024162820344676f6f64"
    "8301830241638100830241648203476d6f726e696e67"
)
PRUNED_CBOR = (
    "83018301830241618301820458201b4feff9bef8131788b0c9dc6dbad6e81e524249c879e9f10f71ce3749f5a638830241"
    "79820345776f726c6483024162820458207b32ac0c6ba8ce35ac82c255fc7906f7fc130dab2a090f80fe12f9c2cae83ba6"
    "830182045820ec8324b8a1f1ac16bd2e806edba78006479c9877fed4eb464a25485465af601d830241648203476d6f726e"
    "696e67"
)

labels = st.binary(max_size=2)
data_trees: st.SearchStrategy[LabelledData] = st.recursive(
    st.binary(max_size=6),
    lambda inner: st.dictionaries(labels, inner, max_size=5),
    max_leaves=20,
)
paths = st.lists(st.lists(labels, max_size=4).map(tuple), max_size=5)


def test_the_specifications_example() -> None:
    assert EXAMPLE.digest.hex() == EXAMPLE_ROOT
    assert encode_tree(EXAMPLE).hex() == EXAMPLE_CBOR
    assert decode_tree(bytes.fromhex(EXAMPLE_CBOR)) == EXAMPLE


def test_the_specifications_example_pruned() -> None:
    tree = prune(EXAMPLE, [(b"a", b"y"), (b"ax",), (b"d",)])
    assert tree.digest.hex() == EXAMPLE_ROOT
    assert encode_tree(tree).hex() == PRUNED_CBOR
    answers: dict[tuple[bytes, ...], Lookup] = {
        (b"a", b"a"): Unknown(),
        (b"a", b"y"): Found(b"world"),
        (b"aa",): Absent(),
        (b"ax",): Absent(),
        (b"b",): Unknown(),
        (b"bb",): Unknown(),
        (b"d",): Found(b"morning"),
        (b"e",): Absent(),
        (b"a",): Inner(),
        (b"d", b"x"): Absent(),
    }
    assert {path: lookup(tree, path) for path in answers} == answers


def _in_data(data: LabelledData, path: tuple[bytes, ...]) -> Lookup:
    """Say what the unpruned data hold at a path: the law's other side, without trees."""
    node: LabelledData = data
    for label in path:
        if isinstance(node, bytes) or label not in node:
            return Absent()
        node = node[label]
    if isinstance(node, bytes):
        return Found(node)
    return Inner() if node else Absent()


@given(data_trees, paths)
def test_an_unpruned_tree_answers_everything(data: LabelledData, wanted: list[tuple[bytes, ...]]) -> None:
    tree = build_tree(data)
    for path in wanted:
        assert lookup(tree, path) == _in_data(data, path)


@given(data_trees, paths, st.lists(labels, max_size=4).map(tuple))
def test_pruning_keeps_the_root_and_the_answers(
    data: LabelledData, wanted: list[tuple[bytes, ...]], other: tuple[bytes, ...]
) -> None:
    tree = build_tree(data)
    shown = prune(tree, wanted)
    assert shown.digest == tree.digest
    assert _recomputed(shown) == tree.digest
    for path in wanted:
        assert lookup(shown, path) == _in_data(data, path)
    assert lookup(shown, other) in (_in_data(data, other), Unknown())


@given(data_trees, paths, paths)
def test_pruning_twice_shows_what_both_show(
    data: LabelledData, first: list[tuple[bytes, ...]], second: list[tuple[bytes, ...]]
) -> None:
    tree = prune(prune(build_tree(data), [*first, *second]), second)
    for path in second:
        assert lookup(tree, path) == _in_data(data, path)


@given(data_trees, paths)
def test_encoding_round_trip(data: LabelledData, wanted: list[tuple[bytes, ...]]) -> None:
    tree = prune(build_tree(data), wanted)
    encoded = encode_tree(tree)
    assert decode_tree(encoded) == tree
    assert cbor2.dumps(cbor2.loads(encoded)) == encoded


def _recomputed(tree: HashTree) -> bytes:
    """Compute the digest from the shown parts alone, as a reader of the encoded tree does."""
    return decode_tree(encode_tree(tree)).digest


def test_what_is_not_asked_for_is_not_shown() -> None:
    tree = build_tree({b"a": b"secret", b"b": {b"x": b"secret too", b"y": b"open"}})
    assert b"secret" not in encode_tree(prune(tree, [(b"b", b"y")]))
    assert prune(tree, []) == pruned(tree.digest)
    # The neighbours that prove an absence show their labels and not what is under them.
    proof = prune(tree, [(b"aa",)])
    assert lookup(proof, (b"aa",)) == Absent()
    assert b"secret" not in encode_tree(proof)


@pytest.mark.parametrize(
    "tree",
    [
        EMPTY,
        fork(EMPTY, EMPTY),
        fork(fork(EMPTY, labeled(b"a", leaf(b""))), fork(EMPTY, fork(EMPTY, labeled(b"c", leaf(b""))))),
        fork(labeled(b"a", EMPTY), fork(EMPTY, EMPTY)),
    ],
)
def test_absence_is_proven_next_to_empty_trees(tree: HashTree) -> None:
    proof = prune(tree, [(b"b",), (b"a", b"x")])
    assert lookup(proof, (b"b",)) == Absent()
    assert lookup(proof, (b"a", b"x")) == Absent()
    assert proof.digest == tree.digest


def test_a_pruned_neighbour_proves_nothing() -> None:
    tree = fork(labeled(b"a", leaf(b"1")), fork(pruned(bytes(32)), labeled(b"z", leaf(b"2"))))
    assert lookup(tree, (b"b",)) == Unknown()
    assert lookup(tree, (b"A",)) == Absent()
    assert lookup(tree, (b"zz",)) == Absent()
    assert lookup(fork(pruned(bytes(32)), labeled(b"z", EMPTY)), (b"a",)) == Unknown()
    assert lookup(fork(labeled(b"a", EMPTY), pruned(bytes(32))), (b"z",)) == Unknown()
    assert lookup(Pruned(bytes(32)), (b"a",)) == Unknown()


def test_child_labels() -> None:
    tree = build_tree({b"node": {b"n1": b"", b"n2": b"", b"n3": b""}})
    assert child_labels(tree, (b"node",)) == (b"n1", b"n2", b"n3")
    assert child_labels(prune(tree, [(b"node", b"n2")]), (b"node",)) == (b"n2",)
    assert child_labels(tree, (b"nothing",)) == ()


MALFORMED = {
    "labels fall": [1, [2, b"b", [3, b""]], [2, b"a", [3, b""]]],
    "labels repeat": [1, [2, b"a", [3, b""]], [2, b"a", [3, b""]]],
    "labels fall beneath": [2, b"a", [1, [2, b"b", [0]], [2, b"a", [0]]]],
    "a value among labels": [1, [2, b"a", [0]], [3, b""]],
    "two values": [1, [3, b""], [3, b""]],
    "a short digest": [4, b"short"],
    "an unknown kind": [5, b""],
    "a boolean kind": [True, [0], [0]],
    "a part too many": [0, 0],
    "a part too few": [1, [0]],
    "a text label": [2, "a", [0]],
    "a text value": [3, "a"],
    "no array": 7,
    "an empty array": [],
}


@pytest.mark.parametrize("node", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_trees_are_refused(node: object) -> None:
    with pytest.raises(HashTreeError):
        decode_tree(cbor2.dumps(node))


def test_depth_is_bounded() -> None:
    def chain(depth: int) -> bytes:
        return b"\x83\x02\x41a" * (depth - 1) + b"\x81\x00"

    assert lookup(decode_tree(chain(HASH_TREE_DEPTH_MAX)), (b"b",)) == Absent()
    with pytest.raises(HashTreeError):
        decode_tree(chain(HASH_TREE_DEPTH_MAX + 1))
    with pytest.raises(HashTreeError):
        decode_tree(chain(200_000))


@pytest.mark.parametrize("size", [0, 23, 24, 255, 256, 65_535, 65_536])
def test_blobs_are_encoded_as_cbor(size: int) -> None:
    assert encode_blob(bytes(size)) == cbor2.dumps(bytes(size))
