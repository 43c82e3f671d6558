"""Curves that turn what a recogniser says of itself into a probability, and how good that is.

Two kinds, both rising and both a few numbers that can be read in a file: Platt's logistic curve
(Platt, 1999) on the log-odds of the confidence, and isotonic steps (Zadrozny and Elkan, KDD
2002).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CurveKind = Literal["logistic", "isotonic"]
CURVE_KINDS: tuple[CurveKind, ...] = ("logistic", "isotonic")

_EDGE = 1e-4  # confidences nearer to 0 or 1 are not told apart: most are rounded to 4 digits
_BINS = 10
_DIGITS = 6


class Logistic(msgspec.Struct, frozen=True, tag="logistic", tag_field="kind"):
    """p = 1 / (1 + exp(-(slope * log_odds(x) + intercept)))."""

    slope: float
    intercept: float

    def __call__(self, x: Floats) -> Floats:
        return _sigmoid(self.slope * _log_odds(x) + self.intercept)


class Isotonic(msgspec.Struct, frozen=True, tag="isotonic", tag_field="kind"):
    """Straight lines between the points (``x``, ``y``), both rising; level outside them."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, x: Floats) -> Floats:
        import numpy as np

        return np.asarray(np.interp(x, self.x, self.y))


Curve = Logistic | Isotonic
AS_GIVEN = Logistic(slope=1.0, intercept=0.0)


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How well probabilities foretell what happens; lower is better."""

    ece: float  # expected calibration error over ten equal bins (Guo et al., ICML 2017)
    brier: float  # mean squared error


def quality(p: Floats, right: Floats) -> Quality:
    """Return the quality of probabilities ``p`` (n,) of events ``right`` (n,), each 0 or 1."""
    import numpy as np

    at = np.minimum((p * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(at, weights=p - right, minlength=_BINS)
    return Quality(ece=float(np.abs(gaps).sum() / len(p)), brier=float(np.mean((p - right) ** 2)))


def fit_curve(kind: CurveKind, x: Floats, y: Floats, weight: Floats | None = None) -> Curve:
    """Fit a curve to ``x`` in [0, 1] and ``y`` in [0, 1], both (n,), n > 0."""
    import numpy as np

    weight = np.ones(len(x)) if weight is None else weight
    return (_fit_logistic if kind == "logistic" else _fit_isotonic)(x, y, weight)


def choose_curve(
    x: Floats, y: Floats, fold: NDArray[np.int64]
) -> tuple[Curve | None, Quality | None, Quality | None]:
    """Return the curve that is best on held-out folds, and the quality before and after.

    All (n,); without any ``x`` there is none. ``x`` stays as given where no curve is better.
    """
    import numpy as np

    if not len(x):
        return None, None, None
    before = after = quality(x, y)
    curve: Curve = AS_GIVEN
    for kind in CURVE_KINDS:
        p = np.full(len(x), y.mean())
        for held in np.unique(fold):
            others = fold != held
            if others.any():
                p[~others] = fit_curve(kind, x[others], y[others])(x[~others])
        if (held_out := quality(p, y)).brier < after.brier:
            after, curve = held_out, fit_curve(kind, x, y)
    return curve, before, after


def _fit_logistic(x: Floats, y: Floats, weight: Floats) -> Logistic:
    import numpy as np

    ones = np.ones(len(x))
    slope, intercept = _newton(np.stack([_log_odds(x), ones], axis=1), y, weight, (1.0, 0.0))
    if slope < 0:  # never falling; the loss is convex, so its least is where the slope is 0
        slope, (intercept,) = 0.0, _newton(ones[:, None], y, weight, (0.0,))
    return Logistic(slope=round(slope, _DIGITS), intercept=round(intercept, _DIGITS))


def _newton(design: Floats, y: Floats, weight: Floats, prior: tuple[float, ...]) -> list[float]:
    """Return the parameters of a logistic regression, ``design`` being (n, parameters).

    A weak pull towards ``prior`` keeps the curve finite where everything is right.
    """
    import numpy as np
    from scipy.optimize import minimize

    def loss(theta: Floats) -> float:
        z, away = design @ theta, theta - prior
        return float(weight @ (np.logaddexp(0.0, z) - y * z) + 0.5 * away @ away)

    def slope(theta: Floats) -> Floats:
        return np.asarray(design.T @ (weight * (_sigmoid(design @ theta) - y)) + theta - prior)

    def curvature(theta: Floats) -> Floats:
        p = _sigmoid(design @ theta)
        return np.asarray(
            design.T @ (design * (weight * p * (1 - p))[:, None]) + np.eye(len(prior))
        )

    found = minimize(loss, prior, jac=slope, hess=curvature, method="trust-exact")
    return [float(value) for value in found.x]


def _fit_isotonic(x: Floats, y: Floats, weight: Floats) -> Isotonic:
    import numpy as np
    from scipy.optimize import isotonic_regression

    points, place = np.unique(x, return_inverse=True)
    mass = np.bincount(place, weights=weight)
    mean = np.bincount(place, weights=weight * y) / np.maximum(mass, 1e-12)
    found = isotonic_regression(mean, weights=np.maximum(mass, 1e-12))
    first, last = found.blocks[:-1], found.blocks[1:] - 1
    # One word at the overall rate in each step: a step of three words all right is not certain.
    held = np.add.reduceat(mass, first)
    overall = float(weight @ y / weight.sum())
    level = np.maximum.accumulate((held * found.x[first] + overall) / (held + 1))
    xs = np.stack([points[first], points[last]], axis=1).ravel()
    ys = np.repeat(level, 2)
    keep = np.r_[True, np.diff(xs) > 0]
    return Isotonic(x=tuple(xs[keep].tolist()), y=tuple(ys[keep].round(_DIGITS).tolist()))


def _log_odds(x: Floats) -> Floats:
    import numpy as np

    x = np.clip(x, _EDGE, 1 - _EDGE)
    return np.log(x) - np.log1p(-x)


def _sigmoid(z: Floats) -> Floats:
    import numpy as np

    return np.exp(-np.logaddexp(0.0, -z))
