"""The order in which rows are learned from: balanced, shuffled, and the same after a kill."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from systems.hf_trainer import SetEpoch
from systems.sampler import EpochSampler


def test_the_sampler_balances_shuffles_and_repeats_itself():
    plain = EpochSampler(50, seed=3)
    first = list(plain)
    assert sorted(first) == list(range(50))
    assert list(plain) == first == list(EpochSampler(50, seed=3))
    plain.set_epoch(1)
    assert list(plain) != first
    balanced = EpochSampler(10000, seed=3, weights=[9.0] * 1000 + [1.0] * 9000)
    assert sum(i < 1000 for i in balanced) == pytest.approx(5000, abs=200)


def test_grouped_batches_hold_rows_of_like_length_and_every_row_once():
    durations = [float(i * 37 % 101) for i in range(101)]
    rows = list(EpochSampler(101, seed=3, grouped=(durations, 8)))
    assert sorted(rows) == list(range(101))
    assert rows == list(EpochSampler(101, seed=3, grouped=(durations, 8)))
    batches = [[durations[row] for row in rows[i : i + 8]] for i in range(0, 101, 8)]
    assert all(max(batch) - min(batch) == 7 for batch in batches[:-1])
    assert [batch[0] for batch in batches] != sorted(batch[0] for batch in batches)


@pytest.mark.parametrize(("at", "epoch"), [(0.0, 0), (3.0, 3), (3.7, 3)])
def test_a_run_resumed_within_an_epoch_goes_on_with_its_order(at: float, epoch: int) -> None:
    """accelerate does not reach the sampler of a distributed run that skips batches."""
    found, wanted = EpochSampler(50, seed=3), EpochSampler(50, seed=3)
    SetEpoch(found).on_epoch_begin(None, SimpleNamespace(epoch=at), None)
    wanted.set_epoch(epoch)
    assert list(found) == list(wanted)
