"""Hypothesis files meet by utterance, whatever their order and whatever they lack."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.pool import member_names, pool, read_pool
from manifests import Hypothesis, NBest, write_rows


def row(utt_id, text="a", error=None):
    return NBest(utt_id=utt_id, system="s", hyps=(Hypothesis(text=text),), error=error)


def test_the_order_of_equal_files_is_kept():
    ids = ["b", "a", "c"]
    ballots = list(pool([[row(i) for i in ids], [row(i) for i in ids]]))
    assert [ballot.utt_id for ballot in ballots] == ids
    assert all(len(ballot.votes) == 2 for ballot in ballots)


def test_what_a_file_lacks_is_none_and_a_failed_row_is_no_vote():
    ballots = list(pool([[row("a"), row("b", "", error="damaged")], [row("b")]]))
    assert [ballot.utt_id for ballot in ballots] == ["b", "a"]
    assert ballots[1].rows[1] is None
    assert [m for m, _ in ballots[0].votes] == [1]


@given(st.lists(st.permutations("abcde"), min_size=1, max_size=4), st.randoms())
def test_the_order_of_the_files_does_not_matter(orders, random):
    members = [[row(i, f"{m}{i}") for i in order] for m, order in enumerate(orders)]
    places = list(range(len(members)))
    random.shuffle(places)
    plain = list(pool(members))
    mixed = list(pool([members[place] for place in places]))
    assert [b.utt_id for b in plain] == [b.utt_id for b in mixed]
    for one, other in zip(plain, mixed, strict=True):
        assert tuple(one.rows[place] for place in places) == other.rows


def test_a_doubled_utterance_or_name_is_an_error(tmp_path):
    path = tmp_path / "x.jsonl"
    write_rows(path, [row("a"), row("a")])
    with pytest.raises(ValueError, match="utterance a comes twice"):
        list(read_pool([path]))
    with pytest.raises(ValueError, match="names must differ"):
        member_names([Path("a/x.jsonl"), Path("b/x.jsonl")])


def test_a_file_that_lacks_utterances_is_named(tmp_path, caplog):
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    write_rows(whole, [row(i) for i in "abc"])
    write_rows(part, [row("a"), row("b", "", error="damaged")])
    assert len(list(read_pool([whole, part]))) == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{part}: no result for 2 of 3 utterances, left to the others"
    ]
