"""Limits of Cannery: a bound for every queue, loop, depth and size, its unit in its name.

One section per room. Defaults of bounds that an operator may set stand in the node's configuration, not here.
"""

from __future__ import annotations

# protocol

PRINCIPAL_TEXT_CACHE_COUNT_MAX = 8192
