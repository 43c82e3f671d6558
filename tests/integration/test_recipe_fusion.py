"""Stages 6 to 8 of the recipe, from hypothesis files that are there already."""

import json
import random
import re
import subprocess
from pathlib import Path

import pytest

from manifests import Hypothesis, NBest, Rejected, Utterance, read_nbest, write_rows

ROOT = Path(__file__).parents[2]
SENTENCE = "the a cat dog bird house ran saw big red my goed sat on under tree ball"
WORDS = SENTENCE.split()
MEMBERS = ("whisper", "whisper_lm", "nemo")


def heard(row, rate, rng):
    words = [w if rng.random() > rate else rng.choice(WORDS) for w in (row.text or "").split()]
    hyps = (Hypothesis(text=" ".join(words), score=-1.0), Hypothesis(text="", score=-9.0))
    return NBest(utt_id=row.utt_id, system="s", hyps=hyps)


def experiment(folder, *, blind):
    """An experiment as stage 5 leaves it; three members that err apart."""
    rng = random.Random(3)
    for name in ("dev", "test"):
        rows = [
            Utterance(
                utt_id=f"{name}{n}",
                audio_filepath="x.flac",
                duration=2.0,
                text=" ".join(rng.choices(WORDS, k=5)),
                speaker=f"s{n % 6}",
            )
            for n in range(36)
        ]
        for member in (*MEMBERS, *(["whisper_base"] if name == "test" else [])):
            rate = 0.7 if member.endswith("base") else 0.3
            hyps = [heard(row, rate, rng) for row in rows]
            write_rows(folder / "hyp" / name / f"{member}.jsonl", hyps)
        if blind and name == "test":
            rows = [
                Utterance(utt_id=row.utt_id, audio_filepath="x.flac", duration=2.0) for row in rows
            ]
        write_rows(folder / "data" / f"{name}.jsonl", rows)
    aside = Rejected(place="empty.wav", reason="0 bytes, must hold audio", utt_id="broken")
    write_rows(folder / "data/test.quarantine.jsonl", [aside])
    (folder / "source").write_text(f"{folder}\n")
    return folder


def run(exp, *arguments):
    command = ["recipes/run.sh", "--exp", str(exp), "--systems", "whisper", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


def states(done):
    return dict(re.findall(r"^  ([\w-]+): (done|is complete)", done.stdout, re.MULTILINE))


def test_fused_scored_and_compared(tmp_path):
    exp = experiment(tmp_path / "exp", blind=False)
    done = run(exp, "--stage", 6)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((exp / "score/test/results.json").read_text())
    wer = {row["system"]: row["wer"] for row in results if row["slice"] == "all"}
    assert set(wer) == {*MEMBERS, "whisper_base", "fused"}
    assert wer["fused"] < min(wer[member] for member in MEMBERS)
    table = (exp / "fusion/contribution.md").read_text()
    assert all(f"| {member} " in table for member in MEMBERS)
    assert "best way through network" in table
    assert "matched pairs" in (exp / "logs/compare-fused.log").read_text()
    assert "names no submission_format" in done.stdout
    assert set(states(run(exp, "--stage", 6)).values()) == {"is complete"}

    # Another member makes all of it out of date.
    for name in ("dev", "test"):
        file = exp / "hyp" / name / "nemo.jsonl"
        write_rows(file.with_name("owsm.jsonl"), list(read_nbest(file)))
    again = states(run(exp, "--stage", 6))
    redone = {"tune", "fuse", "contribution", "score-dev", "score-test", "compare-fused"}
    assert {step for step, state in again.items() if state == "done"} == redone


def test_a_blind_set_is_answered(tmp_path):
    exp = experiment(tmp_path / "exp", blind=True)
    conf = tmp_path / "conf.yaml"
    conf.write_text("corpus: mini\nwhisper: x.yaml\nsubmission_format: submission_format.jsonl\n")
    ids = ["broken", *(f"test{n}" for n in reversed(range(36)))]
    form = exp / "submission_format.jsonl"  # the corpus' folder is this one

    def ask(utterances):
        lines = [{"utterance_id": i, "orthographic_text": "?"} for i in utterances]
        form.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run(exp, "--conf", conf, "--stage", 6)

    done = ask(ids)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (exp / "score/test").exists()
    answers = [json.loads(line) for line in (exp / "submission.jsonl").read_text().splitlines()]
    texts = {row.utt_id: row.best.text for row in read_nbest(exp / "hyp/test/fused.jsonl")}
    assert answers == [{"utterance_id": i, "orthographic_text": texts.get(i, "")} for i in ids]
    refused = ask([*ids[:-1], "nobody"])
    assert refused.returncode == 1
    assert "missing: nobody; unknown: test0;" in refused.stderr


@pytest.mark.parametrize("gone", ["dev", "test"])
def test_nothing_to_fuse_is_one_line(tmp_path, gone):
    exp = experiment(tmp_path / "exp", blind=False)
    for file in (exp / "hyp" / gone).iterdir():
        file.unlink()
    done = run(exp, "--stage", 6)
    assert done.returncode == 2
    assert done.stderr == "run.sh: no system has decoded both dev and test (stages 4 and 5)\n"
