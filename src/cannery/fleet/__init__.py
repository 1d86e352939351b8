"""The library for canisters that create and look after other canisters."""
