"""The command's side of ROVER: what is read and written; several processes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fusion.records
from fusion.calibration import write_calibration
from fusion.nist.rule import Rule
from fusion.pool import read_pool
from fusion.rover import main, rover
from fusion.voting.combine import fuse
from fusion.voting.vote import VoteOptions
from manifests import NBest, Word, read_nbest, write_rows
from tests.unit.hypotheses import calibration, failed, members, row


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


def test_meta_tells_how(tmp_path: Path) -> None:
    exact(tmp_path, [row("a", "x")], rule=Rule("avgconf", 0.3))
    meta = msgspec.json.decode((tmp_path / "out.meta.json").read_bytes())
    assert meta["options"] == {"method": "avgconf", "alpha": 0.3, "null_confidence": 0.0}
    assert meta["members"] == [str(tmp_path / "m0.jsonl")]
