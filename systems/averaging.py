"""The mean of several models' weights, exact where they agree and refused where they don't fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 3
# BatchNorm counts its batches, which nothing reads unless its momentum is None.
_COUNTER = "num_batches_tracked"


class Mean:
    """Weights added one model at a time; only one further model need be in memory.

    Kept is the first model and, in float32, the sum of what the others differ from it: weights
    that all have in common (a frozen base, buffers) come out bit for bit, half precision loses
    nothing on the way, and the mean is that of any order up to rounding. Running statistics of
    BatchNorm are averaged like weights: right to first order for models that began from one,
    though not what a pass over the data would give.
    """

    def __init__(self) -> None:
        self.count = 0
        self.varied: set[str] = set()  # names of what is not the same in all
        self._first: dict[str, Tensor] = {}
        self._differences: dict[str, Tensor] = {}
        self._place = ""

    def add(self, weights: Mapping[str, Tensor], place: str) -> None:
        """Add a model; ValueError, which names ``place``, when it is not of the first's shape."""
        import torch

        self.count += 1
        if self.count == 1:
            self._first = {name: weight.detach().cpu().clone() for name, weight in weights.items()}
            self._place = place
            return
        self._check(weights, place)
        for name, first in self._first.items():
            weight = weights[name].detach().cpu()
            if torch.equal(weight, first):
                continue
            self.varied.add(name)
            if first.is_floating_point():
                difference = weight.float() - first.float()
                if name in self._differences:
                    self._differences[name] += difference
                else:
                    self._differences[name] = difference
            elif name.endswith(_COUNTER):
                self._first[name] = torch.maximum(first, weight)
            else:
                raise ValueError(
                    f"{place}: {name} is not what it is in {self._place}, whole numbers must agree"
                )

    def result(self) -> dict[str, Tensor]:
        """Return the mean, in the first model's precision."""
        if not self.count:
            raise ValueError("no models to average, must be at least one")
        found = dict(self._first)
        for name, difference in self._differences.items():
            first = found[name]
            found[name] = (first.float() + difference / self.count).to(first.dtype)
        return found

    def _check(self, weights: Mapping[str, Tensor], place: str) -> None:
        first = self._first
        problems = {
            "missing": sorted(first.keys() - weights.keys()),
            "unknown": sorted(weights.keys() - first.keys()),
            "of other size": sorted(
                name
                for name in first.keys() & weights.keys()
                if first[name].shape != weights[name].shape
            ),
        }
        for problem, names in problems.items():
            if names:
                raise ValueError(
                    f"{place}: {len(names)} weights are {problem} ({', '.join(names[:_SHOWN])}), "
                    f"must be exactly those of {self._place}"
                )
