"""Commands in one process: in order, up to the first that fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.chain import parse, run


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "one.jsonl"
    path.write_text('{"utt_id":"a","audio_filepath":"a.wav","duration":1.0,"text":"hi"}\n')
    return path


def join(manifest: Path, out: Path) -> list[str]:
    return ["manifests.join", str(manifest), "--out", str(out)]


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch):
    """Put ``sys.argv`` back after the test."""
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_each_command_does_its_own(manifest, tmp_path):
    two, three = tmp_path / "two.jsonl", tmp_path / "three.jsonl"
    assert run(parse([*join(manifest, two), "--then", *join(two, three)])) == 0
    assert three.read_text() == two.read_text() != ""


def test_each_output_names_its_own_command_alone(manifest, tmp_path):
    two, three = tmp_path / "two.jsonl", tmp_path / "three.jsonl"
    run(parse([*join(manifest, two), "--then", *join(two, three)]))
    for command, output in ((join(manifest, two), two), (join(two, three), three)):
        meta = json.loads(output.with_suffix(".meta.json").read_text())
        assert meta["command"][0].endswith("manifests/join.py")
        assert meta["command"][1:] == command[1:]


def test_the_first_failure_ends_the_chain_with_its_status(manifest, tmp_path):
    fails, never = join(tmp_path / "missing.jsonl", tmp_path / "x"), tmp_path / "never.jsonl"
    assert run(parse([*fails, "--then", *join(manifest, never)])) == 1
    assert not never.exists()


def test_a_wrong_option_ends_the_chain(manifest, tmp_path):
    never = tmp_path / "never.jsonl"
    with pytest.raises(SystemExit) as stopped:
        run(parse(["manifests.join", "--no-such-option", "--then", *join(manifest, never)]))
    assert stopped.value.code == 2
    assert not never.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "without a command"),
        (["--then", "manifests.join"], "without a command"),
        (["manifests.join", "x", "--then"], "without a command"),
        (["manifests.jion"], "manifests.jion: No module named"),
        (["manifests.rows"], "manifests.rows: module 'manifests.rows' has no attribute 'main'"),
    ],
)
def test_what_is_no_chain_is_refused_before_anything_runs(words, message):
    with pytest.raises(ValueError, match=message):
        parse(words)
    done = subprocess.run(
        [sys.executable, "-m", "recipes.chain", *words], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
