"""A CTC loss on Whisper's encoder while it is pretrained; its head is thrown away.

An encoder-decoder with random weights learns to write sentences long before it learns to
listen: on a few hours of speech it never does. CTC makes the encoder's frames say what is heard
where, which is what cross-attention then has to find (Watanabe et al., 2017, "Hybrid
CTC/Attention Architecture for End-to-End Speech Recognition", IEEE JSTSP 11(8)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import ctc_loss, log_softmax

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

_NAME = "ctc_head"
FRAMES_PER_POSITION = 2  # mel frames that one position of the encoder hears


def add_head(model: WhisperForConditionalGeneration, weight: float) -> None:
    """Have the model's loss in training be ``1 - weight`` of its own and ``weight`` of CTC's.

    Both are per label. A forward hook rather than the trainer computes it, so that distributed
    training sees the head's gradients too.
    """
    if not 0 < weight < 1:
        raise ValueError(f"ctc_weight is {weight:g}, must be > 0 and < 1")
    blank: int = model.generation_config.eos_token_id  # all ids below it are text
    head = torch.nn.Linear(model.config.d_model, blank + 1)
    model.add_module(_NAME, head)

    def mix(module: Any, args: Any, batch: dict[str, Any], output: Any) -> None:
        if not module.training or batch.get("labels") is None:
            return
        heard = head(output.encoder_last_hidden_state)
        value = loss_of(heard, batch["labels"], batch["attention_mask"], blank)
        output["loss"] = (1 - weight) * output["loss"] + weight * value

    head.hook = model.register_forward_hook(mix, with_kwargs=True)


def remove_head(model: WhisperForConditionalGeneration) -> None:
    """Leave the published layout."""
    head: Any = getattr(model, _NAME, None)
    if head is not None:
        head.hook.remove()
        delattr(model, _NAME)


def loss_of(
    heard: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor, blank: int
) -> torch.Tensor:
    """Return CTC's loss per label.

    ``heard`` are logits, shape (B, positions, blank + 1); ``labels`` the decoder's targets,
    shape (B, L), of which CTC writes those that are text; ``attention_mask`` marks the mel
    frames that hold audio, shape (B, frames).
    """
    positions = (attention_mask.sum(1) + FRAMES_PER_POSITION - 1) // FRAMES_PER_POSITION
    text = (labels >= 0) & (labels < blank)
    value = ctc_loss(
        log_softmax(heard.float(), dim=-1).transpose(0, 1),
        labels[text],
        positions.clamp(max=heard.shape[1]),
        text.sum(1),
        blank=blank,
        reduction="sum",
        zero_infinity=True,  # more tokens than positions: nothing to learn
    )
    return value / (labels >= 0).sum()
