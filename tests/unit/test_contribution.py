"""Who earns a place: the fusion without each member, fitted again as if it had never been."""

import random

import msgspec
import pytest

from fusion.contribution import contribution, main, render_contribution
from fusion.tune import tune
from fusion.tuning.tuned import write_tuned
from manifests import Hypothesis, NBest, write_rows
from tests.unit.listeners import WORDS, corpus, dev_of


def five_words(rng):
    return " ".join(rng.choices(WORDS, k=5))


def listener(references, rate, seed, system):
    rng = random.Random(seed)
    rows = []
    for utt_id, row in references.items():
        heard = [w if rng.random() > rate else rng.choice(WORDS) for w in row.text.split()]
        hyps = (Hypothesis(text=" ".join(heard), score=-1.0),)
        rows.append(NBest(utt_id=utt_id, system=system, hyps=hyps))
    return rows


def pools(name):
    """Three members that err apart, and a copy of the first; two systems."""
    references = corpus(48, 6, name, five_words, f"{name}{{}}")
    first = listener(references, 0.3, 1, "x")
    members = {
        "x": first,
        "x_copy": first,
        "y": listener(references, 0.3, 2, "y"),
        "y_lm": listener(references, 0.3, 3, "y"),
    }
    return references, members


@pytest.fixture(scope="module")
def found():
    dev, test = dev_of(*pools("dev")), dev_of(*pools("test"))
    tuned, _, _ = tune(dev, ["mbr"])
    assert tuned.method == "mbr"
    return contribution(tuned, dev, test), tuned


def test_whoever_errs_apart_is_missed(found):
    table, tuned = found
    missed = {place.without: place for place in table.places}
    assert {"y", "y_lm"} <= set(tuned.members)
    assert missed["y",].missed > 0.02
    assert missed["y",].ci95[0] > 0
    assert missed["y", "y_lm"].system == "y"
    assert missed["y", "y_lm"].missed >= missed["y",].missed
    assert missed["y",].wer == pytest.approx(table.wer + missed["y",].missed)


def test_nobody_misses_a_copy(found):
    table, _ = found
    for place in table.places:
        if place.without in (("x",), ("x_copy",)):
            assert place.missed == 0


def test_the_table(found):
    table, _ = found
    text = render_contribution(table)
    assert "| (nobody) " in text
    assert "| all of y: y, y_lm " in text
    assert " *" in text
    assert "on test" in text
    assert "points of WER that their absence costs" in text
    assert "**best way through network**" in text


def test_without_a_test_set_dev_is_judged_on_held_out_speakers():
    references, members = pools("dev")
    dev = dev_of(references, members)
    tuned, _, _ = tune(dev, ["mbr"])
    table = contribution(tuned, dev, None)
    assert table.held_out
    assert "held-out speakers of dev" in render_contribution(table)
    assert table.oracle.utts == len(references)


def test_a_lonely_member_has_no_figure():
    references, members = pools("dev")
    dev = dev_of(references, {"y": members["y"]})
    tuned, _, _ = tune(dev, ["member"])
    (place,) = contribution(tuned, dev, None).places
    assert (place.without, place.wer, place.missed) == (("y",), None, None)


def test_the_command(tmp_path, capsys):
    for name in ("dev", "test"):
        references, members = pools(name)
        write_rows(tmp_path / f"{name}.jsonl", references.values())
        for member, rows in members.items():
            write_rows(tmp_path / name / f"{member}.jsonl", rows)
    tuned, _, _ = tune(dev_of(*pools("dev")), ["mbr"])
    write_tuned(tmp_path / "tuned.yaml", tuned)
    out = tmp_path / "contribution.md"
    command = [str(tmp_path / "tuned.yaml"), "--out", str(out)]
    command += ["--dev-ref", str(tmp_path / "dev.jsonl"), "--dev-hyp", str(tmp_path / "dev")]
    full = [*command, "--ref", str(tmp_path / "test.jsonl"), "--hyp", str(tmp_path / "test")]
    assert main(full) == 0
    assert capsys.readouterr().out == out.read_text()
    assert out.with_suffix(".json").exists()
    (tmp_path / "test" / "y.jsonl").unlink()
    assert main(full) == 1
    assert "y.jsonl" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--hyp", str(tmp_path)])


def test_a_ranking_that_lacks_a_member_is_named(tmp_path, capsys):
    """What is left out of the ranking would be left out of the fusion too, unsaid."""
    tuned, _, _ = tune(dev_of(*pools("dev")), ["mbr"])
    lacking = msgspec.structs.replace(tuned, ranking=tuned.ranking[1:], members=tuned.ranking)
    write_tuned(tmp_path / "tuned.yaml", lacking)
    command = [str(tmp_path / "tuned.yaml"), "--out", str(tmp_path / "c.md")]
    assert main([*command, "--dev-ref", "d.jsonl", "--dev-hyp", str(tmp_path)]) == 1
    assert f"ranking lacks {tuned.ranking[0]}, must have all" in capsys.readouterr().err
