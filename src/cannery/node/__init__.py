"""The shell around the state machine: sockets, disk, processes, clocks."""
