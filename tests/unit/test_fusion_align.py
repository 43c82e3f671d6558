"""The batched alignment against the textbook's loops, cell by cell."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.align import Alignment, align

SUB, DEL, INS = range(3)


def textbook(sub: np.ndarray, skip: np.ndarray, new: np.ndarray) -> tuple[list[int], list[bool]]:
    """One pair, costs (K, I, J), (K, I), (J,): slot and matched of each word."""
    arcs, rows, columns = sub.shape
    arc_cost = np.zeros((arcs, rows + 1, columns + 1), sub.dtype)
    cost = np.zeros((rows + 1, columns + 1), sub.dtype)
    step = np.zeros(arc_cost.shape, int)
    best = np.zeros(cost.shape, int)
    for i in range(rows + 1):
        for j in range(columns + 1):
            if i == j == 0:
                continue
            for k in range(arcs):
                put = cost[i - 1, j - 1] + sub[k, i - 1, j - 1] if i and j else np.inf
                drop = cost[i - 1, j] + skip[k, i - 1] if i else np.inf
                opened = arc_cost[k, i, j - 1] + new[j - 1] if j else np.inf
                if put <= drop and put <= opened:
                    step[k, i, j], arc_cost[k, i, j] = SUB, put
                elif drop < opened:
                    step[k, i, j], arc_cost[k, i, j] = DEL, drop
                else:
                    step[k, i, j], arc_cost[k, i, j] = INS, opened
            best[i, j] = arc_cost[:, i, j].argmin()
            cost[i, j] = arc_cost[:, i, j].min()
    slot, matched = [-1] * columns, [False] * columns
    i, j = rows, columns
    arc = best[i, j]
    while i or j:
        made = step[arc, i, j]
        i -= made != INS
        j -= made != DEL
        if made != DEL:
            slot[j], matched[j] = i, bool(made == SUB)
        if made != INS:
            arc = best[i, j]
    return slot, matched


def draw_costs(
    seed: int, arcs: int, shapes: list[tuple[int, int]], dtype: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Few different costs, so that ties abound; beyond the lengths, nonsense."""
    draw = np.random.default_rng(seed)
    slots, words = (np.array(sizes, np.int32) for sizes in zip(*shapes, strict=True))
    batch, rows, columns = len(shapes), slots.max(), words.max()
    levels = np.array([0, 1, 1, 2.001, 3, 3.1], dtype)
    return (
        draw.choice(levels, (batch, arcs, rows, columns)),
        draw.choice(levels, (batch, arcs, rows)),
        draw.choice(levels, (batch, columns)),
        slots,
        words,
    )


SHAPES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**32 - 1)


def check_against_textbook(found: Alignment, costs: tuple[np.ndarray, ...]) -> None:
    sub, skip, new, slots, words = costs
    for b, (rows, columns) in enumerate(zip(slots, words, strict=True)):
        slot, matched = textbook(sub[b, :, :rows, :columns], skip[b, :, :rows], new[b, :columns])
        assert found.slot[b, :columns].tolist() == slot
        assert found.matched[b, :columns].tolist() == matched
        assert (found.slot[b, columns:] == -1).all()
        assert not found.matched[b, columns:].any()


@settings(max_examples=150, deadline=None)
@given(SHAPES, st.sampled_from(["f4", "f8"]), SEEDS)
def test_a_batch_equals_one_by_one(shapes: list[tuple[int, int]], kind: str, seed: int) -> None:
    costs = draw_costs(seed, 1, shapes, np.dtype(kind))
    sub, skip, new, slots, words = costs
    check_against_textbook(align(sub[:, 0], skip[:, 0], new, slots, words), costs)


@settings(max_examples=150, deadline=None)
@given(SHAPES, st.integers(1, 4), SEEDS)
def test_alternatives_of_a_slot(shapes: list[tuple[int, int]], arcs: int, seed: int) -> None:
    costs = draw_costs(seed, arcs, shapes, np.float32)
    check_against_textbook(align(*costs), costs)


@settings(max_examples=100, deadline=None)
@given(SHAPES, SEEDS)
def test_a_merged_network_has_every_place_once(shapes: list[tuple[int, int]], seed: int) -> None:
    sub, skip, new, slots, words = draw_costs(seed, 1, shapes, np.float64)
    found = align(sub[:, 0], skip[:, 0], new, slots, words)
    slot_at, word_at, lengths = found.merged(slots.max())
    for b, (rows, columns) in enumerate(zip(slots, words, strict=True)):
        matched = found.matched[b, :columns]
        kept, placed = slot_at[b, :rows], word_at[b, :columns]
        assert sorted({*kept, *placed}) == list(range(lengths[b]))
        assert lengths[b] == rows + (~matched).sum()
        assert (placed[matched] == kept[found.slot[b, :columns][matched]]).all()
        assert (np.diff(kept) > 0).all()
        assert (np.diff(placed) > 0).all()
        assert (slot_at[b, rows:] == -1).all()
        assert (word_at[b, columns:] == -1).all()


def test_costs_with_the_batch_last_in_memory_give_the_same() -> None:
    sub, skip, new, slots, words = draw_costs(1, 2, [(5, 4), (3, 6), (1, 1)], np.float32)
    found = align(sub, skip, new, slots, words)
    turned = align(*(np.asfortranarray(costs) for costs in (sub, skip, new)), slots, words)
    assert (turned.slot == found.slot).all()
    assert (turned.matched == found.matched).all()
