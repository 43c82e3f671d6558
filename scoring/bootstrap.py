"""Bootstrap intervals of corpus WER: speakers are drawn with replacement.

Utterances of one child are not independent, so the speaker is the unit that is drawn
(Bisani and Ney, ICASSP 2004, draw utterances).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REPLICATES = 10_000
SEED = 1
_CHUNK = 1 << 16  # indices drawn at a time: they stay in the cache
_HALF = 32  # bits


def group_by_unit(values: NDArray[np.int64], speakers: Sequence[str | None]) -> NDArray[np.int64]:
    """Return the sums of ``values`` (n, k) over each speaker, shape (units, k).

    An utterance without a speaker is a unit of its own.
    """
    import numpy as np

    unit_of: dict[object, int] = {}
    units = np.fromiter(
        (
            unit_of.setdefault(i if speaker is None else speaker, len(unit_of))
            for i, speaker in enumerate(speakers)
        ),
        dtype=np.int64,
        count=len(speakers),
    )
    sums = np.zeros((len(unit_of), values.shape[1]), dtype=np.int64)
    np.add.at(sums, units, values)
    return sums


def resample(
    units: NDArray[np.int64], replicates: int = REPLICATES, seed: int = SEED
) -> NDArray[np.int64]:
    """Return the column sums of ``replicates`` samples of the rows, shape (replicates, k).

    ``units`` are counts, with sums below 2 ** 31. Equal rows are exchangeable, so drawing how
    often each distinct row comes (multinomial) has the same distribution as drawing row by row,
    and is much faster where few are distinct.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    count = len(units)
    distinct, times = np.unique(units, axis=0, return_counts=True)
    # One multinomial category costs about as much as ten drawn rows.
    if 10 * len(distinct) <= count:
        drawn = rng.multinomial(count, times / count, size=replicates)
        return np.asarray(drawn @ distinct, dtype=np.int64)
    sums = np.empty((replicates, units.shape[1]), dtype=np.int64)
    step = max(1, _CHUNK // count)
    for begin in range(0, replicates, step):
        rows = slice(begin, min(begin + step, replicates))
        picks = rng.integers(count, size=(rows.stop - begin, count), dtype=np.int32)
        for column in range(0, units.shape[1] - 1, 2):
            # Two columns in the halves of one number: what is drawn is looked up once for both.
            both = (units[:, column] << _HALF) | units[:, column + 1]
            total = both.take(picks).sum(axis=1)
            sums[rows, column], sums[rows, column + 1] = total >> _HALF, total & ((1 << _HALF) - 1)
        if units.shape[1] % 2:
            sums[rows, -1] = units[:, -1].take(picks).sum(axis=1)
    return sums


def wer_interval(
    units: NDArray[np.int64], replicates: int = REPLICATES, seed: int = SEED
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of WER from (errors, words) of each unit.

    None where there is nothing to draw: fewer than two units, no words, or no replicates.
    """
    import numpy as np

    if len(units) < 2 or not units[:, 1].any() or replicates < 1:
        return None
    sums = resample(units, replicates, seed)
    sums = sums[sums[:, 1] > 0]
    low, high = np.percentile(sums[:, 0] / sums[:, 1], (2.5, 97.5))
    return float(low), float(high)
