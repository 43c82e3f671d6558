"""Average the weights of a training's last checkpoints."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file

from systems.hf_trainer import AsrTrainer

log = logging.getLogger(__name__)


def average_checkpoints(trainer: AsrTrainer, count: int) -> float | None:
    """Give the model the mean of its last ``count`` checkpoints if dev's WER does not rise.

    Returns the mean's WER; None when there is nothing to average. What is averaged are the
    trained weights: of an adapter, its factors.
    """
    folder = Path(trainer.args.output_dir)
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    files = [path / "model.safetensors" for path in found[-count:]]
    if count < 2 or len(files) < 2:
        return None
    best = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    best_wer = trainer.state.best_metric
    trainer.model.load_state_dict(mean_of(files))
    wer = float(trainer.evaluate()["eval_wer"])
    log.info("mean of %d checkpoints: WER %.4f, best single one %.4f", len(files), wer, best_wer)
    if wer > best_wer:
        trainer.model.load_state_dict(best)
    return wer


def mean_of(files: list[Path]) -> dict[str, torch.Tensor]:
    """Return the mean of the weights in some files; whole numbers are the last file's."""
    total: dict[str, torch.Tensor] = {}
    for file in files:
        for name, weight in load_file(file).items():
            if name in total and weight.is_floating_point():
                total[name] += weight.double()
            else:
                total[name] = weight.double() if weight.is_floating_point() else weight
    last = load_file(files[-1])
    return {
        name: (weight / len(files)).to(last[name].dtype)
        if last[name].is_floating_point()
        else last[name]
        for name, weight in total.items()
    }
