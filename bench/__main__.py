"""Run the benches: `python -m bench [NAME ...]`; without a name, all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from bench import (
    backups,
    catch_up,
    creations,
    drain,
    fleet_of_users,
    messages,
    push,
    rollouts,
    scale,
    store,
    subnets,
    zone_store,
)
from bench.report import Line, machine, print_line, write_results

BENCHES: dict[str, Callable[[], Iterator[Line]]] = {
    "updates": messages.run_updates,
    "queries": messages.run_queries,
    "creations": creations.run_creations,
    "scale": scale.run_scale,
    "registrations": fleet_of_users.run_registrations,
    "idle": fleet_of_users.run_idle,
    "backup": backups.run_backups,
    "rollouts": rollouts.run_rollouts,
    "store": store.run_store,
    "subnets": subnets.run_subnets,
    "zone_store": zone_store.run_zone_store,
    "drain": drain.run_drain,
    "catch_up": catch_up.run_catch_up,
    "push": push.run_push,
}


def main() -> None:
    wanted = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in wanted if name not in BENCHES]
    if unknown:
        sys.exit(f"bench: no bench is called {unknown[0]}; there are {', '.join(BENCHES)}")
    print(machine(), flush=True)
    lines = []
    for name in wanted:
        for line in BENCHES[name]():
            print_line(line)
            lines.append(line)
    print(f"written to {write_results(lines)}")


if __name__ == "__main__":
    main()
