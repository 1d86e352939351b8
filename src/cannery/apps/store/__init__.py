"""The store app: notes and values under keys, in buckets that appear while one writes. docs/scaling.md."""
