"""What the command refuses before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import Utterance, write_rows
from systems.decode import main


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("window: 2.0\n")
    write_rows(Path("m.jsonl"), [Utterance(utt_id="a", audio_filepath="a.wav", duration=1.0)])
    return Path("m.jsonl")


def command(*more: str) -> list[str]:
    return ["whisper", "--config", "c.yaml", "--checkpoint", "x", "--manifest", "m.jsonl", *more]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "./m.jsonl"], "m.jsonl: is the manifest, must be another file"),
        (["--out", "."], ".: is a folder, must be a file"),
        (["--out", "h.jsonl", "--lm", "."], "lm.binary: no such n-gram; make one with"),
    ],
)
def test_an_output_that_cannot_be_and_an_ngram_that_is_none(
    manifest: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    before = manifest.read_bytes()
    assert main(command(*options)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"decode: {message}")
    assert manifest.read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["c.yaml", "m.jsonl", "m.meta.json"]


def test_two_outputs_are_two_files(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command("--out", "h.jsonl", "--manifest", str(manifest), "--out", "./h.jsonl"))
    assert stop.value.code == 2
    assert "--out is h.jsonl and h.jsonl, must be different files" in capsys.readouterr().err
