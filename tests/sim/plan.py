"""What one seed decides before anything runs: sizes, prices, bounds and how often what goes wrong.

Everything later in the run draws from the same seed too, so that a seed is a run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import StrEnum
from types import ModuleType

from cannery.node import watches
from cannery.replica import activation, events, scheduler
from cannery.replica.block import PriceSchedule


class Company(StrEnum):
    """Who is on the stage of a run.

    A town is peers, people and perhaps a fleet on one subnet; twins are the same on two subnets; commons are
    peers, and some of: a zone.
    """

    TOWN = "town"
    TWINS = "twins"
    COMMONS = "commons"


COMPANIES = (Company.TOWN, Company.TWINS, Company.COMMONS)
SEEDS_PER_COMPANY = 2_000
# From this seed on, what came later goes wrong as well: the seeds before stay the runs that they were.
LATER_FROM = SEEDS_PER_COMPANY * len(COMPANIES)


def company_of(seed: int) -> Company:
    """Say whom a seed is about: companies take turns, 2,000 seeds each."""
    return COMPANIES[seed // SEEDS_PER_COMPANY % len(COMPANIES)]


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of one run. Rates are chances per step."""

    seed: int
    company: Company
    step_count: int
    person_count: int
    peer_count: int
    has_prices: bool
    block_input_count_max: int
    activation_count_max: int
    unsynced_round_count_max: int
    ingress_queue_count_max: int
    call_queue_count_max: int
    calls_per_pair_count_max: int
    acts_per_step: int
    loss_rate: float
    repeat_rate: float
    patience_steps: int
    sync_rate: float
    crash_rate: float
    read_crash_rate: float
    error_rate: float
    full_rate: float
    damage_rate: float
    log_damage_rate: float
    operate_rate: float
    probe_rate: float
    long_wait_rate: float
    replays_from_genesis: bool
    has_fleet: bool
    subnet_count: int
    disconnect_rate: float
    event_log_count_max: int
    slow_rate: float
    gone_rate: float
    backup_rate: float

    @property
    def prices(self) -> PriceSchedule:
        """The price schedule."""
        if not self.has_prices:
            return PriceSchedule()
        return PriceSchedule(
            per_message=500,
            per_byte=2,
            per_key=30,
            per_call=200,
            storage_per_gib_second=90_000,
            creation=10_000,
            per_ingress=300,
            per_ingress_byte=1,
            per_call_byte=1,
        )

    def describe(self) -> str:
        """Give all sizes on one line."""
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


def plan_of(seed: int) -> Plan:
    """Choose the sizes of a seed's run."""
    chance = random.Random(f"plan {seed}")

    def sometimes(share: float, rate: float) -> float:
        return rate * chance.uniform(0.3, 1.5) if chance.random() < share else 0.0

    def later(share: float, rate: float) -> float:
        drawn = chance.random() < share, chance.uniform(0.3, 1.5)
        return rate * drawn[1] if drawn[0] and seed >= LATER_FROM else 0.0

    is_tight = chance.random() < 0.2
    company = company_of(seed)
    return Plan(
        seed=seed,
        company=company,
        step_count=chance.choice((30, 60, 90)),
        person_count=chance.randint(2, 5),
        peer_count=chance.randint(2, 5),
        has_prices=chance.random() < 0.4,
        block_input_count_max=chance.choice((1, 4, 16, 64, 256)),
        activation_count_max=chance.choice((3, 10, 40, 2000)),
        unsynced_round_count_max=chance.randint(1, 4),
        ingress_queue_count_max=chance.randint(3, 8) if is_tight else 1_000,
        call_queue_count_max=chance.randint(3, 8) if is_tight else 2_000,
        calls_per_pair_count_max=chance.randint(1, 4) if is_tight else 500,
        acts_per_step=chance.choice((1, 3, 6, 8)),
        loss_rate=sometimes(0.5, 0.2),
        repeat_rate=sometimes(0.6, 0.2),
        patience_steps=chance.randint(2, 12),
        sync_rate=chance.choice((0.3, 0.7, 0.95)),
        crash_rate=sometimes(0.7, 0.06),
        read_crash_rate=sometimes(0.2, 0.03),
        error_rate=sometimes(0.3, 0.04),
        full_rate=sometimes(0.2, 0.02),
        damage_rate=sometimes(0.2, 0.03),
        operate_rate=sometimes(0.8, 0.25),
        probe_rate=0.1,
        long_wait_rate=sometimes(0.4, 0.02),
        replays_from_genesis=chance.random() < 0.5,
        log_damage_rate=sometimes(0.15, 0.02),
        has_fleet=chance.random() < 0.5,
        subnet_count=2 if company is Company.TWINS else 1,
        disconnect_rate=sometimes(0.6, 0.1),
        event_log_count_max=chance.choice((4, 20, 1_000)),
        slow_rate=later(0.3, 0.05),
        gone_rate=later(0.5, 0.05),
        backup_rate=later(0.5, 0.1),
    )


@contextmanager
def bounds_of(plan: Plan) -> Iterator[None]:
    """Give the state machine the plan's bounds while a run lasts."""
    wanted: tuple[tuple[ModuleType, str, int], ...] = (
        (scheduler, "INGRESS_QUEUE_COUNT_MAX", plan.ingress_queue_count_max),
        (scheduler, "CALL_QUEUE_COUNT_MAX", plan.call_queue_count_max),
        (activation, "CALLS_PER_PAIR_COUNT_MAX", plan.calls_per_pair_count_max),
        (events, "EVENT_LOG_COUNT_MAX", plan.event_log_count_max),
        # By the clock of the machine that runs the tests: without it a seed is a run.
        (watches, "WATCH_DECIDING_NS_MAX", 2**62),
    )
    before = [getattr(module, name) for module, name, _ in wanted]
    for module, name, value in wanted:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(wanted, before, strict=True):
            setattr(module, name, value)
