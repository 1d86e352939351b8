"""Backups of a canister, a fleet or a whole node: made while it serves, kept by content, and put back."""
