"""Cannery: small durable servers in Python, one for every user, group or zone."""
