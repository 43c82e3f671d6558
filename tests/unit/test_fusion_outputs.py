"""No command of fusion writes over what it reads."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from fusion.tuning.tuned import Tuned, write_tuned
from manifests import Hypothesis, NBest, Utterance, write_rows

CALLS = {
    "fusion.rover": "{h} --out {h}",
    "fusion.rover ": "{h} --out {dir}/f.jsonl --networks {h}",
    "fusion.mbr": "{h} --out {h}",
    "fusion.select": "{h} --out {h} --dev-hyp {h} --dev-ref {ref}",
    "fusion.rescore": "{h} --lm lm --out {h} --tune-on {h} --ref {ref}",
    "fusion.rescore_network": "{h} --lm lm --out {ref} --tune-on {h} --ref {ref}",
    "lm.rescore": "{h} --lm lm --out {h} --tune-on {h} --ref {ref}",
    "fusion.calibrate": "{h} --ref {ref} --out {ref}",
    "fusion.arcs": "fit {h} --ref {ref} --out {ref}",
    "fusion.arcs ": "apply {h} --model {ref} --out {h}",
    "fusion.tune": "{h} --ref {ref} --out {dir}/t.yaml --held-out {h}",
    "fusion.tune ": "{h} --ref {ref} --out {ref}",
    "fusion.apply": "{tuned} --hyp {dir} --out {h}",
    "fusion.contribution": "{tuned} --dev-ref {ref} --dev-hyp {dir} --out {tuned}",
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_read_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    files = {"h": tmp_path / "h.jsonl", "ref": tmp_path / "ref.jsonl"}
    write_rows(files["h"], [NBest(utt_id="a", system="s", hyps=(Hypothesis(text="he"),))])
    write_rows(
        files["ref"], [Utterance(utt_id="a", audio_filepath="a.wav", duration=1.0, text="he")]
    )
    files["tuned"] = tmp_path / "tuned.yaml"
    write_tuned(files["tuned"], Tuned(method="member", members=("h",), ranking=("h",), settings={}))
    before = {path: path.read_bytes() for path in files.values()}
    call = CALLS[name].format(**files, dir=tmp_path).split()
    assert import_module(name.strip()).main(call) == 1
    assert "is what is read" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in files.values()}
