"""Everything that can be set for NeMo's CTC and transducer models, with the reasons."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from systems.config import Config, Count, CountOrNone, NotNegative, Positive, Share
from systems.ctc_config import CtcConfig


class AdapterConfig(Config, frozen=True):
    """NeMo's LinearAdapter behind each encoder layer (Houlsby et al., 2019, arXiv 1902.00751)."""

    dim: Count = 64
    activation: Literal["swish", "relu", "gelu"] = "swish"
    dropout: Share = 0.0


class TrainConfig(Config, frozen=True):
    """Fine-tuning. ``freeze`` trains what follows the encoder, and the encoder's adapters never."""

    adapt: Literal["adapter", "freeze", "full"] = "adapter"
    adapter: AdapterConfig = AdapterConfig()
    # 0 keeps the checkpoint's tokens; else a new SentencePiece of so many is learned from train's
    # texts, and what follows the encoder begins at random.
    new_tokens: CountOrNone = 0
    batch_seconds: Positive = 120.0  # audio per device and step, padding included
    max_batch: Count = 64  # utterances
    accumulation: Count = 1
    learning_rate: Positive = 1e-3  # adapters take ten times what full fine-tuning takes
    warmup: Share = 0.1  # share of the steps
    schedule: Literal["linear", "cosine"] = "cosine"
    weight_decay: NotNegative = 1e-3
    max_grad_norm: NotNegative = 1.0  # 0 = as it comes
    max_steps: Count = 4000
    eval_steps: Count = 500  # also the checkpoint interval
    patience: CountOrNone = 4  # evaluations without a better one; 0 = never stop early
    # What of dev's says which checkpoint is better; loss in pretraining, where WER is noise yet.
    choose_by: Literal["wer", "loss"] = "wer"
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where it exists
    spec_augment: bool = True  # as the checkpoint's config says
    age_balance: Share = 0.0  # 0 = as the data are, 1 = every age bucket equally often
    num_workers: CountOrNone = 2  # processes that read audio; 0 = none, best on a CPU
    cache_mb: CountOrNone = 256  # audio kept in memory, all workers together
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    seed: int = 1
    # Largest dev subset while training, seeded; 0 = all of dev.
    max_eval_utterances: CountOrNone = 0


class DecodeConfig(CtcConfig, frozen=True):
    """CTC heads are decoded as `CtcConfig` says; transducers by NeMo's own search."""

    transducer_beams: Count = 5  # of NeMo's malsd_batch
    transducer_max_symbols: Count = 10  # per frame
    batch_seconds: Positive = 240.0  # audio per batch, filled after sorting by length
    max_batch: Count = 64
    silence_dbfs: float = -55.0  # louder frames than this must exist, else the text is ""
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class NemoConfig(Config, frozen=True):
    """One NeMo recogniser."""

    # A hub id, a name (then of the hub's nvidia/), a `.nemo` file or a folder that holds one.
    pretrained: str = "nvidia/parakeet-ctc-0.6b"
    # What of a hybrid decodes; a model with one head has no choice.
    head: Literal["auto", "ctc", "transducer"] = "auto"
    # Longer audio is cut at quiet places: attention grows with its square (900 s took 15 GB).
    window: Annotated[float, msgspec.Meta(ge=0.2)] = 30.0
    text: Literal["raw", "normalized"] = "normalized"  # targets: as transcribed or normalize_text
    base: str | None = None  # for an adapter whose base has moved since: where it is now
    device: str = "auto"  # auto: cuda, mps, cpu in that order
    train: TrainConfig = TrainConfig()
    decode: DecodeConfig = DecodeConfig()
