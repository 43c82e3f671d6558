"""The options of NIST's rover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Method = Literal["meth1", "avgconf", "maxconf", "meth1a", "maxconfa"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, slots=True)
class Rule:
    """How votes are weighed; the defaults are rover's."""

    method: Method = "meth1"
    alpha: float = 1.0  # 1: votes alone, 0: confidences alone
    null_confidence: float = 0.0
