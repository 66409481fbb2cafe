"""Extrapolates a learning curve: the validation loss falls with the number of training examples as a power law towards a floor.

loss(n) = excess · (n / N) ^ -exponent + floor, where N is the size of the largest training; errors count relative to the loss.
Source: Hestness et al. (2017), Deep Learning Scaling is Predictable, Empirically, https://arxiv.org/abs/1712.00409.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from prooftune.errors import DataError
from prooftune.evidence import Curve, CurvePoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

WORTH: Final = 0.05
"""Fall of the loss, at twice the examples, from which more examples help: that of an exponent of 0.07, the lowest of Hestness et al."""
FASTEST: Final = 1.0
"""Exponent of a model whose form is right (Amari et al., 1992, Four Types of Learning Curves, Neural Computation 4). The nearer a loss is
to its floor already, the faster it must have come there: of the usual exponents this one promises least."""
STEEPEST: Final = 3.0
"""Bound of a fitted exponent, far beyond what was seen anywhere."""
LEAST: Final = 1e-6
"""Nats per token; a lower loss is as good as 0, which has no logarithm."""
ENOUGH: Final = 5
"""Points, from which the law's three constants leave two degrees of freedom to measure the scatter by."""
REPLICATES: Final = 200
ALPHA: Final = 0.05


@dataclass(frozen=True, slots=True)
class Law:
    """A power law of losses in nats per supervised token."""

    excess: float
    """Of the largest training's loss over the floor."""
    exponent: float
    floor: float
    scatter: float | None = None
    """Standard deviation of the points around it, relative to the loss; None = as many constants were fitted as there are points."""

    def loss(self, times: Any) -> Any:
        """Return the loss with so many times the examples of the largest training, a number or an array."""
        return self.excess * times**-self.exponent + self.floor

    @property
    def fall(self) -> float:
        """Relative fall of the loss when the examples are doubled."""
        return float(1.0 - self.loss(2.0) / self.loss(1.0))


def fit_curve(points: Sequence[CurvePoint], seed: int) -> Curve:
    """Return what the points say about twice as many examples as the largest training had.

    From five points on, all three constants are fitted and a parametric bootstrap gives the interval. Three or four points are read in two
    ways, with no floor (the most that a power law can promise) and with the exponent ``FASTEST`` (the least), give or take twice their
    scatter; ``doubled_loss`` has no floor. Two points show no scatter, so they do not tell. ``more_helps`` is True where all of that range
    is worth it, and False where none of it is.

    Raises:
        DataError: fewer than two points of unlike size.
    """
    import numpy as np

    ordered = tuple(sorted(points, key=lambda point: (point.examples, point.share)))
    if len({point.examples for point in ordered}) < 2:
        raise DataError(
            f"a learning curve needs trainings of at least two sizes, and there are {len(ordered)} of one size; "
            "set learning_curve.shares to shares that differ, such as [0.25, 0.5]"
        )
    sizes = np.array([point.examples for point in ordered], dtype=np.float64) / ordered[-1].examples
    losses = np.maximum([point.validation_loss for point in ordered], LEAST)
    if len(ordered) >= ENOUGH:
        return _with_interval(ordered, sizes, losses, seed)
    return _between_assumptions(ordered, sizes, losses)


def fit_law(sizes: Floats, losses: Floats, start: Law | None = None, **fixed: float) -> Law:
    """Return the power law with the least squared relative errors; constants that are given by name are held.

    ``sizes`` are relative to the largest training's. From a ``start`` the search is short and to four digits; None = from several exponents
    and as far as numbers go.
    """
    import numpy as np
    from scipy.optimize import least_squares

    low, high = float(losses.min()), 10.0 * float(losses.max())
    bounds = {"excess": (LEAST * LEAST, high), "exponent": (0.0, STEEPEST), "floor": (0.0, high)}
    free = [name for name in bounds if name not in fixed]
    lowest, highest = ([bounds[name][end] for name in free] for end in (0, 1))

    def law_of(values: Floats) -> Law:
        return Law(**fixed, **dict(zip(free, map(float, values), strict=True)))

    def errors(values: Floats) -> Floats:
        found: Floats = np.log(law_of(values).loss(sizes) / losses)
        return found

    starts = [Law(low / 2, exponent, low / 2) for exponent in (0.1, 0.5, 1.5)] if start is None else [start]
    guesses = [np.clip([getattr(law, name) for name in free], lowest, highest) for law in starts]
    least, most = (1e-12, 500) if start is None else (1e-4, 50)
    options: dict[str, Any] = {"ftol": least, "xtol": least, "gtol": least, "max_nfev": most}
    fits = [least_squares(errors, guess, bounds=(lowest, highest), x_scale="jac", **options) for guess in guesses]
    best = min(fits, key=lambda fit: fit.cost)
    spare = len(sizes) - len(free)
    return replace(law_of(best.x), scatter=float(np.sqrt(2.0 * best.cost / spare)) if spare else None)


def _between_assumptions(points: tuple[CurvePoint, ...], sizes: Floats, losses: Floats) -> Curve:
    no_floor, fast = fit_law(sizes, losses, floor=0.0), fit_law(sizes, losses, exponent=FASTEST)
    least, most = sorted((fast.fall, no_floor.fall))
    assumed = (
        f"if it can fall to 0 (a power law without a floor), and by {fast.fall:.1%} if it falls as 1/n towards a floor; "
        f"{len(points)} points are too few for an interval"
    )
    if no_floor.scatter is None or fast.scatter is None:
        return _curve(points, no_floor, None, f"{assumed} and show no scatter")
    scatter = min(no_floor.scatter, fast.scatter)
    return _curve(points, no_floor, _worth(least - 2 * scatter, most + 2 * scatter), f"{assumed} and scatter by {scatter:.1%} around it")


def _with_interval(points: tuple[CurvePoint, ...], sizes: Floats, losses: Floats, seed: int) -> Curve:
    import numpy as np

    law = fit_law(sizes, losses)
    laws = _replicates(law, float(law.scatter or 0.0), sizes, seed)
    ends = (100 * ALPHA / 2, 100 * (1 - ALPHA / 2))
    least, most = np.percentile([one.fall for one in laws], ends)
    low, high = np.percentile([one.loss(2.0) for one in laws], ends)
    fitted = (
        f"({1 - ALPHA:.0%} interval {least:.1%} to {most:.1%}), by a power law with exponent {law.exponent:.2f} and floor {law.floor:.3g} "
        f"through {len(points)} points"
    )
    return _curve(points, law, _worth(least, most), fitted).model_copy(update={"doubled_low": float(low), "doubled_high": float(high)})


def _replicates(law: Law, scatter: float, sizes: Floats, seed: int) -> list[Law]:
    """Return the laws of curves drawn around ``law``; each draws its own scatter first, because few points do not tell it well."""
    import numpy as np

    rng = np.random.default_rng(seed)
    spare = len(sizes) - 3
    scatters = scatter * np.sqrt(spare / rng.chisquare(spare, size=(REPLICATES, 1)))
    curves = law.loss(sizes) * np.exp(scatters * rng.standard_normal((REPLICATES, len(sizes))))
    return [fit_law(sizes, curve, start=law) for curve in curves]


def _worth(least: float, most: float) -> bool | None:
    if least >= WORTH:
        return True
    return False if most < WORTH else None


def _curve(points: tuple[CurvePoint, ...], law: Law, more_helps: bool | None, basis: str) -> Curve:
    verdict = {
        True: "More examples would help",
        False: "More examples would hardly help",
        None: "The points do not tell whether more examples would help",
    }[more_helps]
    examples, now, doubled = points[-1].examples, float(law.loss(1.0)), float(law.loss(2.0))
    text = (
        f"{verdict}: with {2 * examples:,} training examples instead of {examples:,}, the validation loss would fall by {law.fall:.1%} "
        f"({now:.3g} to {doubled:.3g}) {basis}; {WORTH:.0%} would be worth it."
    )
    return Curve(points=points, more_helps=more_helps, text=text, doubled_loss=doubled)
