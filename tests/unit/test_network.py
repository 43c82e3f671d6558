"""Word transition networks: every sequence stands in its slots, like meets like."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.voting.hearings import Heard, heard_hypotheses
from fusion.voting.network import build_networks
from manifests import Hypothesis

SEQUENCES = st.sets(
    st.lists(st.sampled_from(["a", "b", "seen", "scene", "\u00e9t\u00e9"]), max_size=6).map(tuple),
    min_size=1,
    max_size=5,
)
ITEMS = st.lists(SEQUENCES, min_size=1, max_size=6)


def build(sets, weights=None):
    """Return for each set its rows, slot by slot, in the order of the sorted sequences."""
    heard = [
        [
            Heard(n, (weights or {}).get(words, 1.0), Hypothesis(text=" ".join(words)))
            for n, words in enumerate(sorted(one))
        ]
        for one in sets
    ]
    found = {}
    for places, nets in build_networks(heard_hypotheses(heard, "words")):
        for b, place in enumerate(places.tolist()):
            by_hypothesis = nets.row[np.argsort(nets.voter[: len(sets[place]), b]), b]
            table = nets.table[by_hypothesis, : nets.slots[b], b]
            found[place] = [[nets.keys[key] for key in row] for row in table]
    return [found[place] for place in range(len(sets))]


@given(ITEMS)
def test_every_sequence_is_in_its_network_and_no_slot_is_empty(sets):
    for one, rows in zip(sets, build(sets), strict=True):
        assert [tuple(filter(None, row)) for row in rows] == sorted(one)
        assert all(any(slot) for slot in zip(*rows, strict=True))


@settings(max_examples=50)
@given(ITEMS)
def test_a_batch_gives_what_each_utterance_gets_alone(sets):
    assert build(sets) == [build([one])[0] for one in sets]


def test_words_spelled_alike_share_a_slot():
    (rows,) = build([{("i", "scene", "him"), ("i", "have", "seen", "him")}])
    assert [slot for slot in zip(*rows, strict=True) if "scene" in slot] == [("seen", "scene")]


def test_the_heavier_of_two_sequences_is_the_one_that_is_built_on():
    one, other = ("cat", "dog"), ("dog", "cat")
    assert build([{one, other}], {one: 5.0}) == [[["cat", "dog", ""], ["", "dog", "cat"]]]
    assert build([{one, other}], {other: 5.0}) == [[["", "cat", "dog"], ["dog", "cat", ""]]]
