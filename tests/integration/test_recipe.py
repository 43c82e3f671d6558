"""The recipe from an empty folder to its report, on ten utterances; its options; the README."""

import fcntl
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from manifests import read_manifest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["recipes/run.sh", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=600
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished debug run."""
    exp = tmp_path_factory.mktemp("recipe") / "mini"
    done = run("--debug", "--exp", str(exp))
    assert done.returncode == 0, done.stdout + done.stderr
    return exp.with_name("mini-debug")


def test_empty_folder_to_scored_report(finished):
    results = json.loads((finished / "score/test/results.json").read_text(encoding="utf-8"))
    systems = {row["system"] for row in results}
    kinds = ("", "_base", "_lm", "_rescored")
    members = {name + kind for name in ("whisper", "owsm", "nemo") for kind in kinds}
    assert systems == members | {"fused"}
    assert all(row["utts"] == 10 for row in results if row["slice"] == "all")
    assert (finished / "score/test/results.md").exists()


def test_a_second_run_skips_everything(finished):
    again = run("--debug", "--exp", str(finished).removesuffix("-debug"))
    assert again.returncode == 0, again.stderr
    steps = re.findall(r"^  ([\w-]+): (.*)$", again.stdout, re.MULTILINE)
    assert len(steps) >= 30
    assert all(state.startswith("is complete") for _, state in steps), again.stdout


def test_a_deleted_output_is_made_again_and_reported(finished):
    output, other = finished / "hyp/test/whisper_lm.jsonl", finished / "hyp/dev/nemo.jsonl"
    before, before_other = output.read_bytes(), other.read_bytes()
    output.unlink()
    other.unlink()  # while its neighbour of test is still there
    again = run("--debug", "--exp", str(finished).removesuffix("-debug"), "--stage", "4")
    assert again.returncode == 0, again.stderr
    assert output.read_bytes() == before
    assert other.read_bytes() == before_other
    assert "decode-whisper_lm: done" in again.stdout
    assert "score-test: done" in again.stdout


def test_real_children_are_prepared(tmp_path, shared_data):
    """What `mini` does not need: dev split off, adults joined, voices read aloud, three speeds."""
    done = run(
        "--conf=recipes/conf/speechocean762.yaml",
        f"--source={shared_data / 'speechocean762'}",
        f"--exp={tmp_path / 'real'}",
        "--debug",
        "--stop-stage=2",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    data = tmp_path / "real-debug/data"

    def ids(name):
        return [row.utt_id for row in read_manifest(data / f"{name}.jsonl")]

    heard = ids("train_all")
    assert set(heard) == {*ids("split/train"), *ids("base/train")}
    assert set(heard).isdisjoint([*ids("split/dev"), *ids("test")])
    assert set(ids("perturbed")) == {
        one + mark for one in heard for mark in ("", "-sp0.9", "-sp1.1")
    }
    assert set(ids("pretrain")) == {*ids("read_aloud"), *ids("base/train")}
    assert json.loads((data.parent / "lm/lm.json").read_text())["sentences"] == len(heard)


def test_first_failure_stops_with_the_end_of_the_log(finished):
    (finished / "hyp/test/whisper_base.jsonl").unlink()
    exp = str(finished).removesuffix("-debug")
    failed = run("--debug", "--exp", exp, "--stage", "4", "--decode-opts", "decode.beems=3")
    assert failed.returncode == 1
    assert "step decode-whisper failed" in failed.stderr
    assert "unknown key 'beems'; known: " in failed.stderr.rpartition("the end of")[2]
    assert "stage 5" not in failed.stdout


def test_the_first_failure_ends_what_runs_beside_it(finished):
    for system in ("whisper", "owsm"):
        shutil.rmtree(finished / system)
    (finished / "whisper" / "init").mkdir(parents=True)
    (finished / "whisper" / "base").touch()  # no folder: fails before OWSM's toolkit is imported
    exp = str(finished).removesuffix("-debug")
    failed = run("--debug", "--exp", exp, "--stage", "3", "--stop-stage", "3")
    assert failed.returncode == 1
    assert "step train-whisper failed" in failed.stderr
    assert not (finished / "owsm" / "base" / "final").exists()
    deadline = time.monotonic() + 10
    while (left := [line for line in processes() if exp in line]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def processes() -> list[str]:
    """Return the command lines of all processes."""
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return found.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stag", "3"], "unknown option '--stag'"),
        (["--stage"], "--stage needs a value"),
        (["--stop-stage", "x"], "--stop-stage is 'x', must be a whole number"),
        (["mini"], "unexpected argument 'mini'"),
        (["--conf", "recipes/conf/mini.yml"], "recipes/conf/mini.yml"),
        (["--systems", "parrot", "--stage", "3"], "names no config for system 'parrot'"),
        (["--conf=recipes/conf/pasketti.yaml", "--source=/nowhere"], "participants"),
        (["--stage", "5", "--stop-stage=3"], "--stage is 5, must be at most --stop-stage, 3"),
        (["--stage", "9"], "--stage is 9, must be at most --stop-stage, 8"),
        # Not a corpus in the working folder, nor a report of nothing.
        (["--stage", "1"], "/source does not exist, begin with stage 0"),
        (["--stage", "7"], "/data/dev.jsonl does not exist, begin with stage 1"),
    ],
)
def test_a_wrong_option_is_one_clear_line(arguments, message, tmp_path):
    done = run("--exp", str(tmp_path), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_step_that_another_run_is_at_is_left_to_it(tmp_path):
    log = tmp_path / "exp of mine" / "logs" / "prepare.log"
    log.parent.mkdir(parents=True)
    log.write_text("what the other has to say\n")
    with log.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run("--exp", str(tmp_path / "exp of mine"), "--stop-stage", "1")
    assert done.returncode == 2
    assert "step prepare is under way in another run" in done.stderr
    assert log.read_text() == "what the other has to say\n"
    assert not (tmp_path / "exp of mine" / "data").exists()


def test_help_is_the_header():
    done = run("--help")
    assert done.returncode == 0
    for option in re.findall(
        r"^#   (--[\w-]+)", (ROOT / "recipes/run.sh").read_text(), re.MULTILINE
    ):
        assert option in done.stdout
    assert "shellcheck" not in done.stdout


def test_the_readme_names_every_module():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The tree")[2]
    for package in ("manifests", "lm", "scoring", "systems", "recipes"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "__init__.py":
                assert path.name in tree, f"{path.relative_to(ROOT)} is not in README's tree"
