"""Average a training's last checkpoints, or whole models."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from systems.averaging import Mean
from systems.hf_trainer import AsrTrainer
from systems.owsm.checkpoint import load_owsm
from systems.owsm.layout import write_layout
from systems.record import read_record, write_record

log = logging.getLogger(__name__)


def average_checkpoints(trainer: AsrTrainer, count: int) -> float | None:
    """Give the model the mean of its last ``count`` checkpoints if dev's WER (or loss, where
    that chooses) does not rise.

    Returns the mean's WER; None when there is nothing to average. What is averaged are the
    trained weights: of an adapter, its factors, which within one training stay close.
    """
    folder = Path(trainer.args.output_dir)
    saved = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    files = [path / "model.safetensors" for path in saved[-count:]]
    if count < 2 or len(files) < 2:
        return None
    best = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    kind = trainer.args.metric_for_best_model
    least = trainer.state.best_metric
    trainer.model.load_state_dict(mean_of(files))
    found = trainer.evaluate()
    log.info(
        "mean of %d checkpoints: %s %.4f, best single one %.4f",
        *(len(files), kind, found[f"eval_{kind}"], least),
    )
    if found[f"eval_{kind}"] > least:
        trainer.model.load_state_dict(best)
    return float(found["eval_wer"])


def mean_of(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Return the mean of the weights in some files; see `Mean`."""
    mean = Mean()
    for file in files:
        mean.add(load_file(file), str(file))
    return mean.result()


def average(checkpoints: Sequence[str | Path], folder: Path) -> None:
    """Write the mean of whole models to ``folder``, in ESPnet's layout.

    A trained adapter lies merged in its model, so that what is averaged is what the adapters
    add, not their factors. ValueError when the models are not of one shape.
    """
    mean = Mean()
    first = load_owsm(checkpoints[0])
    mean.add(first.model.state_dict(), str(checkpoints[0]))
    for checkpoint in checkpoints[1:]:
        other = load_owsm(checkpoint)
        if other.tokens != first.tokens:
            raise ValueError(f"{checkpoint}: its tokens are not those of {checkpoints[0]}")
        if other.window != first.window:
            raise ValueError(
                f"{checkpoint}: window is {other.window:g} s, must be {first.window:g} as in "
                f"{checkpoints[0]}"
            )
        mean.add(other.model.state_dict(), str(checkpoint))
    write_layout(folder, first.layout.config, mean.result(), first.layout.root)
    record = read_record(first.layout.root)
    if record is not None:
        write_record(folder, "owsm", record.base, record.config, folder)
