"""Whisper's search and teacher forcing against transformers' own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GenerationMixin, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from systems.guard import Window
from systems.whisper.attention import SHARED
from systems.whisper.decoder import WhisperDecoder
from systems.whisper.features import log_mel
from systems.whisper.rescore import force, median_filter
from systems.whisper.search import Heard, SearchConfig, beam_search
from tests.integration.conftest import WINDOW, Load, texts


@pytest.mark.parametrize(
    ("beams", "penalty", "limit"), [(1, 1.0, 20), (5, 1.0, 20), (3, 0.0, 12), (4, 2.0, 7)]
)
@pytest.mark.parametrize("which", ["trained_whisper", "tiny_whisper"])
def test_the_search_is_that_of_transformers(
    which: str,
    beams: int,
    penalty: float,
    limit: int,
    windows: list[Window],
    request: pytest.FixtureRequest,
    whisper_decoder: Load,
) -> None:
    """The same n-best with the same scores, though the work is done once per utterance."""
    loaded = whisper_decoder(request.getfixturevalue(which))
    with torch.inference_mode():
        found, sequences, ranks = search_twice(loaded, windows, beams, penalty, limit)
    flat = [hypothesis for heard in found for hypothesis in heard.found]
    assert len(flat) == beams * len(windows)
    for index, hypothesis in enumerate(flat):
        tokens = list(itertools.takewhile(lambda t: t != loaded.tokens.eos, sequences[index]))
        assert list(hypothesis.tokens) == tokens
        if beams > 1:
            assert hypothesis.rank == pytest.approx(ranks[index], abs=1e-4)
    if beams > 1:  # the trap of generate(): the best once for every hypothesis asked for
        assert all(len({one.tokens for one in heard.found}) == beams for heard in found)


def search_twice(
    loaded: WhisperDecoder, windows: Sequence[Window], beams: int, penalty: float, limit: int
) -> tuple[list[Heard], list[list[int]], list[float]]:
    """Return our search's result, and the sequences and scores of transformers'."""
    model, generation = loaded.model, loaded.model.generation_config
    prompts, encoded = loaded._prompts(windows), loaded._encode(windows, WINDOW)
    found = beam_search(
        model,
        encoded.cache(),
        prompts,
        torch.full((len(windows),), limit),
        SearchConfig(
            beams=beams,
            length_penalty=penalty,
            eos=loaded.tokens.eos,
            suppress=tuple(generation.suppress_tokens),
            begin_suppress=tuple(generation.begin_suppress_tokens),
        ),
        sot_index=0,
        no_speech=loaded.tokens.no_speech,
    )
    extractor = loaded.processor.feature_extractor
    features = log_mel([window.samples for window in windows], extractor, model.device)
    model.set_attn_implementation("sdpa")
    expected = GenerationMixin.generate(
        model,
        encoder_outputs=BaseModelOutput(model.model.encoder(features).last_hidden_state),
        decoder_input_ids=prompts,
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=limit,
        length_penalty=penalty,
        output_scores=True,
        return_dict_in_generate=True,
    )
    ranks = expected.sequences_scores.tolist() if beams > 1 else []
    return found, expected.sequences[:, prompts.shape[1] :].tolist(), ranks


def test_forced_scores_equal_searched_ones(loaded: WhisperDecoder, windows: list[Window]) -> None:
    """Sum of token log-probabilities, end of text included, not divided by the length."""
    heard = loaded.decode_batch(windows, WINDOW)
    compared = 0
    for one in heard:
        for ranked in one:
            tokens = loaded.tokens.encode(ranked.hypothesis.text)
            assert ranked.hypothesis.score is not None
            # Another spelling of the same text scores otherwise; the usual one is the rule.
            if math.isclose(ranked.hypothesis.score, ranked.rank * (len(tokens) + 1), abs_tol=2e-3):
                compared += 1
    assert compared > 0.8 * sum(map(len, heard))


def test_scores_without_the_second_pass_are_the_same(
    trained_whisper: Path, loaded: WhisperDecoder, windows: list[Window], whisper_decoder: Load
) -> None:
    quick = whisper_decoder(trained_whisper, "decode.word_times=false").decode_batch(
        windows, WINDOW
    )
    full = loaded.decode_batch(windows, WINDOW)
    assert texts(quick) == texts(full)
    for one, other in zip(itertools.chain(*quick), itertools.chain(*full), strict=True):
        assert one.hypothesis.words is None
        assert one.hypothesis.score == pytest.approx(other.hypothesis.score, abs=2e-3)


def test_decoding_leaves_the_model_as_it_was(loaded: WhisperDecoder, windows: list[Window]) -> None:
    """transformers' beam search repeats the encoder outputs in place, more with every call."""
    with torch.inference_mode():
        encoded = loaded._encode(windows, WINDOW)
        shapes = [keys.shape for keys, _ in encoded._layers]
        prompts = loaded._prompts(windows)
        first = loaded._search(windows, prompts, encoded)
        assert loaded._search(windows, prompts, encoded) == first
        assert [keys.shape for keys, _ in encoded._layers] == shapes
    assert loaded.decode_batch(windows, WINDOW) == loaded.decode_batch(windows, WINDOW)
    assert loaded.model.config._attn_implementation == SHARED
    assert not any(
        layer.encoder_attn._forward_pre_hooks for layer in loaded.model.model.decoder.layers
    )


def test_no_neighbour_changes_a_result(loaded: WhisperDecoder, windows: list[Window]) -> None:
    together = loaded.decode_batch(windows, WINDOW)
    alone = [loaded.decode_batch([window], WINDOW)[0] for window in windows]
    assert texts(together) == texts(alone)


def test_features_are_the_extractors(loaded: WhisperDecoder, windows: list[Window]) -> None:
    samples = [window.samples for window in windows]
    extractor = loaded.processor.feature_extractor
    ours = log_mel(samples, extractor, loaded.model.device)
    theirs = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
    assert torch.allclose(ours, theirs, atol=1e-4)
    with pytest.raises(ValueError, match="must have at most"):  # the extractor would cut it off
        log_mel([np.zeros(16_000 * 3, np.float32)], extractor, loaded.model.device)


@torch.inference_mode()
def test_forcing_sees_the_probabilities_and_attention_of_the_plain_model(
    trained_whisper: Path, loaded: WhisperDecoder, windows: list[Window], whisper_decoder: Load
) -> None:
    loaded = whisper_decoder(trained_whisper)
    few = windows[:3]
    tokens = [
        [loaded.tokens.encode(text) for text in (window.utterance.text or "", "a two")]
        for window in few
    ]
    prompts, encoded = loaded._prompts(few), loaded._encode(few, WINDOW)
    positions = [math.ceil(window.seconds * 50) for window in few]
    seen: list[torch.Tensor] = []

    import systems.whisper.rescore as rescore

    plain = rescore._attention
    rescore._attention = lambda *args: seen.append(plain(*args)) or seen[-1]  # type: ignore[func-returns-value]
    try:
        forced = force(loaded.model, encoded.cache(), prompts, tokens, positions)
    finally:
        rescore._attention = plain
    model: WhisperForConditionalGeneration = loaded.model
    model.set_attn_implementation("eager")
    extractor = loaded.processor.feature_extractor
    for index, window in enumerate(few):
        features = log_mel([window.samples], extractor, model.device)
        for which, ids in enumerate(tokens[index]):
            labels = torch.tensor([*ids, loaded.tokens.eos])
            inputs = torch.cat((prompts[index], labels[:-1]))[None]
            output = model(
                input_features=features, decoder_input_ids=inputs, output_attentions=True
            )
            log_probs = output.logits[0, prompts.shape[1] - 1 :].log_softmax(-1)
            expected = log_probs.gather(1, labels[:, None])[:, 0]
            assert forced[index][which].log_probs == pytest.approx(expected.numpy(), abs=1e-4)
            heads = model.generation_config.alignment_heads
            weights = torch.stack(
                [output.cross_attentions[layer][0, head] for layer, head in heads]
            )
            weights = weights[..., : positions[index]]
            weights = weights / weights.sum(-1, keepdim=True)
            got = seen[index][which][:, : weights.shape[1]]
            assert torch.allclose(got, weights, atol=1e-4)
            starts = forced[index][which].starts
            assert starts is not None
            assert len(starts) == len(labels)
            assert (np.diff(starts) >= 0).all()


def test_the_median_network_is_a_median() -> None:
    values = torch.randn(3, 4, 5, 40)
    padded = torch.nn.functional.pad(values.flatten(0, 2)[None], (3, 3), mode="reflect")[0]
    expected = padded.unfold(-1, 7, 1).median(-1).values.view(values.shape)
    assert torch.equal(median_filter(values), expected)
