"""What Lightning trains: a NeMo model with our losses' devices, WER and traps closed."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as lightning
import torch

from scoring.metric import count_word_errors
from systems.nemo.checkpoint import has_transducer
from systems.nemo.config import TrainConfig
from systems.nemo.data import Batch

Hear = Callable[[torch.Tensor, torch.Tensor], list[str]]
"""Encoder output (see `NemoDecoder.encode`) and frames to the greedy transcripts."""


class FineTuner(lightning.LightningModule):
    """Trains the parameters of ``model`` that ask for gradients; evaluates by greedy WER."""

    # Checkpoints hold what is trained alone.
    strict_loading = False

    def __init__(self, model: Any, config: TrainConfig, hear: Hear) -> None:
        super().__init__()
        self.model = model
        self._config = config
        self._hear = hear
        self.evaluations: list[dict[str, float]] = []
        self.seconds = 0.0  # of training, those before a kill (up to its checkpoint) included
        self._started = 0.0
        self._counts = torch.zeros(4, dtype=torch.float64)  # errors, words, loss, utterances

    def training_step(self, batch: tuple[Batch, list[str]], index: int) -> torch.Tensor:
        value, _, _ = loss_of(self.model, batch[0])
        self.log("loss", value.detach())
        return value

    def on_fit_start(self) -> None:
        self._started = time.monotonic() - self.seconds

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        """Seed by the batch, so that a resumed run draws what it would have drawn.

        Frozen batch norms stay in evaluation: their statistics would drift, and a checkpoint of
        the adapter alone would miss that.
        """
        torch.manual_seed(self._config.seed * 1_000_003 + index * 64 + self.global_rank)
        augmentation = getattr(self.model.spec_augmentation, "spec_augment", None)
        if augmentation is not None:
            augmentation._rng = random.Random(self._config.seed * 1_000_003 + index)
        if self._config.adapt != "full":
            for module in self.model.encoder.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        self.seconds = time.monotonic() - self._started

    def on_validation_epoch_start(self) -> None:
        self._counts.zero_()

    def validation_step(self, batch: tuple[Batch, list[str]], index: int) -> None:
        value, encoded, frames = loss_of(self.model, batch[0])
        errors = count_word_errors(batch[1], self._hear(encoded, frames))
        # A batch's loss is its utterances' mean: weighted, batches may be of any size.
        found = [errors.errors, errors.words, float(value) * len(batch[1]), len(batch[1])]
        self._counts += torch.tensor(found, dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        counts = self._counts
        if self.trainer.world_size > 1:
            counts = counts.to(self.device)
            torch.distributed.all_reduce(counts)
        errors, words, value, utterances = counts.tolist()
        loss = value / max(utterances, 1.0)
        wer = errors / words if words else float(errors > 0)
        self.log("val_wer", wer, rank_zero_only=False, sync_dist=False)
        self.log("val_loss", loss)
        step = self.trainer.global_step
        if not self.evaluations or self.evaluations[-1]["step"] != step:
            self.evaluations.append({"step": step, "wer": wer, "loss": round(loss, 6)})

    def configure_optimizers(self) -> Any:
        config = self._config
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, config))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = {
            f"model.{name}"
            for name, weight in self.model.named_parameters()
            if weight.requires_grad
        }
        frozen = {f"model.{name}" for name, _ in self.model.named_parameters()} - trained
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in weights.items() if k not in frozen}
        checkpoint["progress"] = {"evaluations": self.evaluations, "seconds": self.seconds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.evaluations = list(checkpoint["progress"]["evaluations"])
        self.seconds = checkpoint["progress"]["seconds"]


def rate(step: int, config: TrainConfig) -> float:
    """Return the share of the learning rate at a step: linear warm-up, then the schedule to 0."""
    warmup = max(1, round(config.warmup * config.max_steps))
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, config.max_steps - warmup))
    return 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def loss_of(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a batch's loss, as NeMo's own training step computes it, the encoder's output
    (log-probabilities of a CTC model) and its frames."""
    signal, lengths, tokens, sizes = batch
    encoded, frames = model.forward(input_signal=signal, input_signal_length=lengths)[:2]
    if not has_transducer(model):
        value = model.loss(
            log_probs=encoded, targets=tokens, input_lengths=frames, target_lengths=sizes
        )
        return value, encoded, frames
    predicted = model.decoder(targets=tokens, target_length=sizes)
    if model.joint.fuse_loss_wer:
        value = model.joint(
            encoder_outputs=encoded,
            decoder_outputs=predicted[0],
            encoder_lengths=frames,
            transcripts=tokens,
            transcript_lengths=sizes,
            compute_wer=False,
        )[0]
    else:
        joint = model.joint(encoder_outputs=encoded, decoder_outputs=predicted[0])
        value = model.loss(
            log_probs=joint, targets=tokens, input_lengths=frames, target_lengths=sizes
        )
    if hasattr(model, "ctc_decoder"):
        ctc = model.ctc_loss(
            log_probs=model.ctc_decoder(encoder_output=encoded),
            targets=tokens,
            input_lengths=frames,
            target_lengths=sizes,
        )
        value = (1 - model.ctc_loss_weight) * value + model.ctc_loss_weight * ctc
    return value, encoded, frames
