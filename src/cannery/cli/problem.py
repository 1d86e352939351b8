"""What a command refuses by itself: one line that says what is wrong and what to do."""

from __future__ import annotations

from cannery.errors import CanneryError


class Problem(CanneryError):
    """A command cannot go on. Exit code 2 where the input is wrong, 1 where the world is."""

    def __init__(self, text: str, exit_code: int = 2) -> None:
        super().__init__(text)
        self.exit_code = exit_code
