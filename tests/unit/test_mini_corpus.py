"""The synthetic corpus: what is drawn, what is heard, and that it is made once."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.corpora import import_corpus, mini
from manifests.corpora.mini import PLAN, RATE, Clip, SetPlan, Voice, clips, render
from manifests.corpora.mini_text import LATE_SOUNDS, SLIPS, sentence, spoken
from manifests.prepare import prepare
from manifests.rows import AGE_BUCKETS, UTT_ID, Rejected, Utterance

CHILDREN = ("train", "dev", "test")
VOICE = Voice(speaker="s", age="5-7", espeak="en-us+f2", pitch=80, rate=120, tract=1.2)
CLIP = Clip("s-000", VOICE, "s-s1", "the dog goed home", "the dog go-ed home", None, 7)


def level(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples.astype(float) ** 2)))


def test_the_same_seed_draws_the_same_corpus_and_another_seed_another() -> None:
    assert clips("dev") == clips("dev")
    assert [c.text for c in clips("dev")] != [c.text for c in clips("dev", seed=2)]


def test_sets_share_no_speaker_and_no_id() -> None:
    speakers = [{c.voice.speaker for c in clips(name)} for name in PLAN]
    assert sum(map(len, speakers)) == len(set.union(*speakers))
    ids = [c.utt_id for name in PLAN for c in clips(name)]
    assert len(ids) == len({i.lower() for i in ids})
    assert all(UTT_ID.fullmatch(i) for i in ids)


@pytest.mark.parametrize("name", CHILDREN)
def test_children_of_all_ages_in_noise_and_quiet_with_clips_without_speech(name: str) -> None:
    drawn = clips(name)
    assert {c.voice.age for c in drawn} == set(AGE_BUCKETS)
    assert {c.snr is None for c in drawn} == {True, False}
    assert 3 <= sum(not c.text for c in drawn) <= 0.1 * len(drawn)
    assert len({(c.voice.speaker, c.session) for c in drawn}) == 2 * PLAN[name].speakers


def test_a_closed_vocabulary_in_new_combinations() -> None:
    known = {c.text for name in ("adults", "train") for c in clips(name)}
    vocabulary = {word for text in known for word in text.split()}
    test = [c.text for c in clips("test") if c.text]
    assert {word for text in test for word in text.split()} <= vocabulary
    assert len(vocabulary) < 250
    assert sum(text in known for text in test) < 0.7 * len(test)
    assert sum(len(text.split()) for text in test) > 700


def test_the_younger_the_more_slips() -> None:
    def share(age: str) -> float:
        words = [w for c in clips("train") if c.voice.age == age for w in c.text.split()]
        slips = sum(w in SLIPS.values() for w in words)
        return slips / (slips + sum(w in SLIPS for w in words))

    shares = [share(age) for age in AGE_BUCKETS]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.6


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_sentences_have_no_slot_left(seed: int, slip: float) -> None:
    text = sentence(random.Random(seed), slip)
    assert text
    assert text == " ".join(text.split())
    assert not set(text) & set("{}")


def test_the_transcript_is_what_was_meant() -> None:
    rng = random.Random(1)
    assert spoken(rng, "the rabbit goed", late_sounds=1, repeats=1) == "the the wabbit go-ed"
    assert spoken(rng, "the rabbit goed", late_sounds=0, repeats=0) == "the rabbit go-ed"
    assert spoken(rng, "", late_sounds=1, repeats=1) == ""
    assert not any(c.text == c.spoken for c in clips("train") if "goed" in c.text)
    assert not {w for c in clips("train") for w in c.text.split()} & set(LATE_SOUNDS.values())


def test_a_clip_is_the_same_twice_and_fits_the_window() -> None:
    samples = render(CLIP)
    assert samples.dtype == np.float32
    assert 0.8 * RATE < samples.size < 4 * RATE
    assert 0.1 < np.abs(samples).max() < 1
    assert np.array_equal(samples, render(CLIP))


def test_a_long_sentence_is_said_faster() -> None:
    long = CLIP._replace(spoken="the dog can jump and " * 4)
    assert 3 * RATE < render(long).size < 4 * RATE


def test_a_shorter_tract_moves_the_spectrum_up_and_keeps_the_pace() -> None:
    def centre(samples: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        return float((power * np.arange(power.size)).sum() / power.sum() / samples.size)

    adult = render(CLIP._replace(voice=VOICE._replace(tract=1.0)))
    child = render(CLIP._replace(voice=VOICE._replace(tract=1.3)))
    assert centre(child) > 1.15 * centre(adult)
    assert child.size == pytest.approx(adult.size, rel=0.15)


def test_noise_has_the_level_asked_for() -> None:
    quiet = render(CLIP)  # 45 dB: as good as none
    noise = render(CLIP._replace(snr=8.0)) - quiet
    assert 20 * np.log10(level(quiet) / level(noise)) == pytest.approx(8, abs=0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_clips_without_speech_are_finite_and_short(seed: int) -> None:
    samples = render(CLIP._replace(text="", spoken="", seed=seed))
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() < 1
    assert 0.5 * RATE < samples.size < 2.6 * RATE


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini, "PLAN", {"train": SetPlan(speakers=4, turns=2, empty=0.3)})


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*.wav")}


@pytest.mark.usefixtures("small")
def test_what_exists_is_not_spoken_again_and_what_is_missing_comes_back(tmp_path: Path) -> None:
    rows = list(import_corpus("mini", tmp_path)["train"])
    made = files(tmp_path)
    assert len(rows) == len(made) == 8
    for row in rows:
        assert isinstance(row, Utterance)
        assert Path(row.audio_filepath).is_absolute()
        assert 0.1 < row.duration < 4
        assert row.noisy is not None
    assert list(import_corpus("mini", tmp_path)["train"]) == rows
    assert files(tmp_path) == made
    victim = Path(rows[3].audio_filepath)
    victim.rename(victim.with_name(victim.name + ".part"))  # as a kill leaves it
    assert list(import_corpus("mini", tmp_path)["train"]) == rows
    assert files(tmp_path)[victim.name][1] == made[victim.name][1]


@pytest.mark.usefixtures("small")
def test_a_limit_speaks_no_more_than_it_says(tmp_path: Path) -> None:
    rows = list(mini.import_corpus(tmp_path, limit=3)["train"])
    assert [row.utt_id for row in rows] == ["train-00-000", "train-01-000", "train-02-000"]
    assert len(files(tmp_path)) == 3


def test_another_clip_under_the_same_id_has_another_file() -> None:
    assert CLIP.file_name() == CLIP._replace().file_name()
    assert CLIP.file_name() != CLIP._replace(spoken="the dog went home").file_name()


def test_a_voice_that_espeak_lacks_costs_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = CLIP._replace(utt_id="bad", voice=VOICE._replace(espeak="xx+f9"))
    monkeypatch.setattr(mini, "PLAN", {"train": SetPlan(1, 2, 0.0)})
    monkeypatch.setattr(mini, "clips", lambda name: [bad, CLIP])
    rows = list(import_corpus("mini", tmp_path)["train"])
    assert isinstance(rows[0], Rejected)
    assert rows[0].utt_id == "bad"
    assert "xx+f9" in rows[0].reason
    assert isinstance(rows[1], Utterance)


def test_a_missing_synthesiser_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="apt-get install espeak-ng"):
        import_corpus("mini", tmp_path)


@pytest.mark.usefixtures("small")
def test_a_limited_preparation_speaks_no_more_than_it_keeps(tmp_path: Path) -> None:
    prepare("mini", tmp_path / "wav", tmp_path / "data", limit=2)
    assert len(files(tmp_path / "wav")) == 2
    assert len((tmp_path / "data" / "train.jsonl").read_text().splitlines()) == 2
