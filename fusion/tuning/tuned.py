"""How members are combined, as `fusion.tune` wrote it and `fusion.apply` reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from fusion.folds import Fitted
from fusion.tuning.methods import KINDS, load
from manifests import read_json, write_atomic, write_json
from manifests.faults import JSON_ERRORS

_SMALL = 2000  # bytes of JSON that a reader of the YAML still wants to see


class Tuned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The choice."""

    method: str
    members: tuple[str, ...]  # that are asked, in the order of the settings
    ranking: tuple[str, ...]  # all members, best on dev first: who stands in where nobody voted
    settings: dict[str, Any]  # what the method learned
    lms: tuple[str, ...] = ()  # where the language models are that it could choose from

    def model(self) -> Fitted:
        """Return what can be applied to ballots of ``members``; ValueError when it is none."""
        return load(self.method, self.settings)


def model_path(path: Path) -> Path:
    """Return where settings too long to be read lie: ``x.model.json`` for ``x.yaml``."""
    return path.with_suffix(".model.json")


def write_tuned(path: Path, tuned: Tuned) -> None:
    """Write the choice as YAML; long settings go to a file beside it."""
    import yaml

    values = msgspec.to_builtins(tuned)
    if len(msgspec.json.encode(tuned.settings)) > _SMALL:
        write_json(model_path(path), tuned.settings)
        values["settings"] = {"file": model_path(path).name}
    head = "# Written by fusion.tune, applied by fusion.apply.\n"
    write_atomic(path, head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def read_tuned(path: Path) -> Tuned:
    """Read a choice; ValueError when the file is none."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        match values:
            case {"settings": {"file": str(name), **others}} if not others:
                values["settings"] = read_json(path.with_name(name), dict[str, Any], "JSON object")
        tuned = msgspec.convert(values, Tuned)
    except (yaml.YAMLError, *JSON_ERRORS) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: is no file of fusion.tune: {reason}") from None
    for fault in _faults(tuned):
        raise ValueError(f"{path}: {fault}")
    return tuned


def _faults(tuned: Tuned) -> Iterator[str]:
    """Yield what an editor may have done to a choice; its settings are for the method to check."""
    if tuned.method not in KINDS:
        yield f"method is {tuned.method!r}, must be one of: {', '.join(KINDS)}"
    for name, given in (("members", tuned.members), ("ranking", tuned.ranking)):
        for member, count in Counter(given).items():
            if count > 1:
                yield f"{name} has {member!r} {count} times, must have it once"
