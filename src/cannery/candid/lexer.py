"""Words, numbers, texts and signs of Candid's two text languages: interface files and values.

Candid specification, sections "Comments", "Names" and "Values". Comments are dropped, except that the `//`
lines right above a token are kept with it: they document methods and types. Nothing is parsed here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cannery.candid.errors import CandidError
from cannery.limits import CANDID_TEXT_SIZE_CHARS_MAX

_SPACE = re.compile(r"[ \t\r\n]+")
_LINE_COMMENT = re.compile(r"//([^\n]*)")
_BLOCK_MARK = re.compile(r"/\*|\*/")
_TOKEN = re.compile(
    r"(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>0[xX][0-9a-fA-F][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9][0-9_]*)?"
    r"|[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9][0-9_]*)?)"
    r"|(?P<sign>->|[-+:;,=(){}.])"
)
_TEXT_PART = re.compile(
    r'(?P<plain>[^"\\]+)|(?P<end>")|\\(?P<byte>[0-9a-fA-F]{2})|\\(?P<escape>[nrt\\"\'])'
    r"|\\u\{(?P<point>[0-9a-fA-F][0-9a-fA-F_]*)\}"
)
_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\", '"': b'"', "'": b"'"}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text: kind is word, number, sign, text or end; `raw` are the bytes of a text in quotes."""

    kind: str
    value: str
    position: int
    raw: bytes = b""
    docs: tuple[str, ...] = ()


class Tokens:
    """The tokens of a text, read one after the other."""

    def __init__(self, text: str) -> None:
        if len(text) > CANDID_TEXT_SIZE_CHARS_MAX:
            raise CandidError(f"the text has over {CANDID_TEXT_SIZE_CHARS_MAX} characters")
        self._text = text
        self._tokens = _scan(text)
        self._next = 0

    def peek(self, ahead: int = 0) -> Token:
        """Return the next token, or one after it, without reading it."""
        return self._tokens[min(self._next + ahead, len(self._tokens) - 1)]

    def next(self) -> Token:
        """Read a token."""
        token = self.peek()
        self._next += 1
        return token

    def is_next(self, value: str, ahead: int = 0) -> bool:
        """Tell whether a word or sign comes next."""
        token = self.peek(ahead)
        return token.value == value and token.kind in ("word", "sign")

    def accept(self, value: str) -> bool:
        """Read a word or sign if it comes next."""
        if not self.is_next(value):
            return False
        self._next += 1
        return True

    def expect(self, value: str) -> Token:
        """Read a word or sign, which must come next."""
        if not self.is_next(value):
            raise self.error(f"expected {value!r}")
        return self.next()

    def error(self, reason: str, token: Token | None = None) -> CandidError:
        """Make the error for what is wrong at a token, by default the next."""
        token = token or self.peek()
        found = "the end" if token.kind == "end" else repr(token.value)
        return CandidError(f"{_place(self._text, token.position)}: {reason}, found {found}")


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    return f"line {line}, column {position - text.rfind(chr(10), 0, position)}"


def _scan(text: str) -> list[Token]:
    tokens: list[Token] = []
    docs: list[str] = []
    position, lines, fresh = 0, 0, True
    while position < len(text):
        space = _SPACE.match(text, position)
        if space is not None:
            position = space.end()
            lines = space[0].count("\n")
            fresh = fresh or lines > 0
            if lines > 1:
                docs = []
            continue
        comment = _LINE_COMMENT.match(text, position)
        if comment is not None:
            if fresh:
                docs.append(comment[1].strip())
            position = comment.end()
            continue
        if text.startswith("/*", position):
            position = _comment_end(text, position)
            continue
        token, position = _token(text, position, tuple(docs))
        tokens.append(token)
        docs, fresh = [], False
    tokens.append(Token("end", "", len(text)))
    return tokens


def _comment_end(text: str, start: int) -> int:
    depth = 0
    for mark in _BLOCK_MARK.finditer(text, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    raise CandidError(f"{_place(text, start)}: the comment is not closed")


def _token(text: str, position: int, docs: tuple[str, ...]) -> tuple[Token, int]:
    if text[position] == '"':
        raw, end = _quoted(text, position)
        return Token("text", text[position:end], position, raw, docs), end
    match = _TOKEN.match(text, position)
    if match is None or match.lastgroup is None:
        raise CandidError(f"{_place(text, position)}: character {text[position]!r} has no meaning here")
    return Token(match.lastgroup, match[0], position, b"", docs), match.end()


def _quoted(text: str, start: int) -> tuple[bytes, int]:
    """Return the bytes of a text in quotes and the position after it."""
    out: list[bytes] = []
    position = start + 1
    while True:
        match = _TEXT_PART.match(text, position)
        if match is None:
            what = "the text is not closed" if position >= len(text) else "the escape is unknown"
            raise CandidError(f"{_place(text, position)}: {what}")
        position = match.end()
        if match["end"]:
            return b"".join(out), position
        out.append(_bytes_of(match, text))


def _bytes_of(match: re.Match[str], text: str) -> bytes:
    if match["byte"]:
        return bytes.fromhex(match["byte"])
    if match["escape"]:
        return _ESCAPES[match["escape"]]
    if match["point"]:
        digits = match["point"].replace("_", "")
        point = int(digits, 16) if len(digits) <= 8 else 0x110000
        if point > 0x10FFFF or 0xD800 <= point < 0xE000:
            raise CandidError(f"{_place(text, match.start())}: {match[0]} is no Unicode scalar value")
        return chr(point).encode()
    try:
        return match[0].encode()
    except UnicodeEncodeError:
        raise CandidError(f"{_place(text, match.start())}: the text holds half a character") from None
