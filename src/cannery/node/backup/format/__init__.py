"""The format of a backup repository and its plans, as values: no file, store or clock is read here."""
