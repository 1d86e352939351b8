"""The command line `cannery`, for those who run a node and those who use one; docs/cli.md has it all."""
