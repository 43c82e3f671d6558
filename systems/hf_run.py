"""One run of `systems.hf_trainer`, from its settings to ``exp/final``, whatever is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Seq2SeqTrainingArguments, set_seed

from manifests.device import Device, Precision, peak_memory, pick_device, pick_precision
from manifests.jsonl import write_json
from systems.examples import ManifestExamples, counted
from systems.experiment import FINAL, is_complete, publish, settings_of, write_settings
from systems.hf_config import TrainConfig
from systems.hf_trainer import AsrTrainer, Clock, remove_incomplete, training_arguments
from systems.sampler import EpochSampler


@dataclass(frozen=True)
class Run:
    """A training that is to be done, or to be gone on with."""

    exp: Path
    device: Device
    precision: Precision
    arguments: Seq2SeqTrainingArguments

    @property
    def final(self) -> Path:
        """Where the result will be."""
        return self.exp / FINAL


def begin(config: Any, train: Path, dev: Path, exp: Path) -> Run | None:
    """Return the run of a system's ``config`` in ``exp``; None when it is complete.

    ValueError when ``exp`` was begun with other settings or other data. Under torchrun every
    process calls this; the first alone writes.
    """
    settings = settings_of(config, train, dev)
    if is_complete(exp, settings):
        return None
    device = pick_device(config.device)
    precision = pick_precision(config.train.precision, device)
    arguments = training_arguments(config.train, exp, device, precision)
    if arguments.process_index == 0:
        write_settings(exp, settings)
        remove_incomplete(Path(arguments.output_dir))
    # The adapter's weights are drawn before the trainer would seed.
    set_seed(config.train.seed)
    return Run(exp, device, precision, arguments)


def finish(
    run: Run, trainer: AsrTrainer, parameters: int, write: Callable[[Path], None], **more: Any
) -> Path:
    """Write ``metrics.json``, with ``more`` in it, then ``final``, which ``write`` fills."""
    if run.arguments.process_index == 0:
        metrics = training_metrics(trainer, parameters)
        metrics |= {"device": run.device, "precision": run.precision, **more}
        write_json(run.exp / "metrics.json", metrics)
        publish(run.final, write)
    trainer.accelerator.wait_for_everyone()
    return run.final


def sampler_of(config: TrainConfig, rows: ManifestExamples, *, grouped: bool) -> EpochSampler:
    """Return the order of the rows; ``grouped`` puts those of like length into one batch."""
    lengths = (rows.durations, config.batch_size) if grouped else None
    return EpochSampler(len(rows), config.seed, rows.weights(config.age_balance), lengths)


def evaluations(trainer: AsrTrainer) -> list[dict[str, float]]:
    """Return step, dev WER and dev loss of each evaluation, those before a kill included."""
    return [
        {"step": entry["step"], "wer": entry["eval_wer"], "loss": entry["eval_loss"]}
        for entry in trainer.state.log_history
        if "eval_wer" in entry
    ]


def training_metrics(trainer: AsrTrainer, parameters: int) -> dict[str, Any]:
    """Return what reports say of a training."""
    state = trainer.state
    best = next(one for one in evaluations(trainer) if one["step"] == state.best_global_step)
    clock = next(c for c in trainer.callback_handler.callbacks if isinstance(c, Clock))
    return {
        "best_wer": best["wer"],
        "best_step": state.best_global_step,
        "steps": state.global_step,
        "evaluations": evaluations(trainer),
        "train_seconds": round(clock.seconds, 1),
        "peak_memory_bytes": peak_memory("cuda" if trainer.args.device.type == "cuda" else "cpu"),
        "trainable_parameters": trainer.get_num_trainable_parameters(),
        "total_parameters": parameters,
        "processes": trainer.args.world_size,
        **counted(trainer.train_dataset, trainer.eval_dataset),
    }
