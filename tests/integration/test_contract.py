"""What every recogniser must do, run on every one that is registered.

A new system adds itself to `systems.contract.REGISTRY` and its line to `SYSTEMS` here: a fixture
that gives a checkpoint which knows the language of tones, and config overrides.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
import soxr

from manifests import NBest, Utterance, read_manifest, read_nbest, write_rows
from systems.config import load_config
from systems.contract import REGISTRY, System, system_class
from systems.decode import decode
from systems.merge import merge

RATE = 16_000
OVER_WORD_ERRORS = 0.2  # the tiny models are not perfect on joins they never heard


@dataclass(frozen=True)
class Setup:
    """How a system is put to the test."""

    trained: str  # fixture: a checkpoint that knows the tones
    untrained: str  # fixture: a checkpoint to fine-tune
    decode: tuple[str, ...]
    train: tuple[str, ...]


SYSTEMS = {
    "nemo": Setup(
        trained="trained_nemo",
        untrained="tiny_nemo",
        decode=("device=cpu", "window=4", "decode.batch_seconds=40", "decode.processes=1"),
        train=("device=cpu", "text=raw", "train.max_steps=4", "train.eval_steps=2",
               "train.batch_seconds=8", "train.num_workers=0", "train.max_eval_utterances=4",
               "train.report_to=[]"),
    ),
    "owsm": Setup(
        trained="trained_owsm",
        untrained="tiny_owsm",
        decode=("device=cpu", "decode.batch_seconds=40"),
        train=("device=cpu", "train.max_steps=4", "train.eval_steps=2", "train.batch_size=4",
               "train.accumulation=1", "train.num_workers=0", "train.max_eval_utterances=4",
               "train.report_to=[]"),
    ),
    "whisper": Setup(
        trained="trained_whisper",
        untrained="tiny_whisper",
        decode=("window=auto", "device=cpu", "decode.batch_seconds=40"),
        train=("window=2", "device=cpu", "train.max_steps=4", "train.eval_steps=2",
               "train.batch_size=4", "train.accumulation=1", "train.num_workers=0",
               "train.max_eval_utterances=4", "train.report_to=[]"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A system with its checkpoint."""

    name: str
    config: Any
    checkpoint: str

    def system(self) -> System:
        return system_class(self.name)(self.config)

    def decode(self, utterances: Sequence[Utterance]) -> dict[str, NBest]:
        """Decode and check that each utterance has exactly one row."""
        rows = list(self.system().decode(utterances, self.checkpoint))
        assert sorted(row.utt_id for row in rows) == sorted(one.utt_id for one in utterances)
        assert {row.system for row in rows} <= {self.name}
        return {row.utt_id: row for row in rows}


@pytest.fixture(scope="module", params=sorted(REGISTRY))
def case(request: pytest.FixtureRequest) -> Case:
    name = request.param
    assert name in SYSTEMS, f"{name} is registered but has no line in SYSTEMS"
    config = load_config(system_class(name).config_type, None, SYSTEMS[name].decode)
    return Case(name, config, str(request.getfixturevalue(SYSTEMS[name].trained)))


@pytest.fixture(scope="module")
def good(tone_corpus: Any) -> list[Utterance]:
    return list(read_manifest(tone_corpus.dev))


@dataclass(frozen=True)
class Heard:
    """One manifest with every kind of trouble in it, and the good ones of it alone."""

    mixed: dict[str, NBest]
    alone: dict[str, NBest]
    utterances: dict[str, Utterance]


@pytest.fixture(scope="module")
def heard(case: Case, good: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Heard:
    trouble = troubles(tmp_path_factory.mktemp("troubles"), good)
    half = len(good) // 2
    mixed = [*good[:half], *trouble, *good[half:]]
    return Heard(case.decode(mixed), case.decode(good), {one.utt_id: one for one in mixed})


def troubles(folder: Path, good: Sequence[Utterance]) -> list[Utterance]:
    """Write what recognisers are known to stumble over."""
    speech = [soundfile.read(one.audio_filepath, dtype="float32")[0] for one in good]
    rows = []

    def add(name: str, samples: np.ndarray, rate: int = RATE, **kwargs: Any) -> None:
        soundfile.write(folder / f"{name}.wav", samples, rate, **kwargs)
        duration = max(len(samples) / rate, 0.01)
        rows.append(
            Utterance(
                utt_id=name,
                audio_filepath=str(folder / f"{name}.wav"),
                duration=duration,
                text=texts.get(name),
            )
        )

    first = next(sound for one, sound in zip(good, speech, strict=True) if one.text)
    # Long sentences: the tiny models never heard a pause inside of what they learned from.
    long = [
        pair for pair in zip(good, speech, strict=True) if len((pair[0].text or "").split()) > 3
    ]
    forty: list[np.ndarray] = []
    said: list[str] = []
    for one, sound in itertools.cycle(long):
        forty += [sound, np.zeros(RATE // 3, np.float32)]
        said.append(one.text or "")
        if sum(map(len, forty)) > 40 * RATE:
            break
    texts = {"forty-seconds": " ".join(said)}
    louder = soxr.resample(first, RATE, 44_100)
    nan = first.copy()
    nan[100] = np.nan
    add("silence", np.zeros(3 * RATE, np.float32))
    add("fifty-ms", first[2000:2800])
    add("forty-seconds", np.concatenate(forty))
    add("stereo-44k", np.stack([louder, louder], axis=1), 44_100)
    add("nan", nan, subtype="FLOAT")
    add("no-samples", np.zeros(0, np.float32))
    (folder / "corrupt.flac").write_bytes(np.random.default_rng(1).bytes(4000))
    (folder / "zero-bytes.wav").write_bytes(b"")
    for name in ("missing.wav", "corrupt.flac", "zero-bytes.wav"):
        rows.append(
            Utterance(
                utt_id=name.partition(".")[0], audio_filepath=str(folder / name), duration=2.0
            )
        )
    return rows


def test_neighbours_do_not_pay_for_bad_files(heard: Heard) -> None:
    for utt_id, alone in heard.alone.items():
        mixed = heard.mixed[utt_id]
        assert mixed.error is None
        assert [hyp.text for hyp in mixed.hyps] == [hyp.text for hyp in alone.hyps]
        for one, other in zip(mixed.hyps, alone.hyps, strict=True):
            assert one.score == pytest.approx(other.score, abs=2e-3)


@pytest.mark.parametrize("utt_id", ["nan", "missing", "corrupt", "zero-bytes", "no-samples"])
def test_what_cannot_be_heard_is_an_error_row(heard: Heard, utt_id: str) -> None:
    row = heard.mixed[utt_id]
    assert row.error
    assert [hyp.text for hyp in row.hyps] == [""]


def test_silence_is_empty_and_no_error(heard: Heard) -> None:
    assert heard.mixed["silence"].error is None
    assert [hyp.text for hyp in heard.mixed["silence"].hyps] == [""]


def test_fifty_milliseconds_are_heard_without_an_error(heard: Heard) -> None:
    row = heard.mixed["fifty-ms"]
    assert row.error is None
    assert all(word.end <= 0.05 for hyp in row.hyps for word in hyp.words or ())


def test_rate_and_channels_do_not_change_what_is_heard(heard: Heard, good: list[Utterance]) -> None:
    first = next(one for one in good if one.text)
    assert heard.mixed["stereo-44k"].best.text == heard.alone[first.utt_id].best.text


def test_long_audio_is_heard_to_its_end(heard: Heard) -> None:
    row, truth = heard.mixed["forty-seconds"], heard.utterances["forty-seconds"]
    assert row.error is None
    assert jiwer.wer(truth.text, row.best.text) < OVER_WORD_ERRORS
    assert row.best.words is not None
    assert row.best.words[-1].end is not None
    assert row.best.words[-1].end > truth.duration - 1.5


def test_it_recognises(heard: Heard, good: list[Utterance]) -> None:
    """Else the other tests could not tell a recogniser from a random one."""
    truth = " ".join(one.text or "" for one in good)
    said = " ".join(heard.alone[one.utt_id].best.text for one in good)
    assert jiwer.wer(truth, said) < 0.1


def test_hypotheses_are_distinct_and_scored(heard: Heard) -> None:
    assert any(len(row.hyps) > 1 for row in heard.mixed.values())
    for row in heard.mixed.values():
        texts = [hyp.text for hyp in row.hyps]
        assert len(set(texts)) == len(texts)
        if row.error is None and row.best.text:
            assert all(hyp.score is not None and hyp.score <= 0 for hyp in row.hyps)


def test_words_spell_the_text_with_sound_times_and_confidences(heard: Heard) -> None:
    for utt_id, row in heard.mixed.items():
        end = heard.utterances[utt_id].duration
        for hyp in row.hyps:
            if row.error is not None:
                continue
            assert hyp.words is not None
            assert " ".join(word.text for word in hyp.words) == hyp.text
            times = [time for word in hyp.words for time in (word.start, word.end)]
            assert all(time is not None and 0 <= time <= end + 1e-3 for time in times)
            starts = [word.start for word in hyp.words]
            assert starts == sorted(starts)  # type: ignore[type-var]
            assert all(word.start <= word.end for word in hyp.words)  # type: ignore[operator]
            assert all(
                word.confidence is not None and 0 <= word.confidence <= 1 for word in hyp.words
            )


def test_shards_are_the_whole(case: Case, good: list[Utterance], tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    write_rows(manifest, good)
    whole = tmp_path / "whole.jsonl"
    decode(case.name, case.config, case.checkpoint, manifest, whole)
    shards = [tmp_path / f"{k}.jsonl" for k in (1, 2, 3)]
    for k, shard in enumerate(shards, 1):
        decode(case.name, case.config, case.checkpoint, manifest, shard, shard=(k, 3))
    merge(manifest, shards, tmp_path / "merged.jsonl")
    pairs = zip(read_nbest(whole), read_nbest(tmp_path / "merged.jsonl"), good, strict=True)
    for one, other, utterance in pairs:
        assert one.utt_id == other.utt_id == utterance.utt_id
        assert [hyp.text for hyp in one.hyps] == [hyp.text for hyp in other.hyps]


def test_training_writes_final_once(
    case: Case, tone_corpus: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    setup = SYSTEMS[case.name]
    pretrained = request.getfixturevalue(setup.untrained)
    config = load_config(
        system_class(case.name).config_type, None, [*setup.train, f"pretrained={pretrained}"]
    )
    system = system_class(case.name)(config)
    final = system.train(tone_corpus.dev, tone_corpus.dev, tmp_path / "exp")
    assert final == tmp_path / "exp" / "final"
    before = {path: path.stat().st_mtime_ns for path in final.iterdir()}
    assert system.train(tone_corpus.dev, tone_corpus.dev, tmp_path / "exp") == final
    assert {path: path.stat().st_mtime_ns for path in final.iterdir()} == before
    utterances = list(read_manifest(tone_corpus.dev))[:2]
    assert len(list(system.decode(utterances, str(final)))) == 2
