"""Everything that can be set for NeMo's CTC and transducer models, with the reasons."""

from __future__ import annotations

from typing import Literal

from systems.config import Config
from systems.ctc_config import CtcConfig


class AdapterConfig(Config, frozen=True):
    """NeMo's LinearAdapter behind each encoder layer (Houlsby et al., 2019, arXiv 1902.00751)."""

    dim: int = 64
    activation: Literal["swish", "relu", "gelu"] = "swish"
    dropout: float = 0.0


class TrainConfig(Config, frozen=True):
    """Fine-tuning. ``freeze`` trains what follows the encoder, and the encoder's adapters never."""

    adapt: Literal["adapter", "freeze", "full"] = "adapter"
    adapter: AdapterConfig = AdapterConfig()
    # 0 keeps the checkpoint's tokens; else a new SentencePiece of so many is learned from train's
    # texts, and what follows the encoder begins at random.
    new_tokens: int = 0
    batch_seconds: float = 120.0  # audio per device and step, padding included
    max_batch: int = 64  # utterances
    accumulation: int = 1
    learning_rate: float = 1e-3  # adapters take ten times what full fine-tuning takes
    warmup: float = 0.1  # share of the steps
    schedule: Literal["linear", "cosine"] = "cosine"
    weight_decay: float = 1e-3
    max_grad_norm: float = 1.0
    max_steps: int = 4000
    eval_steps: int = 500  # also the checkpoint interval
    patience: int = 4  # evaluations without a better one; 0 = never stop early
    # What of dev's says which checkpoint is better; loss in pretraining, where WER is noise yet.
    choose_by: Literal["wer", "loss"] = "wer"
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where it exists
    spec_augment: bool = True  # as the checkpoint's config says
    age_balance: float = 0.0  # 0 = as the data are, 1 = every age bucket equally often
    num_workers: int = 2  # processes that read audio; 0 = none, best on a CPU
    cache_mb: int = 256  # audio kept in memory, all workers together
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    seed: int = 1
    max_eval_utterances: int = 0  # largest dev subset while training, seeded; 0 = all of dev


class DecodeConfig(CtcConfig, frozen=True):
    """CTC heads are decoded as `CtcConfig` says; transducers by NeMo's own search."""

    transducer_beams: int = 5  # of NeMo's malsd_batch
    transducer_max_symbols: int = 10  # per frame
    batch_seconds: float = 240.0  # audio per batch, filled after sorting by length
    max_batch: int = 64
    silence_dbfs: float = -55.0  # louder frames than this must exist, else the text is ""
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class NemoConfig(Config, frozen=True):
    """One NeMo recogniser."""

    # A hub id, a name (then of the hub's nvidia/), a `.nemo` file or a folder that holds one.
    pretrained: str = "nvidia/parakeet-ctc-0.6b"
    # What of a hybrid decodes; a model with one head has no choice.
    head: Literal["auto", "ctc", "transducer"] = "auto"
    # Longer audio is cut at quiet places: attention grows with its square (900 s took 15 GB).
    window: float = 30.0
    text: Literal["raw", "normalized"] = "normalized"  # targets: as transcribed or normalize_text
    base: str | None = None  # for an adapter whose base has moved since: where it is now
    device: str = "auto"  # auto: cuda, mps, cpu in that order
    train: TrainConfig = TrainConfig()
    decode: DecodeConfig = DecodeConfig()
