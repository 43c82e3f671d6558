"""The n-gram's scores are KenLM's own, in natural logarithms, over normalised words."""

import math
import pickle

import kenlm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm import NGram
from lm.ngram import words_of
from manifests import normalize_text

TEXT = """the cat sat on the mat
the dog sat on the cat
a dog goed home and the cat goed home
I don't like the dog's mat
twenty-one dogs and a cat
"""


@pytest.fixture(scope="module")
def folder(make_ngram):
    return make_ngram(TEXT.splitlines())


@pytest.fixture(scope="module")
def ngram(folder):
    return NGram(folder)


@pytest.fixture(scope="module")
def model(folder):
    return kenlm.Model(str(folder / "lm.binary"))


WORDS = st.sampled_from(["the", "cat", "dog", "goed", "home", "a", "i", "don't", "zebra", "tooths"])


@given(words=st.lists(WORDS, max_size=12))
def test_text_scores_equal_kenlms_own(ngram, model, words):
    text = " ".join(words)
    expected = math.log(10) * model.score(text, bos=True, eos=True)
    assert ngram.score_text(text) == pytest.approx(expected, abs=1e-4)


@given(words=st.lists(WORDS, max_size=8))
def test_word_by_word_adds_up_to_the_text(ngram, words):
    state, total = ngram.begin(), 0.0
    for word in words:
        state, score = ngram.score_word(state, word)
        total += score
    assert total + ngram.score_end(state) == pytest.approx(ngram.score_text(" ".join(words)))


def test_begin_and_end_count(ngram, model):
    inside = math.log(10) * model.score("the cat", bos=False, eos=False)
    assert ngram.score_text("the cat") != pytest.approx(inside, abs=0.01)
    assert ngram.score_text("") == pytest.approx(math.log(10) * model.score("", bos=True, eos=True))


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("Hello,", ("hello",)),
        ("--", ()),
        ("", ()),
        ("'", ()),
        ("twenty-one", ("twenty-one",)),
        ("no--no", ("no", "no")),
        ("and/or", ("and", "or")),
        ("dog\u2019s", ("dog's",)),
        ("<unk>", ("unk",)),
    ],
)
def test_a_word_may_be_none_or_several(ngram, word, words):
    assert words_of(word) == words
    state, score = ngram.begin(), 0.0
    for part in words:
        state, part_score = ngram.score_word(state, part)
        score += part_score
    assert ngram.score_word(ngram.begin(), word) == (state, score)


def test_vocabulary(ngram):
    assert ngram.in_vocabulary("Goed!")
    assert ngram.in_vocabulary("cat/dog")
    assert not ngram.in_vocabulary("zebra")
    assert not ngram.in_vocabulary("cat/zebra")
    assert not ngram.in_vocabulary("--")


def test_oov_penalty_is_added_per_unknown_word(folder, ngram):
    strict = NGram(folder, oov_penalty=-5.0)
    text = "the zebra and the tooths"
    assert strict.score_text(text) == pytest.approx(ngram.score_text(text) - 10.0)
    assert strict.score_text("the cat") == ngram.score_text("the cat")
    with pytest.raises(ValueError, match=r"oov_penalty is 1, must be <= 0"):
        NGram(folder, oov_penalty=1.0)


def test_perplexity_equals_kenlms_and_separates_unknown_words(ngram, model):
    known = ngram.perplexity(["The cat goed home."])
    assert known.perplexity == pytest.approx(model.perplexity("the cat goed home"), rel=1e-4)
    assert known.perplexity_without_oov == known.perplexity
    assert (known.sentences, known.words, known.oov, known.oov_rate) == (1, 4, 0, 0.0)

    mixed = ngram.perplexity(["the zebra sat", "", "--"])
    scores = [(p, oov) for p, _, oov in model.full_scores("the zebra sat")]
    assert mixed.oov_rate == pytest.approx(1 / 3)
    assert mixed.sentences == 1
    expected = 10 ** (-sum(p for p, oov in scores if not oov) / 3)
    assert mixed.perplexity_without_oov == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="every text is empty"):
        ngram.perplexity(["", "--"])


def test_pickles_by_path(folder):
    again = pickle.loads(pickle.dumps(NGram(folder, oov_penalty=-1.0)))
    assert (again.path, again.oov_penalty, again.order) == (folder, -1.0, 3)


def test_errors_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lm\.binary: no such n-gram"):
        NGram(tmp_path)
    (tmp_path / "lm.binary").write_text("no model")
    with pytest.raises(ValueError, match=r"lm\.binary: not a KenLM model"):
        NGram(tmp_path)


PIECES = st.sampled_from(
    ["a", "B", "\u00e9", "'", "-", "\u2019", ".", "_", " ", "\u03a3", "\u00a8"]
)


@given(text=st.lists(PIECES | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join))
def test_normalising_is_idempotent_and_local_to_white_space(text):
    """What fusion at word boundaries and the check of a built vocabulary rest on."""
    once = normalize_text(text)
    assert normalize_text(once) == once
    pieces = [normalize_text(piece) for piece in text.split(" ")]
    assert " ".join(piece for piece in pieces if piece) == once
