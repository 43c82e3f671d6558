"""Decoding NeMo models against NeMo itself, and the traps of its `transcribe`."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
import torch

from lm.train import train as train_lm
from manifests import Utterance, read_manifest
from recipes.tiny_nemo import build
from systems.confidence import frame_confidence
from systems.config import load_config
from systems.ctc_config import ConfidenceConfig
from systems.nemo.checkpoint import load_model
from systems.nemo.config import NemoConfig
from systems.nemo.decoder import NemoDecoder, frame_seconds
from systems.nemo.system import NemoSystem

QUIET = ["device=cpu", "decode.processes=1"]


@pytest.fixture(scope="module")
def spoken(tone_corpus) -> list[Utterance]:
    return [row for row in read_manifest(tone_corpus.dev) if row.text]


def decode(utterances, checkpoint, *overrides: str, lm: Path | None = None):
    system = NemoSystem(load_config(NemoConfig, None, [*QUIET, *overrides]))
    return {row.utt_id: row for row in system.decode(utterances, str(checkpoint), lm)}


def test_greedy_is_transcribe_and_leaves_the_model_as_it_was(trained_nemo, spoken, tmp_path):
    """`transcribe` leaves its model in training mode: batch norms then drift with each forward."""
    model = load_model(trained_nemo)
    signal = torch.sin(torch.arange(16000) / 7)[None]

    def output() -> torch.Tensor:
        with torch.no_grad():
            return model.forward(input_signal=signal, input_signal_length=torch.tensor([16000]))[0]

    before = output()
    with contextlib.redirect_stderr(io.StringIO()):
        theirs = model.transcribe([row.audio_filepath for row in spoken], verbose=False)
    assert model.encoder.training  # the trap, as it is in NeMo
    ours = decode(spoken, trained_nemo, "decode.method=greedy")
    texts = [ours[row.utt_id].best.text for row in spoken]
    assert texts == [one.text.strip() for one in theirs]
    decoder = NemoDecoder(load_config(NemoConfig, None, QUIET), str(trained_nemo))
    assert not any(module.training for module in decoder.model.modules())
    model.eval()
    assert torch.equal(output(), before)


@pytest.mark.parametrize("measure", ["max_prob", "gibbs", "tsallis", "renyi"])
@pytest.mark.parametrize("norm", ["lin", "exp"])
@pytest.mark.parametrize("alpha", [0.33, 1.0])
def test_frame_confidences_are_nemos(measure, norm, alpha):
    from nemo.collections.asr.parts.utils.asr_confidence_utils import get_confidence_measure_bank

    generator = torch.Generator().manual_seed(1)
    log_probs = torch.log_softmax(3 * torch.randn(20, 30, generator=generator), -1)
    name = measure if measure == "max_prob" else f"entropy_{measure}_{norm}"
    theirs = get_confidence_measure_bank()[name](log_probs, v=30, t=alpha)
    ours = frame_confidence(log_probs, ConfidenceConfig(measure=measure, norm=norm, alpha=alpha))
    torch.testing.assert_close(ours, theirs.clamp(0, 1), rtol=1e-4, atol=1e-5)


def test_word_confidences_are_nemos(trained_nemo, spoken):
    from nemo.collections.asr.parts.submodules.ctc_decoding import CTCBPEDecodingConfig
    from nemo.collections.asr.parts.utils import asr_confidence_utils as nemos
    from omegaconf import OmegaConf

    wanted = ["decode.method=greedy", "decode.confidence.measure=tsallis"]
    wanted += ["decode.confidence.alpha=0.33", "decode.confidence.norm=exp"]
    ours = decode(spoken, trained_nemo, *wanted)
    model = load_model(trained_nemo)
    measure = nemos.ConfidenceMethodConfig(
        name="entropy", entropy_type="tsallis", alpha=0.33, entropy_norm="exp"
    )
    sure = nemos.ConfidenceConfig(preserve_word_confidence=True, method_cfg=measure)
    settings = OmegaConf.structured(CTCBPEDecodingConfig(confidence_cfg=sure))
    model.change_decoding_strategy(settings, verbose=False)
    with contextlib.redirect_stderr(io.StringIO()):
        theirs = model.transcribe([row.audio_filepath for row in spoken], batch_size=1,
                                  return_hypotheses=True, verbose=False)  # fmt: skip
    pairs = [
        (word.confidence, other)
        for row, hyp in zip(spoken, theirs, strict=True)
        for word, other in zip(ours[row.utt_id].best.words, hyp.word_confidence, strict=True)
    ]
    # NeMo counts a token of nothing but the word boundary as a part of the word; we do not.
    same = [one for one, other in pairs if one == pytest.approx(other, abs=5e-3)]
    assert len(same) > 0.9 * len(pairs)


def test_the_ngram_is_apart_and_is_heard(trained_nemo, spoken, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(row.text for row in spoken) + "\n", encoding="utf-8")
    train_lm([text], tmp_path / "lm", order=3)
    plain = decode(spoken, trained_nemo)
    fused = decode(spoken, trained_nemo, "decode.alpha=0.5", lm=tmp_path / "lm")
    for row in spoken:
        acoustic = {hyp.text: hyp.score for hyp in plain[row.utt_id].hyps}
        for hyp in fused[row.utt_id].hyps:
            assert hyp.lm_score < 0
            if hyp.text in acoustic:
                # The same but for alignments that one of the searches has pruned.
                assert hyp.score == pytest.approx(acoustic[hyp.text], abs=1.0)
    assert all(hyp.lm_score is None for row in plain.values() for hyp in row.hyps)


@pytest.fixture(scope="module")
def tdt(tmp_path_factory) -> Path:
    texts = ["a I goed home", "tooths two mouses saw"] * 4
    folder = tmp_path_factory.mktemp("tdt") / "init"
    return build(texts, folder, kind="tdt", d_model=32, layers=1, vocabulary=32, subsampling=8)


def test_a_tdt_gives_nbest_with_times_and_confidences(tdt, spoken, tmp_path):
    rows = decode(spoken[:4], tdt, "decode.nbest=4")
    assert any(len(row.hyps) > 1 for row in rows.values())
    text = tmp_path / "text.txt"
    text.write_text("a I goed home\n" * 20, encoding="utf-8")
    train_lm([text], tmp_path / "lm", order=3)
    fused = decode(spoken[:4], tdt, "decode.nbest=4", lm=tmp_path / "lm")
    greedy = decode(spoken[:4], tdt, "decode.method=greedy")
    for row in (*rows.values(), *fused.values(), *greedy.values()):
        assert row.error is None
        for hyp in row.hyps:
            assert hyp.score <= 0
            assert " ".join(word.text for word in hyp.words) == hyp.text
            assert all(0 <= word.confidence <= 1 for word in hyp.words)
            starts = [word.start for word in hyp.words]
            assert starts == sorted(starts)
    ranks = [
        [hyp.score + 0.5 * hyp.lm_score + 0.5 * len(hyp.text.split()) for hyp in row.hyps]
        for row in fused.values()
    ]
    assert all(order == sorted(order, reverse=True) for order in ranks)


def test_frames_and_heads(trained_nemo, tdt):
    assert frame_seconds(load_model(trained_nemo)) == pytest.approx(0.04)
    assert frame_seconds(load_model(tdt)) == pytest.approx(0.08)
    wanted = load_config(NemoConfig, None, [*QUIET, "head=ctc"])
    with pytest.raises(ValueError, match="head is 'ctc', which this EncDecRNNTBPEModel"):
        NemoDecoder(wanted, str(tdt))
