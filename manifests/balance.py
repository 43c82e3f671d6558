"""Sample weights that let a system see every age equally often, or part of the way there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from manifests.rows import AgeBucket, Utterance


def age_weights(utterances: Sequence[Utterance], strength: float = 1.0) -> list[float]:
    """Return a sampling weight for every utterance, in order, with mean 1.

    An utterance of age bucket b, which holds the share p_b of the utterances, is weighted

        w_b = p_b ** -strength / sum over buckets c of p_c ** (1 - strength)

    so that the share of b among the samples drawn is proportional to p_b ** (1 - strength):
    0 leaves the corpus as it is, 1 draws each bucket equally often, 0.5 draws by the square
    root. Unknown age is a bucket of its own. ValueError if ``strength`` is not in [0, 1].

    >>> rows = [Utterance(utt_id=a, audio_filepath="a", duration=1, age=a)
    ...         for a in ("5-7", "8-11", "8-11", "8-11")]
    >>> [round(weight, 3) for weight in age_weights(rows)]
    [2.0, 0.667, 0.667, 0.667]
    """
    return weights_of_ages([row.age for row in utterances], strength)


def weights_of_ages(ages: Sequence[AgeBucket | None], strength: float = 1.0) -> list[float]:
    """Return `age_weights` of utterances of which only the ages are held in memory."""
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength:g}, must be in [0, 1]")
    counts = Counter(ages)
    total = len(ages)
    shares = {age: count / total for age, count in counts.items()}
    norm = sum(share ** (1 - strength) for share in shares.values())
    weights = {age: share**-strength / norm for age, share in shares.items()}
    return [weights[age] for age in ages]
