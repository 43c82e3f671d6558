"""`manifests.flac`: nothing lost or made twice, damage no reason to stop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from manifests import Utterance
from manifests.flac import Clip, Damaged, clip_path, prepare_clips


def utterances(corpus: Any, folder: Path, count: int) -> list[Utterance]:
    return [
        Utterance(
            utt_id=f"u{i:03}",
            audio_filepath=str(corpus.audio(folder / f"u{i:03}.wav", 0.3)),
            duration=0.3,
        )
        for i in range(count)
    ]


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.flac")}


@pytest.mark.parametrize("jobs", [1, 2])
def test_rows_come_back_in_order_with_their_audio(corpus: Any, tmp_path: Path, jobs: int) -> None:
    rows = utterances(corpus, tmp_path / "src", 100)
    results = list(prepare_clips(rows, tmp_path / "out", jobs))
    assert [row for row, _ in results] == rows
    for row, clip in results:
        assert isinstance(clip, Clip)
        info = soundfile.info(tmp_path / "out" / clip_path(row.utt_id))
        assert (info.format, info.subtype) == ("FLAC", "PCM_16")
        assert (info.samplerate, info.channels, info.frames) == (16_000, 1, 4_800)
        assert clip.seconds == 0.3
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_second_run_makes_only_what_is_missing_or_changed(corpus: Any, tmp_path: Path) -> None:
    rows = utterances(corpus, tmp_path / "src", 8)
    out = tmp_path / "out"
    first = [clip for _, clip in prepare_clips(rows, out)]
    before = stamps(out)
    assert [clip for _, clip in prepare_clips(rows, out)] == first
    assert stamps(out) == before

    (out / clip_path("u001")).unlink()
    (out / clip_path("u002")).write_bytes(b"torn")
    corpus.audio(tmp_path / "src" / "u003.wav", 0.3, level=0.1)
    os.utime(tmp_path / "src" / "u004.wav", ns=(1, 1))
    rows[5] = Utterance(
        utt_id="u005", audio_filepath=rows[5].audio_filepath, duration=0.1, offset=0.1
    )
    rows[6] = Utterance(utt_id="u006", audio_filepath=rows[7].audio_filepath, duration=0.3)
    again = {row.utt_id: clip for row, clip in prepare_clips(rows, out)}
    after = stamps(out)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"u00{i}.flac" for i in (1, 2, 3, 4, 5, 6)}
    assert again["u005"].seconds == 0.1
    assert soundfile.info(out / clip_path("u002")).frames == 4_800
    loud = np.abs(soundfile.read(out / clip_path("u003"))[0]).max()
    assert loud == pytest.approx(0.1, abs=1e-3)
    list(prepare_clips(rows, out))
    assert stamps(out) == after


def test_a_torn_index_costs_only_its_last_line(corpus: Any, tmp_path: Path) -> None:
    rows = utterances(corpus, tmp_path / "src", 4)
    out = tmp_path / "out"
    list(prepare_clips(rows, out))
    before = stamps(out)
    index = out / "index.jsonl"
    index.write_bytes(index.read_bytes()[:-20])
    assert all(isinstance(clip, Clip) for _, clip in prepare_clips(rows, out))
    after = stamps(out)
    assert [name for name in sorted(after) if after[name] != before[name]] == ["u003.flac"]
    list(prepare_clips(rows, out))
    assert stamps(out) == after


def test_damage_costs_no_neighbour(corpus: Any, tmp_path: Path) -> None:
    rows = utterances(corpus, tmp_path / "src", 6)
    (tmp_path / "src" / "u001.wav").write_bytes(b"no audio")
    (tmp_path / "src" / "u002.wav").unlink()
    cut = (tmp_path / "src" / "u003.wav").read_bytes()
    (tmp_path / "src" / "u003.wav").write_bytes(cut[: len(cut) // 2])
    rows[4] = Utterance(utt_id="u004", audio_filepath=rows[4].audio_filepath, duration=0.5)
    rows[5] = Utterance(utt_id="u005", audio_filepath=f"{rows[0].audio_filepath}/x", duration=0.3)
    results = {row.utt_id: clip for row, clip in prepare_clips(rows, tmp_path / "out")}
    damaged = {name: c.reason for name, c in results.items() if isinstance(c, Damaged)}
    assert damaged.keys() == {"u001", "u002", "u003", "u004", "u005"}
    assert damaged["u002"] == "No such file or directory, must be readable"
    assert damaged["u004"] == "audio ends after 0.300 s, must last 0.500 s"
    assert stamps(tmp_path / "out").keys() == {"u000.flac"}


class Crash(str):
    """A path whose arrival ends a process at once, as a fault in a decoder does."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_process_that_dies_costs_one_utterance(corpus: Any, tmp_path: Path, jobs: int) -> None:
    rows = utterances(corpus, tmp_path / "src", 70)
    for bad in (10, 11, 69):
        path = Crash(rows[bad].audio_filepath)
        rows[bad] = Utterance(utt_id=rows[bad].utt_id, audio_filepath=path, duration=0.3)
    results = list(prepare_clips(rows, tmp_path / "out", jobs))
    assert [row.utt_id for row, _ in results] == [row.utt_id for row in rows]
    damaged = {i: clip for i, (_, clip) in enumerate(results) if isinstance(clip, Damaged)}
    assert damaged.keys() == {10, 11, 69}
    assert damaged[10].reason == "the process that decoded it died, must be decodable"


def test_ids_longer_than_a_file_name_may_be(corpus: Any, tmp_path: Path) -> None:
    path = str(corpus.audio(tmp_path / "a.wav", 0.3))
    ids = ["a" * 200, "a" * 250, "a" * 251, "b" * 1000]
    rows = [Utterance(utt_id=i, audio_filepath=path, duration=0.3) for i in ids]
    results = list(prepare_clips(rows, tmp_path / "out"))
    assert [clip.utt_id for _, clip in results if isinstance(clip, Clip)] == ids
    assert len(stamps(tmp_path / "out")) == len(ids)
    rows = [Utterance(utt_id="u", audio_filepath=f"/{'x' * 300}.wav", duration=0.3)]
    ((_, damaged),) = prepare_clips(rows, tmp_path / "out")
    assert damaged == Damaged("File name too long, must be readable")


def test_loud_audio_is_not_clipped(corpus: Any, tmp_path: Path) -> None:
    path = corpus.audio(tmp_path / "a.wav", 0.5, level=8.0)
    row = Utterance(utt_id="a", audio_filepath=str(path), duration=0.5)
    list(prepare_clips([row], tmp_path / "out"))
    samples, _ = soundfile.read(tmp_path / "out" / clip_path("a"))
    source, _ = soundfile.read(path)
    assert np.abs(samples - source / np.abs(source).max()).max() < 1e-4


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_utterances(
    corpus: Any, tmp_path: Path
) -> None:
    rows = utterances(corpus, tmp_path / "src", 1)
    shard = tmp_path / "out" / clip_path("u000").parent
    shard.parent.mkdir()
    shard.write_text("in the way")
    with pytest.raises(OSError, match=str(shard)):
        list(prepare_clips(rows, tmp_path / "out"))
