"""The command scoring.score, with sclite."""

from __future__ import annotations

import inspect
import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from manifests import Hypothesis, NBest, Utterance, Word, write_rows
from scoring.results import read_results
from scoring.score import main, score

KEYS = ["system", "set", "slice", "utts", "words", "sub", "del", "ins"]
KEYS += ["wer", "wer_raw", "cer", "ci95"]


def utterance(i: int, text: str | None, **fields: object) -> Utterance:
    base = {"duration": 2.0, "speaker": f"child-{i % 3}", "age": "5-7", **fields}
    return Utterance(utt_id=f"u{i}", audio_filepath=f"u{i}.flac", text=text, **base)  # type: ignore[arg-type]


def heard(i: int, text: str, system: str = "whisper", error: str | None = None) -> NBest:
    words = tuple(
        Word(text=w, start=0.2 * k, end=0.2 * k + 0.1) for k, w in enumerate(text.split())
    )
    return NBest(
        utt_id=f"u{i}", system=system, hyps=(Hypothesis(text=text, words=words),), error=error
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    said = ["He goed home.", "", "I saw twenty-one tooths, um.", "A cat | a (dog)"]
    refs = [utterance(i, text) for i, text in enumerate(said)]
    hyps = [heard(3, "a cat * a dog"), heard(0, "he go home"), heard(1, "uh no")]
    hyps.append(heard(2, "", error="clip|2.wav: unreadable"))
    write_rows(tmp_path / "test.jsonl", refs)
    write_rows(tmp_path / "whisper.jsonl", hyps)
    return tmp_path / "test.jsonl", tmp_path / "whisper.jsonl"


def test_results_and_reports(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = score(files[0], [files[1]], out, bootstrap=200)
    rows = json.loads((out / "results.json").read_text())
    assert [key for key in KEYS if key not in rows[0]] == []
    assert read_results(out / "results.json") == results
    overall = rows[0]
    assert (overall["system"], overall["set"], overall["slice"]) == ("whisper", "test", "all")
    # "he goed home" 1 sub; "" 1 ins (uh vanishes); "i saw 21 tooths" failed: 4 del; "(dog)" is
    # taken out of the reference, "dog" inserted
    counts = [overall[key] for key in ("utts", "words", "sub", "del", "ins", "failed")]
    assert counts == [4, 10, 1, 4, 2, 1]
    assert overall["wer"] == 7 / 10
    assert overall["wer_raw"] > overall["wer"]
    low, high = overall["ci95"]
    assert 0 <= low <= overall["wer"] <= high
    slices = {row["slice"]: row for row in rows}
    assert {"age=5-7", "duration=2-5s", "speaker=child-0", "speaker=child-2"} <= set(slices)
    assert slices["speaker=child-1"]["words"] == 0
    assert slices["speaker=child-1"]["wer"] is None
    assert slices["speaker=child-1"]["ci95"] is None
    folder = out / "sclite" / "whisper"
    for report in ("sys", "pra", "dtl", "sgml"):
        assert (folder / f"whisper.{report}").exists()
    assert "| child_0 " in (folder / "whisper.sys").read_text()
    report = (out / "results.md").read_text()
    assert "# Results on test" in report
    assert "clip\\|2.wav: unreadable" in report
    assert "goed \u2192 go (1)" in report


def test_slices_pool_to_the_whole(tmp_path: Path) -> None:
    rng = random.Random(1)
    refs, hyps = [], []
    for i in range(60):
        text = " ".join(rng.choices(["a", "b", "c", "d"], k=rng.randint(0, 5)))
        age = rng.choice(["3-4", "5-7", None])
        refs.append(utterance(i, text, age=age, noisy=rng.choice([True, False])))
        hyps.append(heard(i, " ".join(rng.choices(["a", "b", "c", "d"], k=rng.randint(0, 5)))))
    write_rows(tmp_path / "dev.jsonl", refs)
    write_rows(tmp_path / "h.jsonl", hyps)
    results = score(tmp_path / "dev.jsonl", [tmp_path / "h.jsonl"], tmp_path, bootstrap=0)
    whole = results[0]
    assert whole.ci95 is None
    for dimension in ("age", "noise", "duration", "speaker"):
        parts = [r for r in results if r.slice.startswith(f"{dimension}=")]
        assert sum(part.words for part in parts) == whole.words
        assert sum(part.errors for part in parts) == whole.errors
        assert sum(part.utts for part in parts) == whole.utts


def test_times_make_ctm_and_stm(files: tuple[Path, Path], tmp_path: Path) -> None:
    score(files[0], [files[1]], tmp_path / "out", times=True, bootstrap=0)
    folder = tmp_path / "out" / "sclite" / "whisper.times"
    assert (folder / "hyp.ctm").read_text().splitlines()[1] == "u0 1 0.2 0.1 go"
    assert "u2 1 child-2 0.0 2.0" in (folder / "ref.stm").read_text()
    assert (folder / "whisper.sys").exists()


def test_two_files_of_one_system_are_told_apart(files: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copy(files[1], tmp_path / "again.jsonl")
    results = score(
        files[0], [files[1], tmp_path / "again.jsonl"], tmp_path / "out", sclite=False, bootstrap=0
    )
    assert {result.system for result in results} == {"whisper", "again"}
    assert not (tmp_path / "out" / "sclite").exists()


@pytest.mark.parametrize(
    ("refs", "hyps", "message"),
    [
        ([utterance(0, "a"), utterance(1, None)], [], r"r.jsonl:2: u1 has no text"),
        ([utterance(0, "a"), utterance(0, "a")], [], r"r.jsonl:2: utt_id u0 is also on line 1"),
        ([], [], r"r.jsonl: has no rows"),
        (
            [utterance(0, "a"), utterance(1, "a")],
            [heard(0, "a"), heard(0, "a"), heard(7, "a")],
            r"h.jsonl: doubled: u0; missing: u1; unknown: u7; every utterance",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_1(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    refs: Sequence[Utterance],
    hyps: Sequence[NBest],
    message: str,
) -> None:
    write_rows(tmp_path / "r.jsonl", refs)
    write_rows(tmp_path / "h.jsonl", hyps)
    arguments = ["--ref", str(tmp_path / "r.jsonl"), "--hyp", str(tmp_path / "h.jsonl")]
    assert main([*arguments, "--out", str(tmp_path / "o")]) == 1
    stderr = capsys.readouterr().err
    assert len(stderr.splitlines()) == 1
    assert re.search(message, stderr)
    assert not (tmp_path / "o" / "results.json").exists()


def test_times_without_words_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "r.jsonl", [utterance(0, "a")])
    row = NBest(utt_id="u0", system="s", hyps=(Hypothesis(text="a"),))
    write_rows(tmp_path / "h.jsonl", [row])
    arguments = ["--ref", str(tmp_path / "r.jsonl"), "--hyp", str(tmp_path / "h.jsonl")]
    assert main([*arguments, "--out", str(tmp_path / "o"), "--times"]) == 1
    assert "u0: s gave no word times" in capsys.readouterr().err


def test_missing_sclite_names_the_package(
    files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("scoring.sctk._DEBIAN_BIN", tmp_path)
    arguments = ["--ref", str(files[0]), "--hyp", str(files[1]), "--out", str(tmp_path / "o")]
    assert main(arguments) == 1
    assert "sclite is not installed: apt-get install sctk" in capsys.readouterr().err
    assert main([*arguments, "--no-sclite"]) == 0


def test_sctk_wrapper_is_used_where_it_is_all_there_is(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scoring.sctk._DEBIAN_BIN", tmp_path)
    score(files[0], [files[1]], tmp_path / "o", bootstrap=0)
    assert (tmp_path / "o" / "sclite" / "whisper" / "whisper.sys").exists()


def test_command_and_call_take_the_same_options() -> None:
    call = set(inspect.signature(score).parameters)
    assert call == {"ref", "hyps", "out", "set_name", "times", "bootstrap", "sclite"}
    source = inspect.getsource(main)
    for option in ("--ref", "--hyp", "--out", "--set", "--times", "--bootstrap", "--no-sclite"):
        assert f'"{option}"' in source


def test_texts_are_compared_as_written(tmp_path: Path) -> None:
    """The competition's normaliser takes "he's  been" with two spaces for "he is been"."""
    write_rows(tmp_path / "r.jsonl", [utterance(0, "he has been")])
    write_rows(tmp_path / "h.jsonl", [heard(0, "he's  been")])
    (whole, *_) = score(
        tmp_path / "r.jsonl", [tmp_path / "h.jsonl"], tmp_path / "o", sclite=False, bootstrap=0
    )
    assert (whole.sub, whole.wer) == (1, 1 / 3)


def test_names_of_systems_are_never_paths_or_lines(tmp_path: Path) -> None:
    write_rows(tmp_path / "r.jsonl", [utterance(0, "a b")])
    names = ["a b", "a_b", "..", "-n", "a_b.times", "line\nbreak", "A B"]
    paths = [tmp_path / f"{n}.jsonl" for n in range(len(names))]
    for path, name in zip(paths, names, strict=True):
        write_rows(path, [heard(0, "", name, error="two\nlines | of it")])
    out = tmp_path / "o"
    results = score(tmp_path / "r.jsonl", paths, out, times=True, bootstrap=0)
    assert [r.system for r in results if r.slice == "all"] == [*names[:5], "line break", "A B"]
    folders = ["a_b", "a_b.2", "system", "n", "a_b.times.2", "line_break", "A_B"]
    folders += [f"{folder}.times" for folder in folders]
    assert {path.name for path in (out / "sclite").iterdir()} == set(folders)
    assert {path.name for path in out.iterdir()} == {"sclite", "results.md", "results.json"}
    report = (out / "results.md").read_text()
    assert report.count("| two lines \\| of it |") == len(names)


def test_no_rate_without_words(tmp_path: Path) -> None:
    write_rows(tmp_path / "r.jsonl", [utterance(0, "um")])
    write_rows(tmp_path / "h.jsonl", [heard(0, "a b")])
    score(tmp_path / "r.jsonl", [tmp_path / "h.jsonl"], tmp_path / "o", bootstrap=0)
    (line,) = re.findall("^. whisper .*", (tmp_path / "o" / "results.md").read_text(), re.M)
    cells = [cell.strip() for cell in line.split("|")]
    assert (cells[2], cells[10]) == ("-", "-")  # WER %, sclite
