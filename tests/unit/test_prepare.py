"""`manifests.flac` and `manifests.prepare`: nothing lost or doubled, damage no reason to stop."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from manifests import Rejected, Utterance, read_manifest, read_rows
from manifests.flac import Clip, Damaged, clip_path, prepare_clips
from manifests.prepare import limited, main, prepare


def write_audio(path: Path, seconds: float, rate: int = 16_000, level: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    samples = level * np.sin(2 * np.pi * (300 + 200 * time) * time)
    kind = {"subtype": "FLOAT"} if path.suffix == ".wav" else {}
    soundfile.write(path, samples, rate, **kind)
    return path


def utterances(folder: Path, count: int) -> list[Utterance]:
    return [
        Utterance(
            utt_id=f"u{i:03}",
            audio_filepath=str(write_audio(folder / f"u{i:03}.wav", 0.3)),
            duration=0.3,
        )
        for i in range(count)
    ]


def kaldi(folder: Path, clips: dict[str, float | bytes], *, segments: str = "") -> Path:
    """A Kaldi data directory; a clip is its length in seconds, or its file's bytes."""
    for name, content in clips.items():
        path = folder / "wav" / f"{name}.wav"
        if isinstance(content, bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        else:
            write_audio(path, content)
    (folder / "wav.scp").write_text("".join(f"{name} wav/{name}.wav\n" for name in clips))
    keys = [line.split()[0] for line in segments.splitlines()] or list(clips)
    (folder / "text").write_text("".join(f"{key} we goed home\n" for key in keys))
    (folder / "utt2spk").write_text("".join(f"{key} {key[0]}\n" for key in keys))
    if segments:
        (folder / "segments").write_text(segments)
    return folder


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.flac")}


@pytest.mark.parametrize("jobs", [1, 2])
def test_rows_come_back_in_order_with_their_audio(tmp_path: Path, jobs: int) -> None:
    rows = utterances(tmp_path / "src", 100)
    results = list(prepare_clips(rows, tmp_path / "out", jobs))
    assert [row for row, _ in results] == rows
    for row, clip in results:
        assert isinstance(clip, Clip)
        info = soundfile.info(tmp_path / "out" / clip_path(row.utt_id))
        assert (info.format, info.subtype) == ("FLAC", "PCM_16")
        assert (info.samplerate, info.channels, info.frames) == (16_000, 1, 4_800)
        assert clip.seconds == 0.3
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_second_run_makes_only_what_is_missing_or_changed(tmp_path: Path) -> None:
    rows = utterances(tmp_path / "src", 8)
    out = tmp_path / "out"
    first = [clip for _, clip in prepare_clips(rows, out)]
    before = stamps(out)
    assert [clip for _, clip in prepare_clips(rows, out)] == first
    assert stamps(out) == before

    (out / clip_path("u001")).unlink()
    (out / clip_path("u002")).write_bytes(b"torn")
    write_audio(tmp_path / "src" / "u003.wav", 0.3, level=0.1)
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


def test_a_torn_index_costs_only_its_last_line(tmp_path: Path) -> None:
    rows = utterances(tmp_path / "src", 4)
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


def test_damage_costs_no_neighbour(tmp_path: Path) -> None:
    rows = utterances(tmp_path / "src", 6)
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
def test_a_process_that_dies_costs_one_utterance(tmp_path: Path, jobs: int) -> None:
    rows = utterances(tmp_path / "src", 70)
    for bad in (10, 11, 69):
        path = Crash(rows[bad].audio_filepath)
        rows[bad] = Utterance(utt_id=rows[bad].utt_id, audio_filepath=path, duration=0.3)
    results = list(prepare_clips(rows, tmp_path / "out", jobs))
    assert [row.utt_id for row, _ in results] == [row.utt_id for row in rows]
    damaged = {i: clip for i, (_, clip) in enumerate(results) if isinstance(clip, Damaged)}
    assert damaged.keys() == {10, 11, 69}
    assert damaged[10].reason == "the process that decoded it died, must be decodable"


def test_loud_audio_is_not_clipped(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", 0.5, level=8.0)
    row = Utterance(utt_id="a", audio_filepath=str(path), duration=0.5)
    list(prepare_clips([row], tmp_path / "out"))
    samples, _ = soundfile.read(tmp_path / "out" / clip_path("a"))
    source, _ = soundfile.read(path)
    assert np.abs(samples - source / np.abs(source).max()).max() < 1e-4


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_utterances(tmp_path: Path) -> None:
    rows = utterances(tmp_path / "src", 1)
    shard = tmp_path / "out" / clip_path("u000").parent
    shard.parent.mkdir()
    shard.write_text("in the way")
    with pytest.raises(OSError, match=str(shard)):
        list(prepare_clips(rows, tmp_path / "out"))


def test_a_corpus_becomes_manifests(tmp_path: Path) -> None:
    clips = {"a1": 0.5, "a2": 0.05, "b1": 1.5, "b2": b"no audio", "c1": 0.7}
    src = kaldi(tmp_path / "train", clips)
    counts = prepare("kaldi", src, tmp_path / "out", max_seconds=1.0)
    rows = list(read_manifest(tmp_path / "out" / "train.jsonl"))
    assert [(row.utt_id, row.duration, row.speaker) for row in rows] == [
        ("a1", 0.5, "a"),
        ("c1", 0.7, "c"),
    ]
    assert all(soundfile.info(row.audio_filepath).duration == row.duration for row in rows)
    raw = (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    assert json.loads(raw[0])["audio_filepath"] == f"audio/train/{clip_path('a1').as_posix()}"
    long = list(read_manifest(tmp_path / "out" / "train.long.jsonl"))
    assert [row.utt_id for row in long] == ["b1"]
    assert Path(long[0].audio_filepath).is_file()
    out = {r.utt_id: r for r in read_rows(tmp_path / "out" / "train.quarantine.jsonl", Rejected)}
    assert out.keys() == {"a2", "b2"}
    assert out["a2"].reason == "duration is 0.05 s, must be >= 0.1 s"
    assert out["a2"].place.endswith("a2.wav")
    found = counts["train"]
    assert (found.kept, found.long, found.short) == (2, 1, 1)
    assert found.damaged + found.rejected == 1
    meta = json.loads((tmp_path / "out" / "train.meta.json").read_text())
    assert meta["counts"]["kept"] == 2


def test_segments_are_cut_out(tmp_path: Path) -> None:
    segments = "a-1 rec 0.0 0.5\na-2 rec 0.5 1.25\nb-1 rec 1.9 2.04\nb-2 rec 0.06 2\n"
    src = kaldi(tmp_path / "train", {"rec": 2.0}, segments=segments)
    prepare("kaldi", src, tmp_path / "out")
    rows = list(read_manifest(tmp_path / "out" / "train.jsonl"))
    assert [(row.utt_id, row.offset, row.duration) for row in rows] == [
        ("a-1", 0, 0.5),
        ("a-2", 0, 0.75),
        ("b-1", 0, 0.1),
        ("b-2", 0, 1.94),
    ]
    whole, _ = soundfile.read(src / "wav" / "rec.wav")
    part, _ = soundfile.read(rows[1].audio_filepath)
    assert np.abs(part - whole[8_000:20_000]).max() < 1e-4


def test_other_limits_need_no_other_audio(tmp_path: Path) -> None:
    src = kaldi(tmp_path / "train", {"a1": 0.5, "b1": 1.5, "c1": 0.2})
    assert prepare("kaldi", src, tmp_path / "out")["train"].kept == 3
    before = stamps(tmp_path / "out")
    narrow = prepare("kaldi", src, tmp_path / "out", min_seconds=0.3, max_seconds=1.0)["train"]
    assert (narrow.kept, narrow.long, narrow.short) == (1, 1, 1)
    assert stamps(tmp_path / "out") == before


def test_a_set_that_is_only_decoded_keeps_its_long_recordings(tmp_path: Path) -> None:
    src = kaldi(tmp_path / "test", {"a1": 0.5, "b1": 1.5})
    command = ["kaldi", str(src), "--out", str(tmp_path / "out"), "--max-seconds", "1", "--nj", "1"]
    assert main([*command, "--whole", "dev,test"]) == 0
    kept = [row.utt_id for row in read_manifest(tmp_path / "out" / "test.jsonl")]
    assert kept == ["a1", "b1"]
    assert main([*command, "--whole", "dev"]) == 0
    kept = [row.utt_id for row in read_manifest(tmp_path / "out" / "test.jsonl")]
    assert kept == ["a1"]


def test_limit_takes_turns_among_speakers_in_corpus_order(tmp_path: Path) -> None:
    names = [f"{speaker}{i}" for speaker in "abc" for i in range(4)]
    src = kaldi(tmp_path / "train", dict.fromkeys(names, 0.2))
    prepare("kaldi", src, tmp_path / "out", limit=5)
    rows = read_manifest(tmp_path / "out" / "train.jsonl")
    assert [row.utt_id for row in rows] == ["a0", "a1", "b0", "b1", "c0"]
    assert len(stamps(tmp_path / "out")) == 5
    with pytest.raises(ValueError, match="limit is 0, must be > 0"):
        limited([], 0)


def test_chosen_sets(tmp_path: Path) -> None:
    for name in ("dev", "test", "train"):
        kaldi(tmp_path / "src" / name, {"a1": 0.2})
    counts = prepare("kaldi", tmp_path / "src", tmp_path / "out", sets=["train", "dev"])
    assert list(counts) == ["train", "dev"]
    assert not (tmp_path / "out" / "test.jsonl").exists()
    with pytest.raises(ValueError, match="set is 'tran', must be one of: dev, test, train"):
        prepare("kaldi", tmp_path / "src", tmp_path / "out", sets=["tran"])


def test_no_manifest_appears_before_all_are_complete(tmp_path: Path) -> None:
    for name in ("dev", "train"):
        kaldi(tmp_path / "src" / name, {"a1": 0.2})
    audio = tmp_path / "out" / "audio"
    audio.mkdir(parents=True)
    (audio / "train").write_text("in the way")
    with pytest.raises(OSError, match="train"):
        prepare("kaldi", tmp_path / "src", tmp_path / "out")
    assert not (tmp_path / "out" / "dev.jsonl").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = str(kaldi(tmp_path / "train", {"a1": 0.2}))
    out = str(tmp_path / "out")
    assert main(["kaldi", src, "--out", out, "--nj", "1"]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert dict(zip(header.split(), line.split(), strict=True))["kept"] == "1"
    for wrong, message in [
        (["kaldi", str(tmp_path / "absent"), "--out", out], "absent"),
        (["kaldi", src, "--out", out, "--sets", "dev"], "set is 'dev'"),
        (["kaldi", src, "--out", out, "--min-seconds", "5", "--max-seconds", "1"], "5 to 1"),
        (["kaldi", src, "--out", out, "--nj", "0"], "jobs is 0"),
        (["kaldi", src, "--out", out, "--verify-md5"], "must be pasketti"),
        (["kaldi", src, "--out", f"{src}/wav.scp/x"], "wav.scp"),
    ]:
        assert main(wrong) == 1
        assert message in capsys.readouterr().err


def test_md5_sums_are_verified_on_demand(tmp_path: Path) -> None:
    rows = []
    for name, seconds in (("good", 0.5), ("bad", 0.6)):
        path = write_audio(tmp_path / "src" / f"{name}.flac", seconds)
        md5 = hashlib.md5(path.read_bytes() if name == "good" else b"").hexdigest()
        row = {"utterance_id": name, "audio_path": path.name, "audio_duration_sec": seconds}
        rows.append(json.dumps(row | {"md5_hash": md5, "orthographic_text": "yes"}))
    (tmp_path / "src" / "train_word_transcripts.jsonl").write_text("\n".join(rows) + "\n")
    trusting = prepare("pasketti", tmp_path / "src", tmp_path / "a")["train"]
    assert (trusting.kept, trusting.rejected) == (2, 0)
    strict = prepare("pasketti", tmp_path / "src", tmp_path / "b", verify_md5=True)["train"]
    assert (strict.kept, strict.rejected) == (1, 1)


def processes_of_session(session: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_kill_9_and_again(tmp_path: Path) -> None:
    """Nothing is lost, nothing is made twice, and no worker stays behind."""
    names = [f"a{i:04}" for i in range(600)]
    src = kaldi(tmp_path / "train", dict.fromkeys(names, 2.0))
    out = tmp_path / "out"
    call = [sys.executable, "-m", "manifests.prepare", "kaldi", str(src), "--out", str(out)]
    call += ["--nj", "2"]
    root = Path(__file__).parents[2]
    run = subprocess.Popen(call, start_new_session=True, stderr=subprocess.DEVNULL, cwd=root)
    index = out / "audio" / "train" / "index.jsonl"
    deadline = time.monotonic() + 60
    while not (index.exists() and index.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    while processes_of_session(run.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_of_session(run.pid)
    assert not (out / "train.jsonl").exists()
    known = {json.loads(line)["utt_id"] for line in index.read_text().splitlines()}
    assert 0 < len(known) < 600
    before = stamps(out)
    subprocess.run(call, check=True, capture_output=True, cwd=root)
    assert [row.utt_id for row in read_manifest(out / "train.jsonl")] == names
    after = stamps(out)
    assert len(after) == 600
    assert all(after[f"{name}.flac"] == before[f"{name}.flac"] for name in known)
