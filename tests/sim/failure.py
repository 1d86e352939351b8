"""What a checker raises."""

from __future__ import annotations


class Broken(Exception):
    """A law does not hold. `law` names the checker."""

    def __init__(self, law: str, text: str) -> None:
        super().__init__(f"{law}: {text}")
        self.law = law
