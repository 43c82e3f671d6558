"""The training loop: Lightning's, resumed at its last whole checkpoint, ended at the best one."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from manifests.device import Device, Precision, peak_memory
from manifests.jsonl import write_json
from manifests.progress import bars_wanted
from systems.nemo.config import TrainConfig
from systems.nemo.module import FineTuner, Hear

log = logging.getLogger(__name__)

DONE = "done.json"
"""Written when training has come to its end: which checkpoint is the result."""


def fit(
    model: Any,
    config: TrainConfig,
    exp: Path,
    *,
    device: Device,
    precision: Precision,
    batches: Any,
    dev: Any,
    hear: Hear,
) -> dict[str, Any]:
    """Train ``model`` in place, leave it with the best weights, return what reports say of it."""
    folder = exp / "checkpoints"
    tuner = FineTuner(model, config, hear)
    done = folder / DONE
    trainer = None
    if not done.exists():
        last = last_checkpoint(folder)
        if last is not None:
            state = torch.load(last, map_location="cpu", weights_only=False)
            step = state["global_step"]
            batches.batch_sampler.start = step * config.accumulation
            log.info("resuming at step %d of %d", step, config.max_steps)
        trainer = _trainer(config, exp, device, precision)
        trainer.fit(tuner, batches, dev, ckpt_path=last)
        if trainer.is_global_zero:
            name = Path(trainer.checkpoint_callback.best_model_path).name
            found = {"checkpoint": name, "steps": trainer.global_step}
            write_json(done, found)
        trainer.strategy.barrier()
    ended = json.loads(done.read_text(encoding="utf-8"))
    state = torch.load(folder / ended["checkpoint"], map_location="cpu", weights_only=False)
    tuner.load_state_dict(state["state_dict"], strict=False)
    if trainer is None:
        tuner.on_load_checkpoint(torch.load(folder / "last.ckpt", weights_only=False))
    best = min(tuner.evaluations, key=lambda one: one[config.choose_by])
    return {
        "best_wer": best["wer"],
        "best_step": int(best["step"]),
        "steps": ended["steps"],
        "evaluations": tuner.evaluations,
        "train_seconds": round(tuner.seconds, 1),
        "peak_memory_bytes": peak_memory(device),
        "precision": precision,
    }


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint; what a kill cut short is no good."""
    found = sorted(folder.glob("*.ckpt"), key=lambda path: -path.stat().st_mtime)
    for path in found:
        try:
            torch.load(path, map_location="cpu", weights_only=False, mmap=True)
        except Exception as error:  # whatever a torn file makes of the reader
            log.warning("%s: incomplete, not resumed from (%s)", path, type(error).__name__)
            continue
        return path
    return None


class _Log(Callback):
    """Progress as log lines."""

    def __init__(self, every: int) -> None:
        self._every = every

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        step = trainer.global_step
        complete = (index + 1) % trainer.accumulate_grad_batches == 0
        if trainer.is_global_zero and complete and step % self._every == 0:
            value = float(trainer.callback_metrics.get("loss", float("nan")))
            log.info("step %d of %d: loss %.4g", step, trainer.max_steps, value)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if trainer.is_global_zero and module.evaluations:
            last = module.evaluations[-1]
            log.info("step %d: dev loss %.4g, WER %.4f", last["step"], last["loss"], last["wer"])


class _EvaluateLast(Callback):
    """Have the last step evaluated, too: what no evaluation has seen cannot be the result."""

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True  # on which Lightning evaluates


def _trainer(config: TrainConfig, exp: Path, device: Device, precision: Precision) -> Any:
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    strategy: Any = "auto"
    arithmetic: Any = {"bf16": "bf16-mixed", "fp16": "16-mixed"}.get(precision, "32-true")
    if world > 1:
        backend = "nccl" if device == "cuda" else "gloo"
        strategy = DDPStrategy(process_group_backend=backend, gradient_as_bucket_view=True)
    callbacks: list[Any] = [
        _Log(max(1, config.eval_steps // 10)),
        _EvaluateLast(),
        ModelCheckpoint(
            dirpath=exp / "checkpoints",
            filename="{step}",
            monitor=f"val_{config.choose_by}",
            mode="min",
            save_top_k=1,
            save_last=True,
            auto_insert_metric_name=True,
            enable_version_counter=False,
        ),
    ]
    if config.patience:
        callbacks.append(
            EarlyStopping(f"val_{config.choose_by}", patience=config.patience, mode="min")
        )
    return lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(device, device),
        devices=processes,
        num_nodes=world // processes,
        strategy=strategy,
        precision=arithmetic,
        max_steps=config.max_steps,
        max_epochs=-1,
        val_check_interval=config.eval_steps * config.accumulation,
        check_val_every_n_epoch=None,
        accumulate_grad_batches=config.accumulation,
        gradient_clip_val=config.max_grad_norm,
        callbacks=callbacks,
        logger=_loggers(config, exp),
        log_every_n_steps=max(1, config.eval_steps // 10),
        enable_progress_bar=bars_wanted(),
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        # The positional tables that an evaluation extends are used in training afterwards.
        inference_mode=False,
        default_root_dir=exp,
    )


def _loggers(config: TrainConfig, exp: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

    loggers: list[Any] = []
    if "tensorboard" in config.report_to:
        loggers.append(TensorBoardLogger(exp, name="", version="logs"))
    if "wandb" in config.report_to:
        loggers.append(WandbLogger(exp.resolve().name, save_dir=exp, project="childrens-asr"))
    return loggers or False
