"""Charges at word boundaries add up to the n-gram's score of the text, whatever the tokens."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from lm import NGram, WordFusionProcessor
from lm.ngram import words_of
from lm.shallow_fusion import token_bytes

G = "\u0120"  # how byte-level BPE writes a space
E_ACUTE = ("\u00c3", "\u00a9")  # the two bytes of an accented e, as two tokens
PIECES = [
    "the", f"{G}the", f"{G}cat", f"{G}Dog", "s", "'s", f"{G}'", "'", f"{G}-", "-", f"{G}--",
    f"{G}twenty", "one", ",", ".", "\u010a", G, f"{G}{G}", f"{G}go", "ed", f"{G}caf", *E_ACUTE,
]  # fmt: skip
VOCABULARY = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|0.00|>", "<|1.50|>", *PIECES]
EOS, SOT, EN, TIME, LATER = range(5)
PROMPT = [SOT, EN]
TEXT_IDS = range(5, len(VOCABULARY))
ALPHA, BETA = 0.7, 1.3


@pytest.fixture(scope="module")
def ngram(make_ngram):
    texts = ["the cat goed home", "the dog's cat", "twenty-one dogs", "the caf\u00e9"]
    return NGram(make_ngram(texts))


def make(ngram, **options):
    settings = {"eos_id": EOS, "prompt_length": 2, "alpha": ALPHA, "beta": BETA, **options}
    return WordFusionProcessor(ngram, VOCABULARY, **settings)


def text_of(tokens, timestamp=" "):
    """What a tokenizer decodes, timestamps read as spaces."""
    parts = [
        timestamp.encode() if t in (TIME, LATER) else token_bytes(VOCABULARY[t]) for t in tokens
    ]
    return b"".join(parts).decode("utf-8", errors="replace")


def charges(processor, tokens):
    """Run the processor along a sequence; return the sum of what its tokens were charged."""
    total = 0.0
    for n, token in enumerate(tokens):
        ids = torch.tensor([PROMPT + tokens[:n]])
        total += processor(ids, torch.zeros(1, len(VOCABULARY), dtype=torch.float64))[0, token]
    return float(total)


def direct(ngram, text):
    return ALPHA * ngram.score_text(text) + BETA * len(words_of(text))


TOKENS = st.lists(st.sampled_from([*TEXT_IDS, TIME, LATER]), max_size=20)


@settings(max_examples=300, deadline=None)
@given(tokens=TOKENS)
def test_charges_equal_the_score_of_the_text(ngram, tokens):
    ended = [*tokens, EOS]
    expected = direct(ngram, text_of(tokens))
    processor = make(ngram)
    assert charges(processor, ended) == pytest.approx(expected, abs=1e-5)
    fused = processor.fused(ended)
    assert ALPHA * fused.lm + BETA * fused.words == pytest.approx(expected, abs=1e-9)
    assert processor.fused([*ended, EOS, EOS]) == fused


@settings(max_examples=100, deadline=None)
@given(tokens=TOKENS)
def test_what_is_cut_off_is_charged_as_the_search_charged_it(ngram, tokens):
    processor = make(ngram)
    fused = processor.fused(tokens)
    expected = ALPHA * fused.lm + BETA * fused.words
    assert charges(processor, tokens) == pytest.approx(expected, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(TOKENS, min_size=2, max_size=6), seed=st.integers(0, 99))
def test_rows_may_be_reordered_between_calls(ngram, rows, seed):
    """Beam search shuffles and copies rows; a fresh processor for each call must agree."""
    shuffle = random.Random(seed)
    used = make(ngram)
    for length in range(6):
        batch = [PROMPT + (row + [EOS] * 6)[:length] for row in shuffle.choices(rows, k=4)]
        ids, scores = torch.tensor(batch), torch.zeros(4, len(VOCABULARY))
        assert torch.equal(used(ids, scores), make(ngram)(ids, scores))


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([f"{G}twenty", "-", "one", ","], ["twenty-one"]),
        ([f"{G}Dog", "'s", "."], ["dog's"]),
        ([f"{G}--", f"{G}the"], ["the"]),
        ([f"{G}'", "the", "'"], ["the"]),
        (["the", f"{G}cat"], ["the", "cat"]),
        ([f"{G}caf", *E_ACUTE], ["caf\u00e9"]),
        ([f"{G}go", "ed", "\u010a", "the"], ["goed", "the"]),
        ([f"{G}the", "<|1.50|>", "the"], ["the", "the"]),
        ([], []),
    ],
)
def test_words_of_several_tokens(ngram, tokens, words):
    ids = [VOCABULARY.index(token) for token in tokens]
    assert words_of(text_of(ids)) == tuple(words)
    expected = direct(ngram, " ".join(words))
    assert charges(make(ngram), [*ids, EOS]) == pytest.approx(expected, abs=1e-5)


def test_only_tokens_that_complete_the_word_are_charged(ngram):
    ids = torch.tensor([[*PROMPT, VOCABULARY.index(f"{G}cat")]])
    result = make(ngram)(ids, torch.zeros(1, len(VOCABULARY)))[0]
    charged = {VOCABULARY[n] for n, value in enumerate(result.tolist()) if value}
    starts = {piece for piece in PIECES if piece[0] in (G, "\u010a")}
    assert charged == starts | {"<|endoftext|>", "<|0.00|>", "<|1.50|>"}
    word = ALPHA * ngram.score_word(ngram.begin(), "cat")[1] + BETA
    assert float(result[VOCABULARY.index(f"{G}the")]) == pytest.approx(word, abs=1e-5)


def test_scores_are_not_changed_in_place_and_banned_tokens_stay_banned(ngram):
    ids = torch.tensor([[*PROMPT, VOCABULARY.index(f"{G}cat")]] * 2)
    scores = torch.zeros(2, len(VOCABULARY))
    scores[:, [EOS, VOCABULARY.index(f"{G}the")]] = -math.inf
    before = scores.clone()
    result = make(ngram)(ids, scores)
    assert torch.equal(scores, before)
    assert torch.equal(result.isinf(), before.isinf())


def test_ended_rows_are_left_alone(ngram):
    ids = torch.tensor([[*PROMPT, VOCABULARY.index(f"{G}cat"), EOS, EOS]])
    scores = torch.randn(1, len(VOCABULARY))
    assert torch.equal(make(ngram)(ids, scores), scores)


def test_raw_logits_are_normalised_first(ngram):
    ids = torch.tensor([PROMPT])
    logits = 5 * torch.randn(1, len(VOCABULARY))
    plain = make(ngram)(ids, torch.log_softmax(logits, -1))
    assert torch.allclose(make(ngram, raw_logits=True)(ids, logits), plain, atol=1e-6)


def test_a_padded_vocabulary_and_a_longer_prompt(ngram):
    tokens = [VOCABULARY.index(f"{G}cat"), VOCABULARY.index(f"{G}the")]
    processor = make(ngram)
    short = processor(torch.tensor([PROMPT + tokens]), torch.zeros(1, len(VOCABULARY)))
    processor.set_begin_index(5)
    ids = torch.tensor([[tokens[1], tokens[1], tokens[1], *PROMPT, *tokens]])
    padded = processor(ids, torch.zeros(1, len(VOCABULARY) + 7))
    assert torch.equal(padded[:, : len(VOCABULARY)], short)
    assert not padded[:, len(VOCABULARY) :].any()


def test_byte_table_is_the_tokenizers():
    characters = set(ByteLevel.alphabet())
    assert sorted(token_bytes(char) for char in characters) == [bytes([n]) for n in range(256)]
    for char in "a \u00e9\u4e2d\U0001f600\n":
        pieces = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(char)
        assert b"".join(token_bytes(piece) for piece, _ in pieces) == char.encode()


def test_errors(ngram):
    with pytest.raises(ValueError, match=r"token 1 is '\u2581the', must be byte-level BPE"):
        WordFusionProcessor(ngram, ["a", "\u2581the"], eos_id=0, prompt_length=0, alpha=1, beta=0)
    with pytest.raises(ValueError, match=r"eos_id is 99, must lie in \[0, 28\)"):
        make(ngram, eos_id=99)
