"""The submission: the format's order, exactly two keys, and nothing missing, doubled, unknown."""

import json

import pytest

from manifests import Hypothesis, NBest, Rejected, Utterance, write_rows
from manifests.rows import safe_utt_id
from recipes.submission import main


def row(utt_id, *texts, error=None):
    hyps = tuple(Hypothesis(text=text) for text in texts)
    return NBest(utt_id=utt_id, system="rover", hyps=hyps, error=error)


@pytest.fixture
def submit(tmp_path, capsys):
    """A call of the command on rows and ids; returns its status, its lines, its last words."""

    def run(rows, ids, *options):
        hyps, form, out = (tmp_path / name for name in ("h.jsonl", "format.jsonl", "out.jsonl"))
        write_rows(hyps, rows)
        form.write_text(
            "".join(json.dumps({"utterance_id": i, "orthographic_text": "x"}) + "\n" for i in ids)
        )
        status = main([str(hyps), "--format", str(form), "--out", str(out), *options])
        lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else None
        return status, lines, capsys.readouterr().err

    return run


def test_order_keys_and_raw_text(submit):
    rows = [row("a", "He \u201cgoed\u201d home.", "he went"), row("b", ""), row("c", "Um, 1 2 3!")]
    status, lines, _ = submit(rows, ["c", "a", "b"])
    assert status == 0
    assert [list(json.loads(line).items()) for line in lines] == [
        [("utterance_id", "c"), ("orthographic_text", "Um, 1 2 3!")],
        [("utterance_id", "a"), ("orthographic_text", "He \u201cgoed\u201d home.")],
        [("utterance_id", "b"), ("orthographic_text", "")],
    ]


def test_what_failed_is_answered_as_silence(submit):
    status, lines, _ = submit([row("a", "", error="damaged")], ["a"])
    assert status == 0
    assert json.loads(lines[0])["orthographic_text"] == ""


def test_ids_that_no_row_can_carry_come_back_as_they_were(submit):
    raw = "U 1/x"
    status, lines, _ = submit([row(safe_utt_id(raw), "yes")], [raw])
    assert status == 0
    assert json.loads(lines[0]) == {"utterance_id": raw, "orthographic_text": "yes"}


@pytest.mark.parametrize(
    ("rows", "ids", "message"),
    [
        ([row("a", "x")], ["a", "b", "c"], "missing: b, c"),
        ([row("a", "x"), row("a", "y")], ["a"], "doubled: a"),
        ([row("a", "x"), row("z", "y")], ["a"], "unknown: z"),
        ([row("a", "x")], ["a", "a"], "doubled: a"),
        ([row("a", "x")], [], "has no rows"),
    ],
)
def test_wrong_ids_are_refused_and_nothing_is_written(submit, rows, ids, message):
    status, lines, err = submit(rows, ids)
    assert status == 1
    assert lines is None
    assert message in err
    assert len(err.splitlines()) == 1


def test_only_what_preparation_set_aside_may_be_missing(submit, tmp_path, caplog):
    aside = tmp_path / "test.quarantine.jsonl"
    write_rows(
        aside,
        [
            Rejected(place="b.wav", reason="0 bytes", utt_id="b"),
            Rejected(place="a.wav", reason="was heard after all", utt_id="a"),
            Rejected(place="other", reason="not asked for", utt_id="z"),
        ],
    )
    status, lines, err = submit([row("a", "x")], ["a", "b"], "--unheard", str(aside))
    assert status == 0
    assert [json.loads(line)["orthographic_text"] for line in lines] == ["x", ""]
    assert "1 utterances have no usable audio" in caplog.text
    status, _, err = submit([row("a", "x")], ["a", "b", "c"], "--unheard", str(aside))
    assert status == 1
    assert "missing: c;" in err


def test_a_trial_answers_its_own_utterances_only(submit, tmp_path):
    some = tmp_path / "test.jsonl"
    write_rows(some, [Utterance(utt_id="a", audio_filepath="a", duration=1.0)])
    status, lines, _ = submit([row("a", "x")], ["b", "a"], "--only", str(some))
    assert status == 0
    assert [json.loads(line)["utterance_id"] for line in lines] == ["a"]


def test_a_bad_format_names_its_line(tmp_path, capsys):
    form = tmp_path / "format.jsonl"
    form.write_text('{"utterance_id": "a"}\n{"id": "b"}\n')
    hyps = tmp_path / "h.jsonl"
    write_rows(hyps, [row("a", "x")])
    assert main([str(hyps), "--format", str(form), "--out", str(tmp_path / "o")]) == 1
    assert f"{form}:2: " in capsys.readouterr().err


def test_messages_and_answers_have_the_formats_own_ids(submit):
    stand_in = safe_utt_id("b/1")
    status, lines, err = submit([row("a", "x")], ["a", "b/1"])
    assert (status, lines) == (1, None)
    assert "missing: b/1;" in err
    # One row cannot be the answer of two.
    status, lines, err = submit([row(stand_in, "x")], ["b/1", stand_in])
    assert (status, lines) == (1, None)
    assert "has another's row id" in err


def test_a_format_with_a_byte_order_mark(tmp_path):
    hyps, form, out = (tmp_path / name for name in ("h.jsonl", "format.jsonl", "out.jsonl"))
    write_rows(hyps, [row("a", "x")])
    form.write_text('{"utterance_id": "a"}\n', encoding="utf-8-sig")
    assert main([str(hyps), "--format", str(form), "--out", str(out)]) == 0
    assert out.read_text() == '{"utterance_id":"a","orthographic_text":"x"}\n'
