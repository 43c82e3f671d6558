"""The command's side of ROVER: what is read, written and refused; several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fusion.records
from fusion.calibration import Calibration, MemberCalibration, write_calibration
from fusion.nist.columns import NULL, Vocabulary
from fusion.nist.ctm_columns import _any_fields, _same_fields, has_confidences
from fusion.nist.rule import Rule
from fusion.nist.segments import common_pauses
from fusion.parallel import in_order
from fusion.pool import read_pool
from fusion.records import Part, read_ctm_records
from fusion.rover import main, rover
from fusion.voting.combine import fuse
from fusion.voting.vote import VoteOptions
from manifests import Hypothesis, NBest, Word, read_nbest, write_rows


def row(
    utt_id: str, text: str, confidences: Sequence[float | None] = (), *, timed: bool = False
) -> NBest:
    """A row whose words, one each 0.4 s, are listed where they have confidences or times."""
    words = None
    if confidences or timed:
        texts = text.split()
        given = confidences or [None] * len(texts)
        words = tuple(
            Word(
                text=word,
                start=round(0.4 * n, 1) if timed else None,
                end=round(0.4 * n + 0.3, 1) if timed else None,
                confidence=c,
            )
            for n, (word, c) in enumerate(zip(texts, given, strict=True))
        )
    return NBest(utt_id=utt_id, system="s", hyps=(Hypothesis(text=text, words=words),))


def failed(utt_id: str) -> NBest:
    return NBest(utt_id=utt_id, system="s", hyps=(Hypothesis(text=""),), error="damaged")


def members(folder: Path, *files: Iterable[NBest]) -> list[Path]:
    paths = [folder / f"m{n}.jsonl" for n in range(len(files))]
    for path, rows in zip(paths, files, strict=True):
        write_rows(path, rows)
    return paths


def exact(folder: Path, *files: Iterable[NBest], rule: Rule | None = None) -> dict[str, NBest]:
    out = folder / "out.jsonl"
    rover(members(folder, *files), out, rule or Rule(), jobs=1)
    return {found.utt_id: found for found in read_nbest(out)}


def test_text_alone_is_enough(tmp_path: Path) -> None:
    found = exact(
        tmp_path, [row("a", "I goed home")], [row("a", "i go home")], [row("a", "i goed home")]
    )
    assert found["a"].best.text == "i goed home"
    assert found["a"].system == "rover"
    assert [word.start for word in found["a"].best.words or ()] == [None, None, None]
    assert [word.confidence for word in found["a"].best.words or ()] == [None, None, None]


def test_who_did_not_decode_has_no_vote_and_silence_is_one(tmp_path: Path) -> None:
    voted = [row("a", "yes"), row("b", "yes"), row("c", "yes"), row("d", "yes")]
    silent = [row("a", ""), failed("b"), row("d", "yes")]
    also = [row("a", ""), failed("b"), failed("c"), row("d", "yes")]
    found = exact(tmp_path, voted, silent, also)
    assert {utt_id: one.best.text for utt_id, one in found.items()} == {
        "a": "",
        "b": "yes",
        "c": "yes",
        "d": "yes",
    }
    assert not any(one.error for one in found.values())


def test_nobody_voted(tmp_path: Path) -> None:
    found = exact(tmp_path, [failed("a"), row("b", "x")], [failed("a")])
    assert found["a"].error == "no member has a result"
    assert found["a"].best.text == ""
    assert found["b"].best.text == "x"


def test_what_is_written_of_times_and_confidences(tmp_path: Path) -> None:
    found = exact(
        tmp_path,
        [row("a", "a b", [0.5, 0.9], timed=True)],
        [row("a", "a c", [0.7, None], timed=True)],
        [row("a", "a c", [0.9, 0.4], timed=True)],
        rule=Rule("meth1", 1.0),
    )
    first, second = found["a"].best.words or ()
    assert first == Word(text="a", start=0.0, end=0.3, confidence=0.7)
    assert second == Word(text="c", start=0.4, end=0.7)  # one of its voters gave no confidence


def test_a_missing_confidence_is_what_its_hypothesis_makes_of_it(tmp_path: Path) -> None:
    """As in a CTM: 0 where other words have one, -1 where none has."""
    rule = Rule("avgconf", 0.0)
    heard = [[row("u", "x b", [None, 0.1])], [row("u", "y b", [0.1, 0.1])]]
    assert exact(tmp_path, *heard, rule=rule)["u"].best.text == "y b"
    heard = [[row("u", "x b")], [row("u", "y b", [0.1, 0.1])]]
    assert exact(tmp_path, *heard, rule=rule)["u"].best.text == "x b"  # the sum is negative


def test_one_member_is_itself(tmp_path: Path) -> None:
    assert exact(tmp_path, [row("a", "just Me")])["a"].best.text == "just me"


TEXTS = st.lists(st.sampled_from(["a", "b", "c", "A"]), max_size=5).map(" ".join)
FILES = st.lists(
    st.dictionaries(st.sampled_from(["u1", "u2", "u3", "u4"]), TEXTS), min_size=1, max_size=4
)
slow = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@slow
@given(FILES, st.integers(1, 3))
def test_batches_do_not_matter(tmp_path: Path, files: list[dict[str, str]], size: int) -> None:
    """An utterance gets in company what it gets alone; every utterance that a file has is there."""
    paths = members(tmp_path, *([row(u, text) for u, text in file.items()] for file in files))
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    rover(paths, whole, Rule(), jobs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusion.records, "_BATCH", size)
        rover(paths, cut, Rule(), jobs=1)
    assert cut.read_bytes() == whole.read_bytes()
    assert {one.utt_id for one in read_nbest(whole)} == {u for file in files for u in file}


@pytest.mark.parametrize("options", [Rule("avgconf", 0.5, 0.2), VoteOptions(alpha=0.5)])
def test_the_number_of_processes_does_not_matter(
    tmp_path: Path, options: Rule | VoteOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusion.records, "_BATCH", 7)
    texts = ["a b c", "a c", "b a c d", "", "c"]
    files = [
        [row(f"u{n}", texts[(n * k + n // 3) % 5]) for n in range(100) if (n + k) % 11]
        for k in (1, 2, 3)
    ]
    paths = members(tmp_path, *files)
    outs = [tmp_path / f"out{jobs}.jsonl" for jobs in (1, 3)]
    for out, jobs in zip(outs, (1, 3), strict=True):
        rover(
            paths,
            out,
            options,
            jobs=jobs,
            networks=out.with_suffix(".net.jsonl") if isinstance(options, VoteOptions) else None,
        )
    assert outs[0].read_bytes() == outs[1].read_bytes()
    if isinstance(options, VoteOptions):
        nets = [out.with_suffix(".net.jsonl").read_bytes() for out in outs]
        assert nets[0] == nets[1] != b""


def test_the_default_mode_is_that_of_combine(tmp_path: Path) -> None:
    files = [[row("a", "one two"), row("b", "x")], [row("a", "1 2")], [row("b", "y")]]
    paths = members(tmp_path, *files)
    out = tmp_path / "out.jsonl"
    assert main([*map(str, paths), "--out", str(out)]) == 0
    assert list(read_nbest(out)) == [one.row for one in fuse(read_pool(paths), VoteOptions())]


def test_nor_does_it_for_ctm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion.records, "_BATCH", 7)
    paths = [
        written(
            tmp_path / f"m{k}.ctm",
            "".join(
                f"u{n} 1 {w / 2} 0.4 {'abc'[n * w * k % 3]} 0.{n}\n"
                for n in range(50)
                for w in range(4)
            ),
        )
        for k in (1, 2, 4)
    ]
    outs = [tmp_path / f"out{jobs}.ctm" for jobs in (1, 3)]
    for out, jobs in zip(outs, (1, 3), strict=True):
        rover(paths, out, Rule("avgconf", 0.5, 0.2), jobs=jobs)
    assert outs[0].read_bytes() == outs[1].read_bytes() != b""


CTM = """\
;; made by hand
U1 A 0.0 0.1 a 0.5
U1 A 0.2 0.1 b 0.5
;; in between
U1  A 0.4 0.1 c 0.5

U1 B 0.0 0.1 d NA
U2 A 0.0 0.1 e 0.5 1
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("read", [1, 30, 1 << 20])
def test_a_ctm_is_cut_by_file_and_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    monkeypatch.setattr(fusion.records, "_READ", read)
    path = written(tmp_path / "a.ctm", CTM)
    found = [(name, data.split()[4::6][:1]) for name, (_, data) in read_ctm_records(path)]
    assert found == [("U1 A", [b"a"]), ("U1 B", [b"d"]), ("U2 A", [b"e"])]
    offsets = [offset for _, (offset, _) in read_ctm_records(path)]
    assert [CTM.encode()[offset:][:4] for offset in offsets] == [b"U1 A", b"U1 B", b"U2 A"]


@pytest.mark.parametrize("confidence", ["0.5", "1", ".5", "5e-1", "+0.5", "NA", ""])
def test_numbers_of_a_ctm(tmp_path: Path, confidence: str) -> None:
    """Whatever way they are written, and mixed with lines that have none."""
    for text in (f"u 1 .5 1e-1 a {confidence}\n", f"u 1 0.5 0.1 a {confidence}\nu 1 1 0.1 b"):
        path, out = written(tmp_path / "a.ctm", text), tmp_path / "out.ctm"
        rover([path, path], out, Rule())
        none = confidence in ("NA", "")
        value = -1 if none else float(confidence)
        assert out.read_text().splitlines()[0] == f"u 1 0.500 0.100 a {value:.6f}"
        assert has_confidences(path) != none


FIELD = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=4).filter(
    lambda text: text.lower() != "<alt"  # refused
)
NUMBER = st.floats(0, 1e5, width=32).map(str) | st.sampled_from(["0", "007", "1.", "1e-3", "0.1"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.tuples(NUMBER, NUMBER, FIELD, NUMBER), max_size=4), min_size=1),
    st.booleans(),
)
def test_a_table_is_what_its_lines_are(
    utterances: list[list[tuple[str, str, str, str]]], graded: bool
) -> None:
    """The fast way reads no character of a word as anything else."""
    names = [f"u{n} 1" for n in range(len(utterances))]
    records = [
        "".join(f"{name} {' '.join(line if graded else line[:3])}\n" for line in lines).encode()
        for name, lines in zip(names, utterances, strict=True)
    ]
    part = Part(b"".join(records), [0 if data else -1 for data in records], list(map(len, records)))
    vocabulary = Vocabulary()
    slow = _any_fields(Path("x.ctm"), part, vocabulary)
    fast = _same_fields(names, part, vocabulary)
    if not part.data:
        return
    assert fast is not None
    assert fast.words.tolist() == slow.words.tolist()
    assert fast.counts.tolist() == slow.counts.tolist()
    for field in ("start", "duration", "confidence"):
        assert_array_equal(getattr(fast, field), getattr(slow, field))


def test_files_in_another_order_and_without_a_last_newline(tmp_path: Path) -> None:
    one = written(tmp_path / "a.ctm", "u 1 0 1 x 1\nv 1 0 1 y 1\nw 1 0 1 z 1")
    other = written(tmp_path / "b.ctm", "w 1 0 1 z 1\nv 1 0 1 y 1\nu 1 0 1 x 1")
    rover([one, other], tmp_path / "out.ctm", Rule())
    lines = (tmp_path / "out.ctm").read_text().splitlines()
    assert sorted(line.split()[0] + line.split()[4] for line in lines) == ["ux", "vy", "wz"]


def test_a_ctm_keeps_ids_and_may_become_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ctm", "Anna-1 A 0.5 0.1 Caf\u00c9 0.5\n")
    rover([path], tmp_path / "out.ctm", Rule())
    assert (tmp_path / "out.ctm").read_text() == "Anna-1 A 0.500 0.100 caf\u00c9 0.500000\n"
    for options in (Rule(), VoteOptions()):
        rover([path, path], tmp_path / "out.jsonl", options)
        (found,) = read_nbest(tmp_path / "out.jsonl")
        assert found.utt_id == "Anna-1"
        assert (found.best.words or ())[0].start == 0.5


@pytest.mark.parametrize("options", [Rule(), VoteOptions()])
def test_rows_become_a_ctm(tmp_path: Path, options: Rule | VoteOptions) -> None:
    rows = [row("a", "x y", [0.5, 0.5], timed=True), row("b", "")]
    out = tmp_path / "out.ctm"
    rover(members(tmp_path, rows, rows), out, options)
    assert [line.split()[:5] for line in out.read_text().splitlines()] == [
        ["a", "1", *times, word]
        for times, word in zip(
            [("0.000", "0.300"), ("0.400", "0.300")]
            if isinstance(options, Rule)
            else [("0.0", "0.3"), ("0.4", "0.3")],
            "xy",
            strict=True,
        )
    ]


def test_pandas_is_not_loaded(tmp_path: Path) -> None:
    """Arrow would import it behind our back, which takes longer than a batch."""
    path = written(tmp_path / "a.ctm", "u 1 0 1 a 1\n")
    code = (
        "import sys; from fusion.rover import main; "
        f"main([{str(path)!r}, '--out', {str(tmp_path / 'o.ctm')!r}, '--exact']); "
        "assert 'pyarrow' in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


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


def calibration(**members: tuple[float, float]) -> Calibration:
    """Of members without a curve: what their words are worth, and their null words."""
    return Calibration(
        members=tuple(
            MemberCalibration(
                name=name, words=9, accuracy=word, curve=None, null=null, null_slots=9
            )
            for name, (word, null) in members.items()
        )
    )


def test_confidences_and_gaps_mean_what_calibration_says(tmp_path: Path) -> None:
    a, b, c = (tmp_path / f"{name}.jsonl" for name in "abc")
    write_rows(a, [row("u", "one more", [1.0, 1.0])])
    write_rows(b, [row("u", "one", [0.1])])
    asked, files = tmp_path / "c.json", [str(a), str(b)]
    write_calibration(asked, calibration(a=(0.6, 0.5), b=(0.5, 0.7), c=(0.1, 0.1)))
    command = [*files, "--out", str(c), "--method", "avgconf", "--alpha", "0"]
    for extra, expected in (
        ([], "one more"),
        (["--calibration", str(asked)], "one"),
        (["--calibration", str(asked), "--null-conf", "0.4"], "one more"),
    ):
        assert main([*command, *extra]) == 0
        assert [one.best.text for one in read_nbest(c)] == [expected]
    # Whoever is named first; and both ways to read the files: with networks rows are read whole.
    for order in (files, files[::-1]):
        networks = ["--networks", str(tmp_path / "n.jsonl"), "--calibration", str(asked)]
        assert main([*order, *command[2:], *networks]) == 0
        assert [one.best.text for one in read_nbest(c)] == ["one"]


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


def whoami(task: int) -> tuple[int, int]:
    return task, os.getpid()


def test_work_is_done_by_others_and_comes_back_in_order() -> None:
    found = list(in_order(whoami, range(50), 3))
    assert [task for task, _ in found] == list(range(50))
    assert os.getpid() not in {process for _, process in found}
    assert list(in_order(whoami, range(3), 1)) == [(n, os.getpid()) for n in range(3)]
    assert list(in_order(whoami, [7], 3)) == [(7, os.getpid())]


def test_a_process_with_threads_does_not_fork() -> None:
    """It could hold a lock that a thread had, for ever."""
    waiting = threading.Event()
    thread = threading.Thread(target=waiting.wait)
    thread.start()
    try:
        assert list(in_order(abs, [-1, -2, -3], 2)) == [1, 2, 3]
    finally:
        waiting.set()
        thread.join()


def explode(task: int) -> int:
    raise ValueError(f"task {task}")


def test_an_error_of_a_process_arrives() -> None:
    with pytest.raises(ValueError, match="task 0"):
        list(in_order(explode, range(20), 2))


def test_numbers_of_words() -> None:
    vocabulary = Vocabulary()
    words = ["a", "A", "a", "a*", "\u00c9", "\u00e9", "@", "", "**"]
    assert vocabulary.numbers(words) == [1, 1, 1, 1, 2, 3, NULL, NULL, 4]
    assert vocabulary.texts == ["@", "a", "\u00c9", "\u00e9", "*"]


def test_a_pause_must_be_common() -> None:
    starts, ends = [[0.0, 3.0], [0.0, 0.9]], [[0.5, 3.5], [0.8, 3.5]]
    # The second one's words leave 0.1 s of the first one's pause.
    assert list(common_pauses(starts, ends)) == [([0, 0], [1, 1]), ([1, 1], [2, 2])]
    ends[1][0] = 0.9
    assert list(common_pauses(starts, ends)) == [([0, 0], [2, 2])]


def test_meta_tells_how(tmp_path: Path) -> None:
    exact(tmp_path, [row("a", "x")], rule=Rule("avgconf", 0.3))
    meta = msgspec.json.decode((tmp_path / "out.meta.json").read_bytes())
    assert meta["options"] == {"method": "avgconf", "alpha": 0.3, "null_confidence": 0.0}
    assert meta["members"] == [str(tmp_path / "m0.jsonl")]
