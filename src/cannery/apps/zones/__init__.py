"""Zones: a group's own canister, which keeps messages, attachments and files for members who are away."""
