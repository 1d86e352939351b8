"""Files of numbers that the processes of a node share by mapping them."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from cannery.errors import StoreError


def map_numbers(path: Path, size_bytes: int) -> memoryview:
    """Map a file, made if need be, as unsigned 64-bit numbers; new ones are 0. Raises `StoreError`.

    A file that is larger stays so: one that shrank under a process that has it mapped would end that process.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < size_bytes:
                os.ftruncate(descriptor, size_bytes)
            return memoryview(mmap.mmap(descriptor, size_bytes)).cast("Q")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror or error}") from error
