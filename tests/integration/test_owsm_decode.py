"""OWSM's decoding against ESPnet's own, and the scores that fusion relies on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from lm.ngram import NGram
from lm.train import train as train_ngram
from manifests import NBest, Utterance, read_manifest
from systems.config import load_config
from systems.owsm.checkpoint import Owsm, load_owsm
from systems.owsm.config import DecodeConfig, OwsmConfig
from systems.owsm.ctc import BLANK, best_path
from systems.owsm.data import frames_of
from systems.owsm.search import Search
from systems.owsm.system import OwsmSystem
from systems.owsm.text_mask import text_mask

RATE = 16_000


@pytest.fixture(scope="module")
def owsm(trained_owsm: Path) -> Owsm:
    return load_owsm(trained_owsm)


@pytest.fixture(scope="module")
def good(tone_corpus: Any) -> list[Utterance]:
    return [one for one in read_manifest(tone_corpus.dev) if one.text]


def decode(
    utterances: list[Utterance], checkpoint: Path, lm: Path | None = None, *overrides: str
) -> list[NBest]:
    config = load_config(OwsmConfig, None, ["device=cpu", *overrides])
    rows = {row.utt_id: row for row in OwsmSystem(config).decode(utterances, str(checkpoint), lm)}
    return [rows[one.utt_id] for one in utterances]


def encoded(owsm: Owsm, utterance: Utterance) -> torch.Tensor:
    samples = torch.from_numpy(soundfile.read(utterance.audio_filepath, dtype="float32")[0])
    speech = torch.nn.functional.pad(samples, (0, owsm.samples - len(samples)))[None]
    with torch.inference_mode():
        states: torch.Tensor = owsm.model.encode(speech, torch.tensor([owsm.samples]))[0][0]
    return states


def primer(owsm: Owsm) -> list[int]:
    marks = [owsm.ids[name] for name in ("<eng>", "<asr>", "<notimestamps>")]
    return [owsm.model.sos, *marks]


def test_the_primer_is_no_ctc_output(owsm: Owsm, good: list[Utterance]) -> None:
    """A hypothesis' CTC score is the negative CTC loss of its tokens, end included."""
    search = Search(owsm.model, DecodeConfig(ctc_weight=0.3), text_mask(owsm))
    checked = 0
    with torch.inference_mode():
        for utterance in good[:6]:
            states = encoded(owsm, utterance)
            ctc = owsm.model.ctc.log_softmax(states[None])[0]
            for found in search.find(states, ctc, primer(owsm), 20):
                tokens = torch.tensor([found.tokens])
                loss = torch.nn.functional.ctc_loss(
                    ctc[:, None],
                    tokens,
                    torch.tensor([len(ctc)]),
                    torch.tensor([tokens.shape[1]]),
                    blank=BLANK,
                    reduction="sum",
                )
                assert found.scores["ctc"] == pytest.approx(-float(loss), abs=1e-2)
                checked += 1
    assert checked > 10


def test_a_search_is_espnets(trained_owsm: Path, owsm: Owsm, good: list[Utterance]) -> None:
    """Without CTC `Speech2Text` has no flaw: texts and scores must be its own."""
    from espnet2.bin.s2t_inference import Speech2Text

    files = owsm.layout
    theirs = Speech2Text(
        s2t_train_config=_absolute(owsm, trained_owsm),
        s2t_model_file=str(files.weights),
        beam_size=5,
        nbest=5,
    )
    rows = decode(good, trained_owsm, None, "decode.ctc_weight=0", "decode.blank_threshold=1")
    for utterance, row in zip(good, rows, strict=True):
        samples = soundfile.read(utterance.audio_filepath, dtype="float32")[0]
        expected = theirs(samples)
        assert row.best.text == expected[0][3]
        assert row.best.score == pytest.approx(float(expected[0][4].score), abs=1e-3)


def _absolute(owsm: Owsm, folder: Path) -> str:
    import yaml

    path = folder.parent / "absolute.yaml"
    path.write_text(yaml.safe_dump(owsm.layout.config), encoding="utf-8")
    return str(path)


def test_an_ngram_is_a_scorer(
    trained_owsm: Path, good: list[Utterance], tone_corpus: Any, tmp_path: Path
) -> None:
    train_ngram([tone_corpus.train], tmp_path / "lm", order=3)
    rows = decode(good, trained_owsm, tmp_path / "lm")
    plain = decode(good, trained_owsm)
    ngram = NGram(tmp_path / "lm")
    for row in rows:
        for hypothesis in row.hyps:
            expected = ngram.score_text(hypothesis.text)
            assert hypothesis.lm_score == pytest.approx(expected, abs=1e-3)
    by_text = {(row.utt_id, hyp.text): hyp.score for row in plain for hyp in row.hyps}
    shared = [
        (by_text[row.utt_id, hyp.text], hyp.score)
        for row in rows
        for hyp in row.hyps
        if (row.utt_id, hyp.text) in by_text
    ]
    assert len(shared) > 10
    assert all(left == pytest.approx(right, abs=1e-3) for left, right in shared)


def test_ctc_alone_is_its_best_path(
    trained_owsm: Path, owsm: Owsm, good: list[Utterance], tone_corpus: Any, tmp_path: Path
) -> None:
    rows = decode(good, trained_owsm, None, "decode.ctc_weight=1", "decode.ctc.method=greedy")
    for utterance, row in zip(good, rows, strict=True):
        with torch.inference_mode():
            heard = owsm.model.ctc.log_softmax(encoded(owsm, utterance)[None])
        tokens = best_path(heard[:, : frames_of(owsm, round(utterance.duration * RATE))])[0]
        assert row.best.text == " ".join(owsm.text(tokens.tolist()).split())
    assert len({row.best.text for row in rows}) > 3
    train_ngram([tone_corpus.train], tmp_path / "lm", order=3)
    one = "decode.ctc.processes=1"
    rows = decode(good, trained_owsm, tmp_path / "lm", "decode.ctc_weight=1", one)
    assert all(row.best.lm_score is not None for row in rows)


def test_length_bonus_and_limit(trained_owsm: Path, good: list[Utterance]) -> None:
    longer = decode(good, trained_owsm, None, "decode.length_bonus=30", "decode.min_tokens=4",
                    "decode.tokens_per_second=0.1")  # fmt: skip
    plain = decode(good, trained_owsm)
    assert sum(len(row.best.text) for row in longer) != sum(len(row.best.text) for row in plain)
    assert all(len(row.best.text.split()) <= 4 for row in longer)


def test_noise_and_hum_are_silence(trained_owsm: Path, tmp_path: Path) -> None:
    """The tones' corpus has silent utterances: what CTC hears nothing in stays empty."""
    rng = np.random.default_rng(3)
    soundfile.write(tmp_path / "noise.wav", 0.004 * rng.standard_normal(RATE), RATE)
    row = Utterance(utt_id="n", audio_filepath=str(tmp_path / "noise.wav"), duration=1.0)
    assert decode([row], trained_owsm, None, "decode.silence_dbfs=-100")[0].best.text == ""


def test_an_unknown_language_costs_only_its_utterance(
    trained_owsm: Path, good: list[Utterance]
) -> None:
    from msgspec.structs import replace

    rows = decode([good[0], replace(good[1], language="xx")], trained_owsm)
    assert rows[0].error is None
    assert rows[1].error is not None
    assert "xx" in rows[1].error


def test_owsm_ctc_hears_what_espnet_does(
    trained_owsm_ctc: Path, good: list[Utterance], tone_corpus: Any, tmp_path: Path
) -> None:
    """It has learned the tones (an empty text would not do), and ESPnet hears the same."""
    load_owsm(trained_owsm_ctc)
    from espnet2.bin.s2t_inference_ctc import Speech2TextGreedySearch

    owsm = load_owsm(trained_owsm_ctc)
    theirs = Speech2TextGreedySearch(
        s2t_train_config=_absolute(owsm, trained_owsm_ctc),
        s2t_model_file=str(owsm.layout.weights),
        lang_sym="<eng>",
        task_sym="<asr>",
    )
    one = ("decode.ctc.processes=1",)
    rows = decode(good, trained_owsm_ctc, None, "decode.ctc.method=greedy", *one)
    for utterance, row in zip(good, rows, strict=True):
        samples = soundfile.read(utterance.audio_filepath, dtype="float32")[0]
        padded = np.pad(samples, (0, owsm.samples - len(samples)))
        assert row.best.text == theirs(padded)[0][3].strip(), (row, theirs(padded)[0])
    right = [row.best.text == utterance.text for utterance, row in zip(good, rows, strict=True)]
    assert sum(right) > 0.7 * len(right)
    searched = decode(good, trained_owsm_ctc, None, *one)
    right = [row.best.text == utterance.text for utterance, row in zip(good, searched, strict=True)]
    assert sum(right) > 0.7 * len(right)
    train_ngram([tone_corpus.train], tmp_path / "lm", order=3)
    with_lm = decode(good, trained_owsm_ctc, tmp_path / "lm", *one)
    assert all(row.best.lm_score is not None for row in with_lm if row.best.text)


@pytest.mark.parametrize("setting", ["language=tlh", "task=sing"])
def test_a_language_or_task_that_nobody_can_hear_is_refused_at_once(
    trained_owsm: Path, good: list[Utterance], setting: str
) -> None:
    with pytest.raises(ValueError, match=r"knows no language or task '(tlh|sing)'"):
        decode(good[:1], trained_owsm, None, f"decode.{setting}")
