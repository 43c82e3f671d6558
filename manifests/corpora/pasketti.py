"""The children's word track of "On Top of Pasketti" (DrivenData, 2026), as participants have it.

train_word_transcripts.jsonl holds the labelled set, utterance_metadata.jsonl the blind one;
audio_path is relative to them. The data may not be passed on. To check every file's size and
md5, which reads all the audio:

    python -m manifests.corpora.pasketti DATA_DIR

It prints one line for each fault, such as
    data/train_word_transcripts.jsonl:7: md5_hash is 'd41d8c...', must be the file's 0cc175...
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifests.corpora import Sets
from manifests.corpora.drafts import Draft, json_objects, measured, utterance
from manifests.rows import AGE_BUCKETS, Rejected, safe_utt_id

_FILES = {"train": "train_word_transcripts.jsonl", "test": "utterance_metadata.jsonl"}
_RENAMED = {
    "child_id": "speaker",
    "session_id": "session",
    "audio_duration_sec": "duration",
    "age_bucket": "age",
    "orthographic_text": "text",
}
# They describe the published file, not the one that preparation makes of it.
_OF_THE_FILE = ("audio_path", "utterance_id", "md5_hash", "filesize_bytes")


def import_corpus(src: Path, *, verify: bool = False) -> Sets:
    """Return ``train`` and the blind ``test``, whichever are there.

    With ``verify`` an utterance whose audio has not the published size and md5 is rejected.
    Ids that no row can carry are replaced and kept as ``extra["utterance_id"]``.
    """
    found = {name: src / file for name, file in _FILES.items() if (src / file).is_file()}
    if not found:
        raise ValueError(f"{src}: must hold {' or '.join(_FILES.values())}")
    return {name: measured(_drafts(path, verify)) for name, path in found.items()}


def _drafts(path: Path, verify: bool) -> Iterator[Draft | Rejected]:
    folder = path.absolute().parent
    for place, values in json_objects(path):
        raw_id = None
        try:
            if isinstance(values, ValueError):
                raise values
            raw_id = values.get("utterance_id")
            row = _row(values, folder)
            if verify:
                _verify(values, Path(row["audio_filepath"]))
            yield Draft(place, utterance(row))
        except ValueError as error:
            named = raw_id if isinstance(raw_id, str) else None
            yield Rejected(place=place, reason=str(error), utt_id=named)


def _row(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    for key in ("utterance_id", "audio_path"):
        if not isinstance(values.get(key), str) or not values[key]:
            raise ValueError(f"{key} is {values.get(key)!r}, must be a non-empty string")
    row = {_RENAMED.get(k, k): v for k, v in values.items() if k not in _OF_THE_FILE}
    row["audio_filepath"] = str(folder / values["audio_path"])
    row["utt_id"] = safe_utt_id(values["utterance_id"])
    row["source"] = "pasketti"
    if row["utt_id"] != values["utterance_id"]:
        row["utterance_id"] = values["utterance_id"]
    if row.get("age") == "unknown":
        del row["age"]
    elif row.get("age") not in (None, *AGE_BUCKETS):
        known = ", ".join((*AGE_BUCKETS, "unknown"))
        raise ValueError(f"age_bucket is {row['age']!r}, must be one of: {known}")
    return row


def _verify(values: dict[str, Any], audio: Path) -> None:
    """Raise ValueError if the file is not the published one; a missing file is found later."""
    if not audio.is_file():
        return
    size, published = audio.stat().st_size, values.get("filesize_bytes")
    if published is not None and size != published:
        raise ValueError(f"filesize_bytes is {published!r}, must be the file's {size}")
    with audio.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    md5 = values.get("md5_hash")
    if md5 is not None and str(md5).lower() != digest:
        raise ValueError(f"md5_hash is {md5!r}, must be the file's {digest}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m manifests.corpora.pasketti",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data_dir", type=Path, help="the competition's data directory")
    args = parser.parse_args(argv)
    try:
        sets = import_corpus(args.data_dir, verify=True)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    faults = 0
    for rows in sets.values():
        for row in rows:
            extra = {} if isinstance(row, Rejected) else row.extra or {}
            if isinstance(row, Rejected):
                print(f"{row.place}: {row.reason}")
                faults += 1
            elif "declared_duration" in extra:
                declared = extra["declared_duration"]
                rule = f"must be the audio's {row.duration:g} s"
                print(f"{row.utt_id}: audio_duration_sec is {declared} s, {rule}")
                faults += 1
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
