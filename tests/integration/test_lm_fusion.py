"""Fusion inside transformers' own search: every hypothesis' total is AM + alpha LM + beta words."""

import pytest
import torch
from transformers import GenerationMixin, WhisperConfig, WhisperForConditionalGeneration

from lm import NGram, WordFusionProcessor
from lm.ngram import words_of
from lm.shallow_fusion import token_bytes
from lm.train import train

G = "\u0120"
TOKENS = [
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>",
    f"{G}the", f"{G}cat", f"{G}dog", f"{G}go", "ed", f"{G}home", "'s", ".", ",", f"{G}a", "the",
    f"{G}-", f"{G}twenty", "-", "one", G, f"{G}caf", "\u00c3", "\u00a9",
]  # fmt: skip
EOS, PROMPT = 0, [1, 2, 3, 4]
ALPHA, BETA = 0.6, 0.9
STEPS = 12


@pytest.fixture(scope="module")
def ngram(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fusion")
    (folder / "text").write_text("the cat goed home\nthe dog's cat\na twenty-one\nthe dog goed")
    train([folder / "text"], folder / "lm", order=3)
    return NGram(folder / "lm")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    config = WhisperConfig(
        vocab_size=len(TOKENS) + 3,  # padded, as checkpoints may be
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_mel_bins=8,
        max_source_positions=20,
        max_target_positions=32,
        pad_token_id=EOS,
        bos_token_id=EOS,
        eos_token_id=EOS,
        decoder_start_token_id=PROMPT[0],
        suppress_tokens=None,
        begin_suppress_tokens=None,
        init_std=0.5,  # sharper than an untrained model's near-uniform output
    )
    model = WhisperForConditionalGeneration(config).eval()
    # Untrained, it would hardly ever end a text.
    bias = torch.zeros(config.vocab_size)
    bias[EOS] = 4.0
    model.proj_out.bias = torch.nn.Parameter(bias)
    return model


@pytest.fixture(scope="module")
def features():
    return torch.randn(3, 8, 40, generator=torch.Generator().manual_seed(1))


def search(model, features, processor, **settings):
    return GenerationMixin.generate(
        model,
        features,
        decoder_input_ids=torch.tensor([PROMPT] * len(features)),
        logits_processor=[processor] if processor else [],
        suppress_tokens=[*PROMPT, *range(len(TOKENS), len(TOKENS) + 3)],
        max_new_tokens=STEPS,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )


def fusion(ngram, alpha=ALPHA, beta=BETA, **options):
    return WordFusionProcessor(
        ngram, TOKENS, eos_id=EOS, prompt_length=len(PROMPT), alpha=alpha, beta=beta, **options
    )


def text_of(tokens):
    return b"".join(token_bytes(TOKENS[token]) for token in tokens).decode(errors="replace")


def acoustic_score(model, features, tokens):
    """Sum the log-probabilities of ``tokens`` by one forward pass, without any search."""
    ids = torch.tensor([PROMPT + tokens])
    with torch.no_grad():
        logits = model(input_features=features[None], decoder_input_ids=ids[:, :-1]).logits[0]
    return sum_of(logits[len(PROMPT) - 1 :], tokens)


def sum_of(logits, tokens):
    """Sum the log-probabilities of ``tokens``, one row of logits each."""
    log_probs = torch.log_softmax(logits, -1)
    return float(log_probs[range(len(tokens)), tokens].sum())


def until_end(sequence):
    tokens = sequence[len(PROMPT) :].tolist()
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens


def test_every_hypothesis_of_the_beam_has_the_exact_total(model, features, ngram):
    processor = fusion(ngram)
    found = search(model, features, processor, num_beams=5, num_return_sequences=5)
    ended = 0
    for n, sequence in enumerate(found.sequences):
        tokens = until_end(sequence)
        fused = processor.fused(tokens)
        expected = acoustic_score(model, features[n // 5], tokens)
        expected += ALPHA * fused.lm + BETA * fused.words
        assert float(found.sequences_scores[n]) == pytest.approx(expected, abs=1e-3)
        if tokens[-1] == EOS:
            ended += 1
            text = text_of(tokens)
            assert fused.lm == pytest.approx(ngram.score_text(text), abs=1e-6)
            assert fused.words == len(words_of(text))
    assert ended >= 5
    rows = {(n // 5, *row.tolist()) for n, row in enumerate(found.sequences)}
    assert len(rows) == 15


def test_one_processor_serves_batches_of_any_shape(model, features, ngram):
    """Searches one after the other with one object give what fresh objects give."""
    shared = fusion(ngram)
    for batch, beams in ((features, 5), (features[1:2], 3), (features[:2], 5)):
        fresh = fusion(ngram)
        used, new = (search(model, batch, one, num_beams=beams) for one in (shared, fresh))
        assert torch.equal(used.sequences, new.sequences)
        assert torch.equal(used.sequences_scores, new.sequences_scores)


def test_greedy_scores_are_exact_too(model, features, ngram):
    processor = fusion(ngram, raw_logits=True)
    suppressed = [*PROMPT, *range(len(TOKENS), len(TOKENS) + 3)]
    found = search(model, features, processor, num_beams=1, output_logits=True)
    steps = model.compute_transition_scores(found.sequences, found.scores)
    for n, sequence in enumerate(found.sequences):
        tokens = until_end(sequence)
        logits = torch.stack(found.logits, 1)[n, : len(tokens)]
        logits[:, suppressed] = -torch.inf
        fused = processor.fused(tokens)
        expected = sum_of(logits, tokens) + ALPHA * fused.lm + BETA * fused.words
        assert float(steps[n, : len(tokens)].sum()) == pytest.approx(expected, abs=1e-3)


def test_a_heavy_ngram_leads_the_search(model, features, ngram):
    def average(processor):
        found = search(model, features, processor, num_beams=5)
        texts = [text_of(until_end(sequence)) for sequence in found.sequences]
        return sum(ngram.score_text(text) / (1 + len(words_of(text))) for text in texts)

    led = fusion(ngram, alpha=3.0, beta=3.0)
    assert average(led) > average(None)
