"""Canisters that come with Cannery: each an ordinary module, seen only through the kit."""
