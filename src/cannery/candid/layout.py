"""A printer that breaks lines where they become too long.

After Wadler's "A prettier printer": a document is text, possible line breaks, indentation and groups; a group
stands on one line if what remains of the line holds it, else all its own breaks become line ends. It knows
nothing of Candid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Line:
    """A possible line break; `flat` stands there instead when its group is on one line, `broken` before a
    line end."""

    flat: str
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Hard:
    """A line end; no group around it fits on one line."""


@dataclass(frozen=True, slots=True)
class Nest:
    """Indent the line ends inside by one step."""

    inner: Doc


@dataclass(frozen=True, slots=True)
class Group:
    """Put the inside on one line if it fits."""

    inner: Doc


@dataclass(frozen=True, slots=True)
class Join:
    """One document after the other."""

    parts: tuple[Doc, ...]


HARD_LINE = Hard()

Doc: TypeAlias = str | Line | Hard | Nest | Group | Join

_STEP = 2


def join(*parts: Doc) -> Doc:
    """Put documents one after the other."""
    return Join(parts)


def enclose(left: str, items: Sequence[Doc], separator: str, right: str, *, space: str = "") -> Doc:
    """Put items between brackets: on one line, or each on its own, then with a separator after the last as
    well."""
    if not items:
        return left + right
    inner: list[Doc] = [Line(space)]
    for item in items[:-1]:
        inner += [item, separator, Line(" ")]
    inner.append(items[-1])
    return Group(Join((left, Nest(Join(tuple(inner))), Line(space, separator), right)))


def render(doc: Doc, width: int) -> str:
    """Print a document on lines of `width` characters where that is possible."""
    out: list[str] = []
    column = 0
    stack: list[tuple[int, bool, Doc]] = [(0, False, doc)]
    while stack:
        indent, flat, item = stack.pop()
        if isinstance(item, str):
            out.append(item)
            column += len(item)
        elif isinstance(item, Hard):
            out.append("\n" + " " * indent)
            column = indent
        elif isinstance(item, Line):
            text = item.flat if flat else item.broken + "\n" + " " * indent
            out.append(text)
            column = column + len(text) if flat else indent
        elif isinstance(item, Nest):
            stack.append((indent + _STEP, flat, item.inner))
        elif isinstance(item, Join):
            stack.extend((indent, flat, part) for part in reversed(item.parts))
        else:
            fits = flat or _fits(width - column, item.inner, stack)
            stack.append((indent, fits, item.inner))
    return "".join(out)


def _fits(left: int, doc: Doc, rest: list[tuple[int, bool, Doc]]) -> bool:
    """Tell whether a group fits on the line together with what follows up to the next line end."""
    todo: list[tuple[bool, Doc]] = [(True, doc)]
    upcoming = len(rest)
    while left >= 0:
        if not todo:
            if not upcoming:
                return True
            upcoming -= 1
            todo.append(rest[upcoming][1:])
        flat, item = todo.pop()
        if isinstance(item, str):
            left -= len(item)
        elif isinstance(item, Hard):
            return not flat
        elif isinstance(item, Line):
            if not flat:
                return left >= len(item.broken)
            left -= len(item.flat)
        elif isinstance(item, Join):
            todo.extend((flat, part) for part in reversed(item.parts))
        else:
            todo.append((flat, item.inner))
    return False
