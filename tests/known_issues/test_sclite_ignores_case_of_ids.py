"""sclite stops at two ids that differ in case only, so such a manifest is not valid."""

from __future__ import annotations

import subprocess
from pathlib import Path

from manifests import Utterance, write_rows
from manifests.validate import validate
from scoring.sctk import sctk_command


def test_what_sclite_takes_for_one_id_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "r.trn").write_text("one (A-1)\ntwo (a-1)\n")
    sclite = [*sctk_command("sclite"), "-i", "spu_id", "-o", "sum", "stdout"]
    files = ["-r", "r.trn", "trn", "-h", "r.trn", "trn"]
    done = subprocess.run([*sclite, *files], cwd=tmp_path, capture_output=True, text=True)
    assert "double reference text for id '(a-1)'" in done.stdout + done.stderr

    rows = [Utterance(utt_id=i, audio_filepath="a.wav", duration=1) for i in ("A-1", "a-1")]
    write_rows(tmp_path / "m.jsonl", rows)
    (problem,) = validate(tmp_path / "m.jsonl", audio=False)
    assert str(problem).endswith(
        "m.jsonl:2: utt_id is 'a-1', must be unique without regard to case (first on line 1)"
    )
