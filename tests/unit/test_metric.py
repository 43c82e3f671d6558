"""The competition's figure to the last digit, counts that pool, and honest intervals."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import Hypothesis, NBest, Utterance
from scoring.bootstrap import group_by_unit, resample, wer_interval
from scoring.counts import ErrorCounts, count_errors, edits
from scoring.metric import check_ids, competition_wer, count_word_errors
from scoring.normalize import _normalizer, normalize_english
from scoring.pairs import score_system
from scoring.slices import slice_indices

SPOKEN = [
    *("he", "goed", "um", "uh", "a", "I", "colour", "twenty", "one", "two", "oh", "and", "half"),
    *("minus", "Mr.", "it's", "he\u2019s", "3", "o'clock", "$5.50", "20%", "(noise)", "[laughs]"),
    *("caf\u00e9", "tooths,", "won't", "-", "?", "\u6f22\u5b57", "per", "cent", "gonna", "'cause"),
]
utterance_text = st.lists(st.sampled_from(SPOKEN), max_size=10).map(" ".join)


def organisers_normalizer():  # type: ignore[no-untyped-def]
    """Build the normaliser the plain way: through transformers' package."""
    import whisper_normalizer
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    table = Path(whisper_normalizer.__file__).parent / "normalizers" / "english.json"
    return EnglishTextNormalizer(json.loads(table.read_text()))


def test_wer_equals_the_organisers_definition_to_the_last_digit() -> None:
    normalize = organisers_normalizer()
    rng = random.Random(1)
    for _ in range(30):
        refs, hyps = (
            [" ".join(rng.choices(SPOKEN, k=rng.randint(0, 9))) for _ in range(40)]
            for _ in range(2)
        )
        expected = jiwer.wer([normalize(text) for text in refs], [normalize(text) for text in hyps])
        ids = [f"u{i}" for i in range(len(refs))]
        shuffled = list(zip(ids, hyps, strict=True))
        rng.shuffle(shuffled)
        got = competition_wer(dict(zip(ids, refs, strict=True)), dict(shuffled))
        assert got == expected


@given(st.lists(st.tuples(utterance_text, utterance_text), min_size=1, max_size=5))
def test_counts_equal_jiwers(texts: list[tuple[str, str]]) -> None:
    refs, hyps = zip(*texts, strict=True)
    output = jiwer.process_words(
        [normalize_english(text) for text in refs], [normalize_english(text) for text in hyps]
    )
    counts = count_word_errors(refs, hyps)
    expected = (output.substitutions, output.deletions, output.insertions)
    assert (counts.sub, counts.deletions, counts.insertions) == expected
    assert counts.rate == output.wer


@pytest.mark.parametrize(
    ("said", "compared"),
    [
        ("one two three", "123"),
        ("oh", "0"),
        ("3 o'clock", "30 clock"),
        ("um uh hmm", ""),
        ("he\u2019s", "he s"),
        ("I goed", "i goed"),
        ("A", "a"),
        ("", ""),
        ("colour", "color"),
    ],
)
def test_known_behaviour_of_the_normaliser(said: str, compared: str) -> None:
    assert normalize_english(said) == compared


def plain_texts() -> st.SearchStrategy[str]:
    """Texts of words that the normaliser may treat specially, common ones and any letters."""
    normalizer = _normalizer()
    table = [*normalizer.standardize_numbers.words, *normalizer.standardize_spellings.mapping]
    words = ["half", "a", "and", "i", "um", "mr", "st", "gonna", "all", "been", "got", "goed"]
    words += ["and a half", "s", "t", "d", "o", "ma", "am", "cent", "per", "can", "let"]
    letters = st.text("abdhlmnostuy", min_size=1, max_size=4)
    word = st.sampled_from(words) | st.sampled_from(table) | letters
    marks = st.sampled_from([" ", " ", " ", ". ", ", ", "? ", "! ", ".", "..", "...", " . . ", "'"])
    return st.lists(st.tuples(word, marks), max_size=7).map(
        lambda parts: "".join(word + mark for word, mark in parts)
    )


@settings(max_examples=1500)
@given(st.deferred(plain_texts), st.booleans())
def test_short_cut_of_plain_words_changes_nothing(text: str, capital: bool) -> None:
    text = text.capitalize() if capital else text
    assert normalize_english(text) == " ".join(_normalizer()(text).split())


def texts_in_parts() -> st.SearchStrategy[str]:
    """Texts of words that stand alone and of words that reach over others."""
    words = ["dog", "he", "a", "n't", "onen't", "sn't", "andn't", "he's", "it's", "w7", "7", "7s"]
    words += ["th", "s", "st", "been", "got", "gone", "done", "been7", "um", "um'x", "one7", "1"]
    words += ["and", "half", "i'ma", "y'all", "o'clock", "01", "double", "minus", "point", "per"]
    words += ["cents", "dollars", "percent", "hundred", "two", "oh", "th7", "don't", "he'd", "mr"]
    word = st.tuples(st.sampled_from(words), st.sampled_from(["", "", "", "", ",", ".", "?"]))
    return st.lists(word.map("".join), max_size=8).map(" ".join)


@settings(max_examples=1500)
@given(texts_in_parts(), st.sampled_from([" ", " ", "  "]))
def test_texts_normalised_in_parts_are_the_same(text: str, space: str) -> None:
    text = text.replace(" ", space)
    assert normalize_english(text) == " ".join(_normalizer()(text).split())


def test_every_spelling_and_special_word_alone_and_twice() -> None:
    normalizer = _normalizer()
    words = {*normalizer.standardize_numbers.words, *normalizer.standardize_spellings.mapping}
    for word in words:
        for text in (word, f"and {word} and", f"a {word} a"):
            assert normalize_english(text) == " ".join(normalizer(text).split())


def test_empty_references_and_hypotheses() -> None:
    assert competition_wer({"a": "", "b": "i go"}, {"a": "uh no", "b": ""}) == 3 / 2
    assert competition_wer({"a": ""}, {"a": ""}) == 0
    assert competition_wer({"a": ""}, {"a": "no no"}) == jiwer.wer("", "no no") == 2


def test_one_letter_words_count() -> None:
    assert competition_wer({"u": "a", "v": "I"}, {"u": "I", "v": "I"}) == 0.5


def test_ids_must_match() -> None:
    with pytest.raises(ValueError, match="missing: b; unknown: c"):
        competition_wer({"a": "", "b": ""}, {"a": "", "c": ""})
    with pytest.raises(ValueError, match="H: doubled: a; every utterance"):
        check_ids(["a"], ["a", "a"], "H")
    many = [f"u{i:03}" for i in range(57)]
    with pytest.raises(ValueError, match=r"missing: u000, .*, u009, \.\.\. \(57 in all\)"):
        check_ids(many, [])


tokens = st.lists(st.sampled_from("abc"), max_size=8)


@given(tokens, tokens)
def test_edits_rebuild_the_hypothesis(ref: list[str], hyp: list[str]) -> None:
    built, position = [], 0
    for kind, i, j in edits(ref, hyp):
        built += ref[position:i]
        position = i + (kind != "insert")
        built += [hyp[j]] if kind != "delete" else []
    assert built + ref[position:] == hyp
    counts = count_errors(ref, hyp)
    assert counts.words - counts.deletions + counts.insertions == len(hyp)


counts_strategy = st.builds(ErrorCounts, *[st.integers(0, 99)] * 4)


@given(counts_strategy, counts_strategy, counts_strategy)
def test_counts_pool(a: ErrorCounts, b: ErrorCounts, c: ErrorCounts) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + ErrorCounts() == a
    assert (a + b).errors == a.errors + b.errors


def test_speakers_are_drawn_whole() -> None:
    table = np.array([[1, 10], [2, 20], [3, 30], [4, 40]])
    units = group_by_unit(table, ["x", None, "x", None])
    assert units.tolist() == [[4, 40], [2, 20], [4, 40]]


@pytest.mark.parametrize("distinct", [3, 400])
def test_both_ways_of_drawing_have_the_bootstrap_distribution(distinct: int) -> None:
    """Mean n * mean and variance n * var of the sum, within four standard errors."""
    rng = np.random.default_rng(0)
    units = np.stack([rng.integers(distinct, size=400), np.full(400, 10)], axis=1)
    sums = resample(units, 4000, seed=3)
    assert (sums[:, 1] == 4000).all()
    values, count = units[:, 0], len(units)
    error = np.sqrt(count * values.var() / 4000)
    assert abs(sums[:, 0].mean() - values.sum()) < 4 * error
    assert sums[:, 0].var() == pytest.approx(count * values.var(), rel=0.1)


@pytest.mark.parametrize("columns", [1, 2, 3, 5])
def test_columns_are_drawn_together(columns: int) -> None:
    """All columns of a replicate are sums over the same rows, as drawn one by one."""
    units = np.random.default_rng(0).integers(1 << 20, size=(300, columns))
    picks = np.random.default_rng(7).integers(300, size=(50, 300), dtype=np.int32)
    assert (resample(units, 50, seed=7) == units[picks].sum(axis=1)).all()


def test_interval_is_seeded_and_needs_two_speakers() -> None:
    units = np.array([[1, 10], [3, 10], [5, 10]])
    assert wer_interval(units, 500) == wer_interval(units, 500)
    low, high = wer_interval(units, 500) or (1, 0)
    assert 0.1 <= low < 0.3 < high <= 0.5
    assert wer_interval(units[:1], 500) is None
    assert wer_interval(units, 0) is None
    assert wer_interval(np.array([[1, 0], [2, 0]]), 10) is None


def test_slices_cover_every_utterance_once_in_each_dimension() -> None:
    rows = [
        Utterance(utt_id="a", audio_filepath="x", duration=1, age="12+", speaker="s"),
        Utterance(utt_id="b", audio_filepath="x", duration=2, age="3-4", noisy=False),
        Utterance(utt_id="c", audio_filepath="x", duration=40),
    ]
    slices = slice_indices(rows)
    assert slices["all"] == [0, 1, 2]
    ages = {name: found for name, found in slices.items() if name.startswith("age=")}
    assert list(ages.items()) == [("age=3-4", [1]), ("age=12+", [0]), ("age=unknown", [2])]
    assert slices["noise=unknown"] == [0, 2]
    assert slices["duration=30s+"] == [2]
    assert not any(name.startswith("source=") for name in slices)


def test_normalising_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from scoring.normalize import normalize_english as n; n('a');"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_could_not_be_decoded_counts_as_empty() -> None:
    ref = Utterance(utt_id="u", audio_filepath="x", duration=1, text="he goed")
    row = NBest(utt_id="u", system="s", hyps=(Hypothesis(text="he goed"),), error="broken")
    scores = score_system("s", [ref], [row])
    assert scores.utterances[0].words == ErrorCounts(words=2, deletions=2)
    assert scores.failed == list(scores.utterances)
