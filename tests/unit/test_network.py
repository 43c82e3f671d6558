"""Word transition networks: every sequence stands in its slots, like meets like."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.voting.network import Item, build_networks

SEQUENCES = st.sets(
    st.lists(st.sampled_from(["a", "b", "seen", "scene", "\u00e9t\u00e9"]), max_size=6).map(tuple),
    min_size=1,
    max_size=5,
)
ITEMS = st.lists(SEQUENCES, min_size=1, max_size=6)


def build(sets, weights=None):
    """Return for each set its rows, slot by slot, in the order of the sorted sequences."""
    items = [
        Item(tuple(sorted(one)), tuple((weights or {}).get(s, 1.0) for s in sorted(one)))
        for one in sets
    ]
    found = {}
    for places, nets in build_networks(items):
        for b, place in enumerate(places):
            table = nets.table[list(nets.row[b]), : nets.slots[b], b]
            found[place] = [[nets.vocabulary[b][key] for key in row] for row in table]
    return [found[place] for place in range(len(items))]


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
