"""Users and their mailboxes: an index that gives each user a canister of their own, and that canister."""
