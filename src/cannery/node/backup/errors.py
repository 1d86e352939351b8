"""What a backup refuses: one line that says what is wrong and what to do."""

from __future__ import annotations

from cannery.errors import CanneryError


class BackupError(CanneryError):
    """A backup, a check or a restoration cannot go on."""


class ShelfError(BackupError):
    """Where backups are kept cannot be read or written."""


class MissingError(ShelfError):
    """An object is not there."""


class RepositoryLockedError(BackupError):
    """Somebody else works on the repository."""
