"""`Retries`: what happens after an exception or a timeout."""

from __future__ import annotations

from potluck.errors import InvalidError

# More than this hides a bug instead of bridging a hiccup.
RETRIES_MAX = 10
DELAY_S_MAX = 60.0


class Retries:
    """At most `max_retries` further attempts, the first after `initial_delay` seconds, each later one
    `backoff_coefficient` times as late, never more than `max_delay` seconds."""

    def __init__(
        self,
        *,
        max_retries: int,
        backoff_coefficient: float = 2.0,
        initial_delay: float = 1.0,
        max_delay: float = 60.0,
    ) -> None:
        if not 0 <= max_retries <= RETRIES_MAX:
            raise InvalidError(f"max_retries is {max_retries}; it must be between 0 and {RETRIES_MAX}.")
        if not 1.0 <= backoff_coefficient <= 10.0:
            raise InvalidError(f"backoff_coefficient is {backoff_coefficient}; it must be between 1 and 10.")
        if not 0.0 <= initial_delay <= DELAY_S_MAX or not 1.0 <= max_delay <= DELAY_S_MAX:
            raise InvalidError("initial_delay must be between 0 and 60 s, max_delay between 1 and 60 s.")
        self.max_retries, self.backoff_coefficient = max_retries, backoff_coefficient
        self.initial_delay, self.max_delay = initial_delay, max_delay


def checked(retries: int | Retries | None) -> Retries:
    """`retries` as an object; a bare number means a fixed delay of one second, as in Modal. Raises `InvalidError`."""
    if isinstance(retries, Retries):
        return retries
    return Retries(max_retries=retries or 0, backoff_coefficient=1.0)
