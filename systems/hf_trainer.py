"""The one trainer of every system that is a torch module: transformers' with its traps closed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)
from transformers.trainer_callback import ExportableState, TrainerState

from manifests.device import Device, Precision
from manifests.progress import bars_wanted
from systems.hf_config import TrainConfig
from systems.sampler import EpochSampler

log = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]
# Model and batch to the loss (a scalar) and the tokens heard, shape (B, L).
EvaluateBatch = Callable[[Any, Batch], tuple[torch.Tensor, torch.Tensor]]
STATE = "trainer_state.json"


class AsrTrainer(Seq2SeqTrainer):  # type: ignore[misc]
    """Fine-tune an encoder-decoder whose ``forward`` returns the mean loss over its labels."""

    def __init__(
        self, *args: Any, evaluate_batch: EvaluateBatch, sampler: EpochSampler, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._evaluate_batch = evaluate_batch
        self._sampler = sampler
        # Have the labels of all accumulated batches counted; `compute_loss` divides by them.
        self.model_accepts_loss_kwargs = True
        self.add_callback(SetEpoch(sampler))
        self.remove_callback(PrinterCallback)  # it prints to stdout
        self.add_callback(_Log())

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss per label over all accumulated batches and all processes.

        Whisper's forward takes ``num_items_in_batch`` in its **kwargs and ignores it, so that
        transformers thinks the loss is scaled: it and its gradient come out multiplied by
        accumulation and processes.
        """
        outputs = model(**inputs)
        loss = outputs["loss"]
        if num_items_in_batch is not None:
            labels = (inputs["labels"] != -100).sum()
            # Distributed training averages the gradients of the processes: undo its division.
            loss = loss * labels / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self,
        model: Any,
        inputs: Batch,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the loss, the tokens heard and the labels of one batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.inference_mode(), self.accelerator.autocast():
            loss, tokens = self._evaluate_batch(self.model, inputs)
        return loss, tokens, inputs["labels"]

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        # The default gathers the rows that fill up the last distributed batch a second time.
        self.gather_function = self.accelerator.gather_for_metrics
        return super().evaluation_loop(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        return self._sampler

    def fit(self) -> None:
        """Train, or go on where a killed run stopped, and load the best checkpoint."""
        last = last_checkpoint(Path(self.args.output_dir))
        if last is None:
            self.train()
            return
        state = TrainerState.load_from_json(str(last / STATE))
        if _is_done(json.loads((last / STATE).read_text(encoding="utf-8"))):
            self.state = state
            self._load_callback_state()
            self._load_best_model()
            return
        log.info("resuming at step %d of %d", state.global_step, self.args.max_steps)
        self.train(resume_from_checkpoint=str(last))


class SetEpoch(TrainerCallback):  # type: ignore[misc]
    """Tell the sampler its epoch; accelerate does not when it resumes a distributed run."""

    def __init__(self, sampler: EpochSampler) -> None:
        self._sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._sampler.set_epoch(int(state.epoch or 0))  # a fraction where it resumes


class _Log(TrainerCallback):  # type: ignore[misc]
    """Progress as log lines."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs:
            numbers = {k: v for k, v in logs.items() if isinstance(v, int | float)}
            values = " ".join(f"{key} {value:.4g}" for key, value in numbers.items())
            log.info("step %d of %d: %s", state.global_step, state.max_steps, values)


class Clock(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Seconds of training, those before a kill (up to its last checkpoint) included."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.monotonic() - self.seconds

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._started is not None:
            self.seconds = time.monotonic() - self._started

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"seconds": self.seconds}}


def training_arguments(
    config: TrainConfig, exp: Path, device: Device, precision: Precision
) -> Seq2SeqTrainingArguments:
    """Return transformers' settings; checkpoints go to ``exp/checkpoints``, curves to ``exp/logs``.

    Rates count optimizer steps: ``batch_size`` x ``accumulation`` x processes utterances each.
    """
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(exp / "logs")
    os.environ["WANDB_DIR"] = str(exp)
    arguments = Seq2SeqTrainingArguments(
        output_dir=str((exp / "checkpoints").resolve()),
        use_cpu=device == "cpu",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        activation_checkpointing=config.gradient_checkpointing,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        # Below 1 a share of all steps, so that 1.0 would mean one step.
        warmup_steps=min(config.warmup, 0.999),
        lr_scheduler_type=config.schedule,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        max_steps=config.max_steps,
        eval_strategy="steps",
        eval_steps=config.eval_steps,
        save_strategy="steps",
        save_steps=config.eval_steps,
        save_total_limit=2,  # the best and the last
        load_best_model_at_end=True,
        metric_for_best_model=config.choose_by,
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,  # patience counts on after a kill
        logging_steps=max(1, config.eval_steps // 10),
        report_to=list(config.report_to),
        run_name=exp.resolve().name,
        project="childrens-asr",
        disable_tqdm=not bars_wanted(),
        dataloader_num_workers=config.num_workers,
        dataloader_persistent_workers=config.num_workers > 0,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        label_names=["labels"],  # an adapter's forward does not show them
        ddp_find_unused_parameters=False,
        seed=config.seed,
    )
    # Several cards without torchrun would mean DataParallel, which is slower than one card and
    # averages losses that `AsrTrainer` has already scaled.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def callbacks(config: TrainConfig) -> list[TrainerCallback]:
    """Return early stopping (where wanted) and the clock."""
    stop = [EarlyStoppingCallback(config.patience)] if config.patience else []
    return [*stop, Clock()]


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in ``folder``; those that a kill cut short are no good.

    A folder that was moved as a whole still finds its best checkpoint.
    """
    found = sorted(
        (path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()),
        key=lambda path: int(path.name[11:]),
    )
    for path in reversed(found):
        state = _state(path)
        if state is None:
            log.warning("%s: incomplete, not resumed from", path)
            continue
        best = state.get("best_model_checkpoint")
        if best and not Path(best).is_dir() and (folder / Path(best).name).is_dir():
            state["best_model_checkpoint"] = str((folder / Path(best).name).resolve())
            part = path / f"{STATE}.{os.getpid()}"
            part.write_text(json.dumps(state, indent=2), encoding="utf-8")
            part.replace(path / STATE)
        return path
    return None


def _state(checkpoint: Path) -> dict[str, Any] | None:
    """Return a checkpoint's state; None when a kill cut the checkpoint short.

    The state is written last: without a whole one, weights or optimizer may be torn as well.
    """
    try:
        state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state


def _is_done(state: dict[str, Any]) -> bool:
    """Return whether the run had come to its end (all steps, or patience lost)."""
    control = state["stateful_callbacks"]["TrainerControl"]["args"]
    return bool(control["should_training_stop"])


def remove_incomplete(folder: Path) -> None:
    """Delete checkpoints that a kill cut short."""
    for path in folder.glob("checkpoint-*"):
        if _state(path) is None:
            shutil.rmtree(path)
