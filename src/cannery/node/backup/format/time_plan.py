"""Points in time: which states the backups of a node can be brought to, and from which to begin.

A backup of a node holds its state at a block and the blocks before it that the node had kept. Where a later
backup holds all blocks since an earlier one (`BackupHead.follows`), the earlier one's state can be brought
to any block between the two. This module replays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cannery.node.backup.format.manifest import BackupHead


@dataclass(frozen=True, slots=True)
class Span:
    """Blocks without a gap, from the state of one backup to that of another (or the same)."""

    first: BackupHead
    last: BackupHead


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """The backup to begin with; the one whose blocks lead on, None where nothing is replayed; the block to
    stop behind, None for a time.
    """

    start: BackupHead
    blocks: BackupHead | None
    until_block: int | None = None
    until_ns: int | None = None

    def of(self, subnet: int) -> ReplayPlan:
        """Give the plan for one subnet of the node."""
        blocks = None if self.blocks is None else self.blocks.of(subnet)
        return ReplayPlan(self.start.of(subnet), blocks, self.until_block, self.until_ns)


def plan_spans(heads: Iterable[BackupHead]) -> list[Span]:
    """Give the spans of blocks that the backups of nodes reach, in order; backups without blocks between
    them stand alone.
    """
    nodes = sorted(
        (head for head in heads if head.is_node), key=lambda head: (head.block.number, head.number)
    )
    spans: list[Span] = []
    for head in nodes:
        for at, span in enumerate(spans):
            if span.last.number in head.follows:
                spans[at] = Span(span.first, head)
                break
        else:
            spans.append(Span(head, head))
    return spans


def plan_block(heads: Sequence[BackupHead], wanted: int) -> ReplayPlan | None:
    """Plan how to get the state after a block; None where no backups reach it. Newer backups come first. A
    number of a block is one of a subnet, so that nodes of several have only times.
    """
    nodes = sorted(
        (head for head in heads if head.is_node and head.subnet_count == 1),
        key=lambda head: head.number,
        reverse=True,
    )
    for head in nodes:
        if head.block.number == wanted:
            return ReplayPlan(head, None, until_block=wanted)
    for later in nodes:
        start = _start_for(nodes, later, lambda head: head.block.number <= wanted)
        if start is not None and later.block.number >= wanted:
            return ReplayPlan(start, later, until_block=wanted)
    return None


def plan_time(heads: Sequence[BackupHead], wanted_ns: int) -> ReplayPlan | None:
    """Plan how to get the last state that was there at a time; None where no backups reach it."""
    nodes = sorted((head for head in heads if head.is_node), key=lambda head: head.number, reverse=True)
    for head in nodes:
        # Nothing happened between the last block and the backup.
        if head.last_ns <= wanted_ns <= max(head.made_ns, head.last_ns):
            return ReplayPlan(head, None, until_ns=wanted_ns)
    for later in nodes:
        start = _start_for(nodes, later, lambda head: head.last_ns <= wanted_ns)
        if start is not None and later.last_ns >= wanted_ns:
            return ReplayPlan(start, later, until_ns=wanted_ns)
    return None


def _start_for(
    nodes: Sequence[BackupHead], later: BackupHead, reaches: Callable[[BackupHead], bool]
) -> BackupHead | None:
    """Give the latest state from which a backup's blocks lead on and that is not behind what is wanted."""
    starts = [head for head in nodes if head.number in later.follows and reaches(head)]
    return max(starts, key=lambda head: head.block.number, default=None)
