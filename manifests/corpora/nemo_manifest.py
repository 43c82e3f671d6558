"""NeMo manifests: JSON Lines with audio_filepath, duration, text, offset and any other key.

https://docs.nvidia.com/nemo-framework/user-guide/latest/nemotoolkit/asr/datasets.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifests.corpora import Sets
from manifests.corpora.drafts import Draft, age_fields, json_objects, measured, utterance
from manifests.rows import AGE_BUCKETS, Rejected, Utterance, digest_id, safe_utt_id

# What our own commands write beside manifests.
_NO_MANIFESTS = (".meta.json", ".quarantine.jsonl", ".dropped.jsonl", ".repaired.jsonl")


def import_corpus(src: Path) -> Sets:
    """Return one set for the manifest ``src``, or for each *.json and *.jsonl in folder ``src``.

    Sets are named after the files ("train" for train_manifest.json). Keys that no row has go
    to ``extra``; without a ``utt_id`` the row gets one made from its file, offset and duration.
    """
    if src.is_dir():
        manifests = sorted(
            path
            for path in src.iterdir()
            if path.suffix in (".json", ".jsonl") and not path.name.endswith(_NO_MANIFESTS)
        )
    else:
        manifests = [src]
    if not manifests or not all(path.is_file() for path in manifests):
        raise ValueError(f"{src}: must be a NeMo manifest or a folder of *.json or *.jsonl")
    sets: Sets = {}
    for path in manifests:
        name = path.stem.removesuffix("_manifest").removeprefix("manifest_")
        if name in sets:
            raise ValueError(f"{path}: set {name!r}, must not be there twice")
        sets[name] = measured(_drafts(path))
    return sets


def _drafts(path: Path) -> Iterator[Draft | Rejected]:
    for place, values in json_objects(path):
        try:
            if isinstance(values, ValueError):
                raise values
            # A part of a file is told by its offset, even if that is 0.
            yield Draft(place, _row(values, path), segment=values.get("offset") is not None)
        except ValueError as error:
            yield Rejected(place=place, reason=str(error))


def _row(values: dict[str, Any], path: Path) -> Utterance:
    audio = values.get("audio_filepath")
    if not isinstance(audio, str) or not audio:
        raise ValueError(f"audio_filepath is {audio!r}, must name a file")
    found = {**values, "audio_filepath": str(path.absolute().parent / audio)}
    found.setdefault("language", values.get("lang"))
    given = values.get("utt_id")
    if given is None:
        found["utt_id"] = digest_id(
            Path(audio).stem, repr((audio, values.get("offset"), values.get("duration")))
        )
    else:
        found["utt_id"] = safe_utt_id(str(given))
        if found["utt_id"] != given:
            found["nemo_id"] = given
    if values.get("age") is not None and values["age"] not in AGE_BUCKETS:
        found |= age_fields(values["age"])
    return utterance(found)
