"""What the command refuses, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusion.calibration import write_calibration
from fusion.rover import main
from manifests import write_rows
from tests.unit.hypotheses import calibration, row, written

BAD = [
    ("x.ctm", "u 1 0 0.1 a 1\nu 1\n", "x.ctm:2: line is 'u 1', must be"),
    ("x.ctm", "u 1 0 0.1 a 1\nu 1 0 0.1\n", "x.ctm:2: line is 'u 1 0 0.1', must be"),
    ("x.ctm", ";;\nu 1 0 0.1 a 1\n;;\nu 1 x 0.1 a 1\n", "x.ctm:4: start is 'x', must be a number"),
    ("x.ctm", "u 1 0 -1 a 1\n", "x.ctm:1: duration is -1 s, must be >= 0"),
    ("x.ctm", "u 1 0 0.1 a b\n", "x.ctm:1: confidence is b, must be a number or be left out"),
    ("x.ctm", "u 1 0 0.1 a nan\n", "x.ctm:1: confidence is nan, must be a number"),
    ("x.ctm", "u 1 0 1 a 1\nv 1 0 1 a 1\nu 1 2 1 a 1\n", "x.ctm:3: utterance u 1 comes twice"),
    ("x.ctm", "u 1 0 1 <ALT_BEGIN> 1\n", "x.ctm:1: word is <ALT_BEGIN>, alternatives are not"),
    ("x.ctm", "u 1 0 1 a 1 1 1\n", "x.ctm:1: line is"),
    ("x.jsonl", '{"utt_id":"u","system":"s","hyps":[]}\n', "x.jsonl:1: hyps is empty"),
    ("x.jsonl", "\n", "x.jsonl:1: line is blank"),
    ("x.jsonl", '{"utt_id":"u"}\n', "x.jsonl:1: field 'system' is missing"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
@pytest.mark.parametrize("options", [["--exact"], []])
def test_a_bad_line_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str,
    message: str,
    options: list[str],
) -> None:
    path = written(tmp_path / name, text)
    out = tmp_path / f"out{path.suffix}"
    assert main([str(path), "--out", str(out), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fusion.rover: {tmp_path}/")
    assert message.split(" must")[0] in line
    assert not out.exists()


USER_ERRORS = [
    (["a.ctm", "b.jsonl", "--exact"], "must be of one kind"),
    (["missing.jsonl"], "missing.jsonl"),
    (["a.jsonl", "--exact", "--weights", "1"], "--weights is given, --exact does not have it"),
    (["a.jsonl", "--exact", "--hyps", "2"], "--hyps is 2, must be 1 with --exact"),
    (["a.jsonl", "--method", "maxconf"], "--method is maxconf, must be freq or avgconf"),
    (["a.jsonl", "--alpha", "0.5"], "--alpha is 0.5, needs --method avgconf"),
    (["a.jsonl", "--nbest-scale", "2"], "--nbest-scale is 2, needs --nbest 2 or more"),
    (["a.jsonl", "--null-conf", "0.5"], "--null-conf is 0.5, needs --method avgconf"),
    (["a.jsonl", "--calibration", "c.json"], "--calibration is c.json, needs --method avgconf"),
    (
        ["a.jsonl", "--method", "avgconf", "--calibration", "c.json"],
        "a: has no calibration, must be one of b",
    ),
    (["a.jsonl", "--method", "avgconf", "--calibration", "a.jsonl"], "a.jsonl: is no calibration"),
    (["a.jsonl", "--exact", "--calibration", "c.json"], "--exact does not have it"),
    (["a.jsonl", "--weights", "1", "2"], "must be as many as members"),
    (["plain.jsonl", "--exact", "--out", "x.ctm"], "u: word 'x' has no time, CTM needs both times"),
    (["two.ctm", "--exact"], "two.ctm:2: u has two channels, must have one"),
]


@pytest.mark.parametrize(("arguments", "message"), USER_ERRORS)
def test_a_user_error_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        write_rows(Path(name), [row("u", "x", [0.5], timed=True)])
    write_rows(Path("plain.jsonl"), [row("u", "x")])
    written(Path("a.ctm"), "u 1 0 1 x 1\n")
    written(Path("two.ctm"), "u 1 0 1 x 1\nu 2 0 1 x 1\n")
    write_calibration(Path("c.json"), calibration(b=(0.5, 0.5)))
    assert main(["--out", "out.jsonl", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fusion.rover: ")
    assert message in line


@pytest.mark.parametrize("option", [["--nj", "-1"], ["--hyps", "0"], ["--method", "best"]])
def test_a_wrong_option_is_exit_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["a.jsonl", "--out", str(tmp_path / "x.jsonl"), *option])
    assert stop.value.code == 2
    assert option[0] in capsys.readouterr().err
