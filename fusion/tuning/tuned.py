"""How members are combined, as `fusion.tune` wrote it and `fusion.apply` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from fusion.folds import Fitted
from fusion.tuning.methods import load
from manifests import write_atomic

_SMALL = 2000  # characters of JSON that a reader of the YAML still wants to see


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
    text = msgspec.json.encode(tuned.settings).decode()
    if len(text) > _SMALL:
        write_atomic(model_path(path), msgspec.json.format(text, indent=1) + "\n")
        values["settings"] = {"file": model_path(path).name}
    head = "# Written by fusion.tune, applied by fusion.apply.\n"
    write_atomic(path, head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def read_tuned(path: Path) -> Tuned:
    """Read a choice; ValueError when the file is none."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and set(values.get("settings") or ()) == {"file"}:
            file = path.with_name(values["settings"]["file"])
            values["settings"] = msgspec.json.decode(file.read_bytes())
        return msgspec.convert(values, Tuned)
    except (yaml.YAMLError, msgspec.DecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: is no file of fusion.tune: {reason}") from None
