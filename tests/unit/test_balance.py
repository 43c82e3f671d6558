"""`manifests.balance`: what a sampler that uses the weights would draw."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import AGE_BUCKETS, Utterance
from manifests.balance import age_weights

ages = st.lists(st.sampled_from([*AGE_BUCKETS, None]), min_size=1, max_size=60)


def rows_of(buckets: list[str | None]) -> list[Utterance]:
    return [Utterance(utt_id="u", audio_filepath="a", duration=1, age=age) for age in buckets]


def mass(buckets: list[str | None], strength: float) -> dict[str | None, float]:
    total: Counter[str | None] = Counter()
    for age, weight in zip(buckets, age_weights(rows_of(buckets), strength), strict=True):
        total[age] += weight
    return dict(total)


@given(ages, st.floats(0, 1))
def test_the_mean_is_one_and_a_rarer_age_never_weighs_less(
    buckets: list[str | None], strength: float
) -> None:
    weights = age_weights(rows_of(buckets), strength)
    assert sum(weights) / len(weights) == pytest.approx(1)
    counts = Counter(buckets)
    by_count = sorted(zip((counts[age] for age in buckets), weights, strict=True))
    for (_, heavier), (_, lighter) in pairwise(by_count):
        assert heavier >= lighter - 1e-9


@given(ages)
def test_strength_one_gives_every_age_the_same_and_unknown_is_one_of_them(
    buckets: list[str | None],
) -> None:
    share = len(buckets) / len(set(buckets))
    assert all(total == pytest.approx(share) for total in mass(buckets, 1.0).values())


@given(ages)
def test_strength_zero_leaves_the_corpus_as_it_is(buckets: list[str | None]) -> None:
    assert age_weights(rows_of(buckets), 0.0) == pytest.approx([1.0] * len(buckets))


def test_half_strength_draws_by_the_square_root() -> None:
    drawn = mass(["3-4"] * 4 + ["12+"] * 36, 0.5)
    assert drawn["12+"] / drawn["3-4"] == pytest.approx(3)


def test_no_utterances_have_no_weights() -> None:
    assert age_weights([]) == []


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_outside_its_range(strength: float) -> None:
    with pytest.raises(ValueError, match=r"strength is .*, must be in \[0, 1\]"):
        age_weights([], strength)
