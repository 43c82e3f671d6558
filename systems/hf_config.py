"""What can be set for fine-tuning with `systems.hf_trainer`, with the reason for each default."""

from __future__ import annotations

from typing import Literal

from systems.config import Config, Count, CountOrNone, NotNegative, Positive, Share


class LoraConfig(Config, frozen=True):
    """Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685)."""

    rank: Count = 16
    alpha: Count = 32
    dropout: Share = 0.05
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


class TrainConfig(Config, frozen=True):
    """Fine-tuning."""

    adapt: Literal["decoder", "encoder+decoder", "full"] = "encoder+decoder"
    lora: LoraConfig = LoraConfig()
    batch_size: Count = 12  # utterances per device and step
    accumulation: Count = 3
    learning_rate: Positive = 1e-4
    warmup: Share = 0.1  # share of the steps
    schedule: Literal["linear", "cosine"] = "linear"
    weight_decay: NotNegative = 0.01
    max_grad_norm: NotNegative = 1.0  # 0 = as it comes
    max_steps: Count = 4000
    eval_steps: Count = 500  # also the checkpoint interval
    patience: CountOrNone = 4  # evaluations without a better one; 0 = never stop early
    # What of dev's says which checkpoint is better; loss in pretraining, where WER is noise yet.
    choose_by: Literal["wer", "loss"] = "wer"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 where it exists
    gradient_checkpointing: bool = False
    spec_augment: bool = True
    mask_time_prob: Share = 0.05
    mask_feature_prob: Share = 0.02
    age_balance: Share = 0.0  # 0 = as the data are, 1 = every age bucket equally often
    num_workers: CountOrNone = 2  # processes that read audio; 0 = none, best on a CPU
    # Features kept in memory, all workers together: worth it for small sets, as a mel
    # spectrogram costs 1 to 20 ms and 0.03 MB per second of window.
    cache_mb: CountOrNone = 256
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    seed: int = 1
    # Largest dev subset for evaluation while training: seeded sample, 0 = all of dev.
    max_eval_utterances: CountOrNone = 0
