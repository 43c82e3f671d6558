"""`manifests.prepare`: a corpus becomes manifests of 16 kHz FLAC, also after a kill."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from manifests import Rejected, read_manifest, read_rows
from manifests.flac import clip_path
from manifests.prepare import limited, main, prepare


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.flac")}


def test_a_corpus_becomes_manifests(corpus: Any, tmp_path: Path) -> None:
    clips = {"a1": 0.5, "a2": 0.05, "b1": 1.5, "b2": b"no audio", "c1": 0.7}
    src = corpus.kaldi(tmp_path / "train", clips)
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


def test_segments_are_cut_out(corpus: Any, tmp_path: Path) -> None:
    segments = "a-1 rec 0.0 0.5\na-2 rec 0.5 1.25\nb-1 rec 1.9 2.04\nb-2 rec 0.06 2\n"
    src = corpus.kaldi(tmp_path / "train", {"rec": 2.0}, segments=segments)
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


def test_other_limits_need_no_other_audio(corpus: Any, tmp_path: Path) -> None:
    src = corpus.kaldi(tmp_path / "train", {"a1": 0.5, "b1": 1.5, "c1": 0.2})
    assert prepare("kaldi", src, tmp_path / "out")["train"].kept == 3
    before = stamps(tmp_path / "out")
    narrow = prepare("kaldi", src, tmp_path / "out", min_seconds=0.3, max_seconds=1.0)["train"]
    assert (narrow.kept, narrow.long, narrow.short) == (1, 1, 1)
    assert stamps(tmp_path / "out") == before


def test_a_set_that_is_only_decoded_keeps_its_long_recordings(corpus: Any, tmp_path: Path) -> None:
    src = corpus.kaldi(tmp_path / "test", {"a1": 0.5, "b1": 1.5})
    command = ["kaldi", str(src), "--out", str(tmp_path / "out"), "--max-seconds", "1", "--nj", "1"]
    assert main([*command, "--whole", "dev,test"]) == 0
    kept = [row.utt_id for row in read_manifest(tmp_path / "out" / "test.jsonl")]
    assert kept == ["a1", "b1"]
    assert main([*command, "--whole", "dev"]) == 0
    kept = [row.utt_id for row in read_manifest(tmp_path / "out" / "test.jsonl")]
    assert kept == ["a1"]


def test_limit_takes_turns_among_speakers_in_corpus_order(corpus: Any, tmp_path: Path) -> None:
    names = [f"{speaker}{i}" for speaker in "abc" for i in range(4)]
    src = corpus.kaldi(tmp_path / "train", dict.fromkeys(names, 0.2))
    prepare("kaldi", src, tmp_path / "out", limit=5)
    rows = read_manifest(tmp_path / "out" / "train.jsonl")
    assert [row.utt_id for row in rows] == ["a0", "a1", "b0", "b1", "c0"]
    assert len(stamps(tmp_path / "out")) == 5
    with pytest.raises(ValueError, match="limit is 0, must be > 0"):
        limited([], 0)


def test_chosen_sets(corpus: Any, tmp_path: Path) -> None:
    for name in ("dev", "test", "train"):
        corpus.kaldi(tmp_path / "src" / name, {"a1": 0.2})
    counts = prepare("kaldi", tmp_path / "src", tmp_path / "out", sets=["train", "dev"])
    assert list(counts) == ["train", "dev"]
    assert not (tmp_path / "out" / "test.jsonl").exists()
    with pytest.raises(ValueError, match="set is 'tran', must be one of: dev, test, train"):
        prepare("kaldi", tmp_path / "src", tmp_path / "out", sets=["tran"])


def test_no_manifest_appears_before_all_are_complete(corpus: Any, tmp_path: Path) -> None:
    for name in ("dev", "train"):
        corpus.kaldi(tmp_path / "src" / name, {"a1": 0.2})
    audio = tmp_path / "out" / "audio"
    audio.mkdir(parents=True)
    (audio / "train").write_text("in the way")
    with pytest.raises(OSError, match="train"):
        prepare("kaldi", tmp_path / "src", tmp_path / "out")
    assert not (tmp_path / "out" / "dev.jsonl").exists()


def test_no_set_writes_over_another_or_its_source(corpus: Any, tmp_path: Path) -> None:
    src, again = tmp_path / "src", tmp_path / "again"
    corpus.audio(src / "a.wav", 0.5)
    corpus.rows(src / "train.jsonl", {"utt_id": "a", "audio_filepath": "a.wav", "duration": 0.5})
    with pytest.raises(ValueError, match=r"train\.jsonl: is the source itself"):
        prepare("nemo", src / "train.jsonl", src)
    with pytest.raises(ValueError, match=r"train\.jsonl: is the source itself"):
        prepare("nemo", src, src)
    assert prepare("nemo", src, again, sets=["train", "train"])["train"].kept == 1
    # What it wrote holds train.long.jsonl, and lists that are no manifests.
    with pytest.raises(ValueError, match=r"by sets 'train' and 'train\.long', must be by one"):
        prepare("nemo", again, tmp_path / "third")
    assert list(prepare("nemo", again, tmp_path / "third", sets=["train"])) == ["train"]


def test_nothing_kept_is_no_success(
    corpus: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src = corpus.kaldi(tmp_path / "train", {"a1": b"no audio"})
    assert main(["kaldi", str(src), "--out", str(tmp_path / "out"), "--nj", "1"]) == 1
    assert "train: no utterance could be kept" in capsys.readouterr().err
    assert (tmp_path / "out" / "train.quarantine.jsonl").read_text().count("\n") == 1


def test_a_full_disk_is_named(corpus: Any, tmp_path: Path) -> None:
    src = corpus.kaldi(tmp_path / "train", {"a1": 3.0})
    call = f"{sys.executable} -m manifests.prepare kaldi {src} --out {tmp_path / 'out'} --nj 1"
    root = Path(__file__).parents[2]
    full = ["bash", "-c", f"ulimit -f 8; {call}"]
    done = subprocess.run(full, capture_output=True, text=True, cwd=root)
    assert done.returncode == 1
    target = tmp_path / "out" / "audio" / "train" / clip_path("a1")
    last = done.stderr.splitlines()[-1]
    assert last == f"manifests.prepare: [Errno 27] File too large: '{target}'"


def test_the_command(corpus: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = str(corpus.kaldi(tmp_path / "train", {"a1": 0.2}))
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


def test_md5_sums_are_verified_on_demand(corpus: Any, tmp_path: Path) -> None:
    rows = []
    for name, seconds in (("good", 0.5), ("bad", 0.6)):
        path = corpus.audio(tmp_path / "src" / f"{name}.flac", seconds)
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


def test_kill_9_and_again(corpus: Any, tmp_path: Path) -> None:
    """Nothing is lost, nothing is made twice, and no worker stays behind."""
    names = [f"a{i:04}" for i in range(600)]
    src = corpus.kaldi(tmp_path / "train", dict.fromkeys(names, 2.0))
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
