"""When tuning pays: pure functions of money and volume.

With ``T`` what tuning costs once, ``s`` what a request saves, ``V`` requests a month and ``H`` what hosting the tuned model adds a month,
a month saves ``V s - H``, and tuning is paid back after ``T / (V s - H)`` months, which are ``T V / (V s - H)`` requests. Without hosting
that is ``T / s`` requests at any volume. Sums are exact (fractions), so one request fewer never pays.
"""

from __future__ import annotations

import math
from fractions import Fraction

POINTS = 41
"""Of a curve, with both ends; the middle one is the break-even, where there is one."""
UNKNOWN_VOLUME = 10_000
"""Requests that a curve without a break-even and a volume goes to."""
YEAR = 12
"""Months."""
MOST_REQUESTS = 1_000_000_000
"""A month. A volume above it is nobody's: it comes of dividing by a saving that is as good as none."""


def saving_per_month(saving: float, hosting: float, requests_per_month: float | None) -> float | None:
    """Return USD that a month saves, hosting included; None where no volume is known."""
    return None if requests_per_month is None else saving * requests_per_month - hosting


def requests_until_paid(tuning: float, saving: float, hosting: float = 0.0, requests_per_month: float | None = None) -> int | None:
    """Return the requests after which the tuned option is never the dearer one again; None = never, or not to be said.

    All in USD: ``tuning`` once, ``saving`` a request, ``hosting`` a month. 0 = it pays at once. Hosting makes the answer depend on the
    volume; without a volume, or where a volume of 0 pays by what a month saves, it cannot be said in requests.
    """
    if hosting == 0:
        return _ratio(Fraction(tuning), Fraction(saving))
    if requests_per_month is None or (requests_per_month == 0 and tuning > 0):
        return None
    volume = Fraction(requests_per_month)
    return _ratio(Fraction(tuning) * volume, Fraction(saving) * volume - Fraction(hosting))


def months_until_paid(tuning: float, saving: float, hosting: float, requests_per_month: float | None) -> float | None:
    """Return the months until tuning is paid back; None = never, or no volume is known."""
    if requests_per_month is None:
        return None
    monthly = Fraction(saving) * Fraction(requests_per_month) - Fraction(hosting)
    if monthly < 0 or (monthly == 0 and tuning > 0):
        return None
    return float(max(Fraction(tuning), Fraction(0)) / monthly) if monthly else 0.0


def volume_for_hosting(saving: float, hosting: float) -> int | None:
    """Return the requests a month from which on the savings cover hosting; None = no volume up to ``MOST_REQUESTS`` does."""
    volume = _ratio(Fraction(hosting), Fraction(saving))
    return None if volume is None or volume > MOST_REQUESTS else volume


def reach(requests: int | None, requests_per_month: int | None) -> int:
    """Return how far a curve should go: to twice the break-even, else over a year's volume."""
    return max(2 * requests if requests else YEAR * (requests_per_month or 0) or UNKNOWN_VOLUME, 2)


def cumulative_usd(
    requests: float, per_request: float, once: float = 0.0, hosting: float = 0.0, requests_per_month: float | None = None
) -> float:
    """Return USD spent when so many requests were answered; hosting counts by the time that they take at the volume."""
    months = requests / requests_per_month if requests_per_month else 0.0
    return once + requests * per_request + hosting * months


def _ratio(cost: Fraction, saving: Fraction) -> int | None:
    """Smallest whole n ≥ 0 with n × saving ≥ cost, for this n and all that follow."""
    if saving < 0 or (saving == 0 and cost > 0):
        return None
    return max(math.ceil(cost / saving), 0) if saving else 0
