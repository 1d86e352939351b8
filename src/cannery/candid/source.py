"""Python source under construction: what both generators of codecs share.

Closures per type cost a call and a tuple for each field; generated source reads and writes the fields of a
record in one function, which measured two to three times as fast. So codecs of those types that a process
itself expects are generated and compiled once per type. Nothing from a type enters the source as text, except
numbers, attribute names of Python classes, and labels through `repr`; everything else is passed in as a
constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from cannery.candid.graph import FIXED_FORMATS, NULL, RESERVED, Graph, OptNode, RecordNode, node_refs

T = TypeVar("T")

INLINE_LEVELS_MAX = 4
"""Composite types written into their parent's function; Python bounds the nesting of its blocks."""
CASES_INLINE_COUNT_MAX = 12
"""Cases of a variant that are tested one by one; larger variants get a function per case."""


class Source:
    """Lines of one Python module, its constants, and fresh names."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, object] = {}
        self.indent = 0
        self._names = 0

    def add(self, line: str) -> None:
        """Add a line at the current indentation."""
        self.lines.append("    " * self.indent + line)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Add a head such as `if x:` and indent what follows."""
        self.add(head)
        self.indent += 1
        yield
        self.indent -= 1

    def name(self, prefix: str = "v") -> str:
        """Return a fresh name."""
        self._names += 1
        return f"{prefix}{self._names}"

    def constant(self, value: object, prefix: str = "k") -> str:
        """Return the name under which the source sees a value."""
        name = self.name(prefix)
        self.constants[name] = value
        return name

    def compile(self, entry: str) -> Callable[..., object]:
        """Compile the module and return its function called `entry`."""
        namespace = dict(self.constants)
        exec(compile("\n".join(self.lines), "<candid codec>", "exec"), namespace)
        made = namespace[entry]
        assert callable(made)
        return made


def count_uses(graph: Graph) -> list[int]:
    """Count how often each node is referred to. Those met once are written into their parent's function.

    A cycle that can be reached has a node that is met twice, so that this always ends.
    """
    uses = [0] * len(graph.nodes)
    for ref in graph.roots + tuple(ref for node in graph.nodes for ref in node_refs(node)):
        if ref >= 0:
            uses[ref] += 1
    return uses


def is_nullable(graph: Graph, ref: int) -> bool:
    """Tell whether the Python value None belongs to the type, so that an option of it needs `Some`."""
    return ref in (NULL, RESERVED) or (ref >= 0 and isinstance(graph.nodes[ref], OptNode))


def fixed_runs(node: RecordNode) -> list[list[int]]:
    """Group the places of a record's fields: neighbours of fixed size together, every other field alone."""
    runs: list[list[int]] = []
    for place, ref in enumerate(node.refs):
        if ref in FIXED_FORMATS and runs and node.refs[runs[-1][0]] in FIXED_FORMATS:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs
