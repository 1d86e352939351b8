"""Settings of `[watch]`: where alarms go, when the node calls itself unwell, how often the canary speaks."""

from __future__ import annotations

from dataclasses import dataclass

from cannery.errors import CanneryError
from cannery.limits import WEBHOOK_COUNT_MAX

_MIB = 2**20
_SECRET_SIZE_CHARS_MIN = 16


class WatchSettingsError(CanneryError):
    """A setting of `[watch]` does not say what can be done; the text names it."""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """`[watch]`; docs/watching.md says what each is for."""

    webhook: tuple[str, ...] = ()
    webhook_secret: str = ""
    runbooks: str = "docs/runbooks.md"
    disk_low_mib: int = 1_024
    canary_every_s: int = 0
    canary_goal_percent: float = 99.9

    @property
    def disk_low_bytes(self) -> int:
        return self.disk_low_mib * _MIB

    def check(self) -> None:
        """Raise `WatchSettingsError` for what cannot be done."""
        if len(self.webhook) > WEBHOOK_COUNT_MAX or len(set(self.webhook)) != len(self.webhook):
            raise WatchSettingsError(f"watch.webhook takes up to {WEBHOOK_COUNT_MAX} URLs, each of them once")
        for url in self.webhook:
            if not url.startswith(("http://", "https://")) or not url.isprintable() or " " in url:
                raise WatchSettingsError("watch.webhook must be http:// or https:// URLs")
        if self.webhook_secret and len(self.webhook_secret) < _SECRET_SIZE_CHARS_MIN:
            raise WatchSettingsError(
                f"watch.webhook_secret must have at least {_SECRET_SIZE_CHARS_MIN} characters: "
                "`openssl rand -hex 32` makes one"
            )
        if self.canary_every_s < 0 or self.disk_low_mib < 0:
            raise WatchSettingsError("watch.canary_every_s and watch.disk_low_mib must not be negative")
        if not 0 < self.canary_goal_percent < 100:
            raise WatchSettingsError("watch.canary_goal_percent must be between 0 and 100")
