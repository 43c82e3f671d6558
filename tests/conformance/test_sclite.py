"""Against NIST's sclite itself: every word arrives, and its sums are what we say."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests import Utterance, Word
from scoring.counts import ErrorCounts
from scoring.sclite import Pair, run_sclite, run_sclite_times

# Everything that sclite gives a meaning of its own, and what children and recognisers write.
NASTY = [
    *("(", "(a)", "a)", "{", "}", "{a", "/", "a/b", "*", "**", "a*", "@", "a@", "%", "a%", "<a>"),
    *("<", ";;", "a;b", "a-", "-a", "--", '"', "'", "\\", "a\\", "|", "#", "$5.50", "[a]", "A"),
    *("a:b", "a,b", "\u00e9", "e\u0301", "\u6f22", "\U0001f600", "\u00c9", "\u00df", "<alt_begin>"),
    *("a", "i", "I", "IGNORE_TIME_SEGMENT_IN_SCORING", "NULL", "\ufeffx", "w" * 300),
    *("w" * 3000, "\u00e9" * 600, "\x00", "a\x00b", "\x01", "a\x7fb"),
]


def utterance(utt_id: str, speaker: str | None = "s", duration: float = 5.0) -> Utterance:
    return Utterance(
        utt_id=utt_id, audio_filepath="x.wav", duration=duration, text="", speaker=speaker
    )


def timed(words: list[str]) -> list[Word]:
    return [Word(text=w, start=0.1 * i, end=0.1 * i + 0.05) for i, w in enumerate(words)]


@pytest.mark.parametrize("word", NASTY)
def test_every_word_counts_as_itself(tmp_path: Path, word: str) -> None:
    pairs = [
        Pair(utterance("same"), [word, "b"], [word, "b"]),
        Pair(utterance("first"), [word], ["zz"]),
        Pair(utterance("heard"), ["zz"], [word]),
        Pair(utterance("left_out"), ["zz", word], ["zz"]),
    ]
    sums = run_sclite(pairs, "nasty", tmp_path)
    assert sums.utterances == 4
    assert sums.counts == ErrorCounts(words=6, sub=2, deletions=1)


@pytest.mark.parametrize(
    ("said", "heard"), [("a", "A"), ("a*", "a"), ("a;b", "a"), ("a\\", "a"), ("(a)", "a")]
)
def test_words_that_sclite_would_confuse_differ(tmp_path: Path, said: str, heard: str) -> None:
    sums = run_sclite([Pair(utterance("u"), [said], [heard])], "x", tmp_path)
    assert sums.counts == ErrorCounts(words=1, sub=1)


words = st.lists(st.sampled_from([*NASTY, "the", "cat", "cats", "sat", "on"]), max_size=12)
pair_lists = st.lists(st.tuples(words, words), min_size=1, max_size=6)
slow = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@slow
@given(pair_lists)
def test_trn_arrives_whole(tmp_path: Path, texts: list[tuple[list[str], list[str]]]) -> None:
    ids = ["a", "A", "a-1", "a.1", "a_1", "0"]
    speakers = ["s-1", "s_1", "s 1", None, "S", "Sum"]
    pairs = [
        Pair(utterance(i, spk), r, h) for i, spk, (r, h) in zip(ids, speakers, texts, strict=False)
    ]
    sums = run_sclite(pairs, "sys tem/1", tmp_path)  # checks every utterance itself
    assert sums.counts.words == sum(len(r) for r, _ in texts)


@slow
@given(pair_lists)
def test_ctm_and_stm_arrive_whole(tmp_path: Path, texts: list[tuple[list[str], list[str]]]) -> None:
    ids = ["b", "A", "a-1", "a.1", "a_1", "a"]
    pairs = [
        Pair(utterance(i, "s-1", 0.5), [w for w in r if w[0] != "I"], h, timed(h))
        for i, (r, h) in zip(ids, texts, strict=False)
    ]
    sums = run_sclite_times(pairs, "timed", tmp_path)
    assert sums.utterances == len(texts)


def test_reports_are_kept_and_name_the_real_speakers(tmp_path: Path) -> None:
    pairs = [
        Pair(utterance("u-1", "anna"), ["i", "goed"], ["i", "go"]),
        Pair(utterance("u-2", "bo b"), [], ["uh"]),
    ]
    sums = run_sclite(pairs, "whisper", tmp_path)
    assert sums.counts == ErrorCounts(words=2, sub=1, insertions=1)
    for report in ("sys", "pra", "dtl", "sgml"):
        assert (tmp_path / f"whisper.{report}").stat().st_size > 0
    assert "| anna " in (tmp_path / "whisper.sys").read_text()
    assert "| bo_b " in (tmp_path / "whisper.sys").read_text()
    assert "id: (anna-u-1)" in (tmp_path / "whisper.pra").read_text()


def test_reports_with_times_have_slices(tmp_path: Path) -> None:
    row = Utterance(
        utt_id="u", audio_filepath="x", duration=1, text="", speaker="s", age="12+", noisy=True
    )
    run_sclite_times([Pair(row, ["a"], ["a"], timed(["a"]))], "t", tmp_path)
    report = (tmp_path / "t.lur").read_text()
    assert "age12up" in report
    assert "noisy" in report


def test_word_without_time_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"u-1.*time"):
        run_sclite_times([Pair(utterance("u-1"), ["a"], ["a"], [Word(text="a")])], "t", tmp_path)


def test_random_corpus_costs_are_minimal(tmp_path: Path) -> None:
    rng = random.Random(1)
    vocabulary = [f"w{i}" for i in range(20)]
    pairs = [
        Pair(
            utterance(f"u{i}", f"s{i % 7}"),
            rng.choices(vocabulary, k=rng.randint(0, 15)),
            rng.choices(vocabulary, k=rng.randint(0, 15)),
        )
        for i in range(500)
    ]
    assert run_sclite(pairs, "random", tmp_path).utterances == 500


def test_a_report_that_lost_an_utterance_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sclite drops utterances that the hypothesis file lacks and exits with 0."""
    import scoring.sclite as module

    write = module.write_trn
    monkeypatch.setattr(
        module,
        "write_trn",
        lambda path, lines: write(path, list(lines)[: -1 if "hyp" in path.name else None]),
    )
    pairs = [Pair(utterance(f"u{i}"), ["a"], ["a"]) for i in range(3)]
    with pytest.raises(ValueError, match=r"has 2 utterances, must have 3; missing: s-u2"):
        run_sclite(pairs, "x", tmp_path)
