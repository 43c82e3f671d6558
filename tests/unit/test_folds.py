"""Folds keep children whole, and what is held out is not seen."""

from collections.abc import Iterable, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.folds import fold_of, held_out, read_dev
from fusion.pool import Ballot
from manifests import Hypothesis, NBest, Utterance, write_rows


def utterance(utt_id, speaker=None, session=None):
    return Utterance(
        utt_id=utt_id, audio_filepath="a", duration=1, speaker=speaker, session=session, text=utt_id
    )


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2), st.randoms())
def test_a_speaker_is_in_one_fold_whatever_the_order(speakers, random):
    rows = [utterance(f"u{i}", speaker) for i, speaker in enumerate(speakers)]
    folds = dict(zip((row.utt_id for row in rows), fold_of(rows), strict=True))
    if len(set(speakers)) > 1:
        for speaker in set(speakers):
            assert len({folds[row.utt_id] for row in rows if row.speaker == speaker}) == 1
    assert set(folds.values()) == set(range(max(folds.values()) + 1))
    random.shuffle(rows)
    assert fold_of(rows) == [folds[row.utt_id] for row in rows]


def test_without_speakers_sessions_are_kept_whole_and_then_utterances():
    by_session = fold_of(
        [utterance("a", None, "x"), utterance("b", None, "y"), utterance("c", None, "x")]
    )
    assert by_session[0] == by_session[2] != by_session[1]
    assert fold_of([utterance("a"), utterance("b")]) == [0, 1]
    assert fold_of([utterance("a", "one"), utterance("b", "one")]) == [0, 1]  # no second child
    with pytest.raises(ValueError, match="at least two"):
        fold_of([utterance("a")])


class Spy:
    """Remembers whom it was fitted on; applied, it says whom it knows."""

    def fit(self, ballots, references):
        known = {references[ballot.utt_id].speaker for ballot in ballots}
        return SpyFitted(known)


class SpyFitted:
    def __init__(self, known: set[str]) -> None:
        self.known = known

    def apply(self, ballots: Iterable[Ballot], manifest) -> Iterator[NBest]:
        for ballot in ballots:
            row = manifest[ballot.utt_id]
            assert row.text is None
            assert row.speaker not in self.known
            yield NBest(utt_id=ballot.utt_id, system="spy", hyps=(Hypothesis(text="x"),))


def test_what_is_held_out_is_not_seen_and_rows_come_in_order():
    refs = {f"u{i}": utterance(f"u{i}", f"s{i % 7}") for i in range(30)}
    ballots = [Ballot(utt_id, ()) for utt_id in refs]
    assert [row.utt_id for row in held_out(Spy(), ballots, refs)] == list(refs)


@pytest.mark.parametrize("text", ["", "um"])
def test_a_dev_set_without_words_is_refused(tmp_path, text):
    """Its word error rate was thousands of percent."""
    row = utterance("a", "one")
    write_rows(tmp_path / "dev.jsonl", [msgspec.structs.replace(row, text=text)])
    write_rows(tmp_path / "h.jsonl", [NBest(utt_id="a", system="s", hyps=(Hypothesis(text="x"),))])
    with pytest.raises(ValueError, match=r"dev\.jsonl: no words, must hold some text"):
        read_dev([tmp_path / "h.jsonl"], tmp_path / "dev.jsonl")


@pytest.mark.parametrize("named", [True, False])
def test_whoever_names_no_speakers_is_told(tmp_path, caplog, named):
    write_rows(tmp_path / "dev.jsonl", [utterance("a", "one" if named else None)])
    write_rows(tmp_path / "h.jsonl", [NBest(utt_id="a", system="s", hyps=(Hypothesis(text="x"),))])
    read_dev([tmp_path / "h.jsonl"], tmp_path / "dev.jsonl")
    assert ("names no speakers" in caplog.text) is not named
