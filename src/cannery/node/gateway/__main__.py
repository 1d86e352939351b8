"""Lets `python -m cannery.node.gateway` run a gateway process."""

from __future__ import annotations

import sys

from cannery.node.gateway.process import main

if __name__ == "__main__":
    sys.exit(main())
