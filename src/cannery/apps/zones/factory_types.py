"""What the factory of zones, its clients and its operators say to each other."""

from __future__ import annotations

from cannery import Case, Principal, Variant, nat64, record, variant
from cannery.fleet.top_up_quota import Quota
from cannery.fleet.top_up_quota import Rate as Window

from .throttle import Rate, Rates


@variant
class ZoneControl(Variant):
    """Who may change a zone's code: its owner beside the factory, which then upgrades and funds it; its owner
    alone; or the factory still, while the zone is being handed over.
    """

    both: Case[None]
    owner: Case[None]
    factory: Case[None]


@record
class ZoneInfo:
    """A zone. `version` is the release that it runs, 0 where that is not known."""

    zone_id: str
    canister: Principal
    owner: Principal
    created_ns: nat64
    version: nat64
    control: ZoneControl


@record
class ZonePage:
    """Zones in the order of their ids; `next` goes into `after` for the page that follows."""

    zones: list[ZoneInfo]
    next: str | None


@record
class ZoneOptions:
    """How a zone is made: what it gets of Diode's install argument, and whether the factory keeps control
    beside the owner (null: yes).
    """

    rpc_host: str | None = None
    rpc_path: str | None = None
    call_token: bytes | None = None
    factory_controls: bool | None = None


@record
class FactorySettings:
    """How often zones may be made and the factory be asked to look at one, by each principal and by all
    together, and the cycles that new zones may be given.
    """

    makes: Rates
    asks: Rates
    births: Quota


DAY_S = 86_400
SETTINGS = FactorySettings(
    makes=Rates(Rate(5, DAY_S), Rate(500, 3_600)),
    asks=Rates(Rate(60, 3_600), Rate(3_000, 3_600)),
    births=Quota.rate(Window(100_000_000_000_000, DAY_S)),
)
ZONE_QUOTA = Quota.rate(Window(1_000_000_000_000, DAY_S))
FLEET_QUOTA = Quota.rate(Window(10_000_000_000_000, DAY_S))
REQUEST_CYCLES_MIN = 50_000_000_000
