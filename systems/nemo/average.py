"""The mean of several NeMo models of one shape."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from systems.averaging import Mean
from systems.nemo.checkpoint import (
    ADAPTER,
    MODEL,
    adapter_weights,
    home_of,
    load_model,
)
from systems.record import RECORD, Record, read_record, write_record

log = logging.getLogger(__name__)


def average(checkpoints: Sequence[str | Path], folder: Path, base: str | None = None) -> None:
    """Write the mean of some models to ``folder``, and their adapter alone where only it varies.

    NeMo's adapters are averaged weight by weight: a bottleneck with an activation inside has no
    exact mean of its size. Of adapters that began from different seeds that is no mean in any
    sense; a warning says so. ``base`` is where the adapters' base is, when it has moved.
    ValueError when the models are not of one shape or vocabulary.
    """
    mean = Mean()
    first = load_model(checkpoints[0], base=base)
    mean.add(first.state_dict(), str(checkpoints[0]))
    for checkpoint in checkpoints[1:]:
        other = load_model(checkpoint, base=base)
        if type(other) is not type(first):
            raise ValueError(
                f"{checkpoint}: is a {type(other).__name__}, must be a {type(first).__name__} as "
                f"{checkpoints[0]}"
            )
        if _pieces(other) != _pieces(first):
            raise ValueError(f"{checkpoint}: its vocabulary is not that of {checkpoints[0]}")
        mean.add(other.state_dict(), str(checkpoint))
    first.load_state_dict(mean.result())
    first.save_to(str(folder / MODEL))
    adapter = adapter_weights(first)
    homes = [home_of(Path(checkpoint)) for checkpoint in checkpoints]
    records = [_record(home) for home in homes]
    if adapter and len({_seed(record) for record in records}) > 1:
        log.warning("adapters of different seeds: their mean may be worse than each of them")
    if records[0] is None:
        return
    if adapter and mean.varied <= adapter.keys():
        import torch

        torch.save({name: weight.clone() for name, weight in adapter.items()}, folder / ADAPTER)
    write_record(folder, "nemo", _base(homes[0], records[0]), records[0].config, folder)


def _pieces(model: Any) -> list[str]:
    tokenizer = model.tokenizer
    return [str(piece) for piece in tokenizer.ids_to_tokens(list(range(tokenizer.vocab_size)))]


def _record(checkpoint: Path) -> Record | None:
    return read_record(checkpoint) if (checkpoint / RECORD).is_file() else None


def _seed(record: Record | None) -> object:
    return None if record is None else record.config.get("train", {}).get("seed")


def _base(checkpoint: Path, record: Record) -> str:
    """Return the base that a record names, found again where both have moved."""
    if record.base_relative and not Path(record.base).exists():
        return str(checkpoint.resolve() / record.base_relative)
    return record.base
