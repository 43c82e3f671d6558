"""The oracle: what no choice among what was heard can beat."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.oracle import main, oracle, path_errors
from fusion.pool import pool
from manifests import Arc, Hypothesis, NBest, Utterance, write_rows
from scoring.counts import count_errors


def row(utt_id, *texts, error=None):
    hyps = tuple(Hypothesis(text=text) for text in texts)
    return NBest(utt_id=utt_id, system="s", hyps=hyps, error=error)


REFERENCES = {"u": "he went home", "v": "", "w": "I see one two"}
A = [row("u", "he want home", "he went home"), row("v", "um"), row("w", "I see")]
B = [row("u", "he went"), row("v", "no", ""), row("w", "", error="damaged")]


def test_errors_of_members_selection_and_nbest():
    found = oracle(REFERENCES, pool([A, B]), ["a", "b"])
    # "one two" is one word to the scorer, "um" none; a failed row is empty.
    assert (found.utts, found.words) == (3, 6)
    assert found.members == {"a": 1 + 0 + 1, "b": 1 + 1 + 3}
    assert found.selection == 1 + 0 + 1
    assert found.nbest == 0 + 0 + 1
    assert found.best_member == "a"
    # "he want home" and "he went": "went" may stand where "want" does.
    assert found.network == 0 + 0 + 1


@given(
    st.lists(st.lists(st.sampled_from(["", "a", "b", "c d"]), min_size=1, max_size=3), max_size=4),
    st.lists(st.sampled_from("abcd"), max_size=5),
)
def test_the_best_way_is_the_best_of_all_ways(slots, truth):
    network = [[Arc(text=text, share=0.5) for text in slot] for slot in slots]
    ways = [" ".join(way).split() for way in itertools.product(*slots)]
    assert path_errors(network, truth) == min(count_errors(truth, way).errors for way in ways)


def test_ids_must_be_the_references():
    with pytest.raises(ValueError, match="x: has no reference"):
        oracle({"u": "a"}, pool([[row("u", "a"), row("x", "a")]]), ["a"])
    with pytest.raises(ValueError, match="no member has a row"):
        oracle(REFERENCES, pool([A[:2]]), ["a"])


def test_a_missing_row_counts_as_empty():
    found = oracle(REFERENCES, pool([A, B[:2]]), ["a", "b"])
    assert found.members["b"] == 1 + 1 + 3


def test_the_command(tmp_path, capsys):
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file, rows in zip(files, (A, B), strict=True):
        write_rows(file, rows)
    ref = tmp_path / "ref.jsonl"
    write_rows(
        ref,
        [
            Utterance(utt_id=i, audio_filepath=i, duration=1.0, text=text)
            for i, text in REFERENCES.items()
        ],
    )
    command = ["--ref", str(ref), *map(str, files)]
    assert main(command) == 0
    assert "best member (a)            33.33 %" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nbest"] == 1
    assert main([*command, str(files[0])]) == 1
    assert "names must differ" in capsys.readouterr().err
