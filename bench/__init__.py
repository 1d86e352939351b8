"""Benches: ratios against limits and peers measured in the same run. `make bench`, `make bench ONLY=name`."""
