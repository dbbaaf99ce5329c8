"""`Retries`: what happens after an exception or a timeout."""

from __future__ import annotations

from dataclasses import dataclass

from potluck.errors import InvalidError
from potluck.wire import RetryPolicy

# More than this hides a bug instead of bridging a hiccup.
RETRIES_MAX = 10
DELAY_S_MAX = 60.0


@dataclass(frozen=True)
class Retries:
    """At most `max_retries` further attempts, the first after `initial_delay` seconds, each later one
    `backoff_coefficient` times as late, never more than `max_delay` seconds."""

    max_retries: int
    backoff_coefficient: float = 2.0
    initial_delay: float = 1.0
    max_delay: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.max_retries <= RETRIES_MAX:
            raise InvalidError(f"max_retries is {self.max_retries}; it must be between 0 and {RETRIES_MAX}.")
        if not 1.0 <= self.backoff_coefficient <= 10.0:
            raise InvalidError(f"backoff_coefficient is {self.backoff_coefficient}; it must be between 1 and 10.")
        if not 0.0 <= self.initial_delay <= DELAY_S_MAX or not 1.0 <= self.max_delay <= DELAY_S_MAX:
            raise InvalidError("initial_delay must be between 0 and 60 s, max_delay between 1 and 60 s.")


def policy(retries: int | Retries | None) -> RetryPolicy:
    """The wire form; a bare number means a fixed delay of one second, as in Modal."""
    if isinstance(retries, int):
        retries = Retries(retries, backoff_coefficient=1.0)
    if retries is None:
        return RetryPolicy()
    return RetryPolicy(
        retries.max_retries,
        round(retries.initial_delay * 1e6),
        round(retries.backoff_coefficient * 1000),
        round(retries.max_delay * 1e6),
    )
