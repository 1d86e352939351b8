"""The management canister `aaaaa-aa`: IC interface specification 0.66, section "The IC management canister".

`dispatch` is its front door; `methods` says what a method is; each group of methods has a module of its own.
"""
