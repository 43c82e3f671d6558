"""Which tokens may be said: text, not marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from systems.owsm.checkpoint import Owsm, is_special

if TYPE_CHECKING:
    from torch import Tensor


def text_mask(owsm: Owsm) -> Tensor:
    """Return what is added to log-probabilities, (vocabulary,): -inf for marks and <unk>.

    Blank (CTC) and the end (decoder) may be said.
    """
    import torch

    allowed = {"<blank>", "<eos>"}
    mask = torch.zeros(len(owsm.tokens))
    for index, token in enumerate(owsm.tokens):
        if is_special(token) and token not in allowed:
            mask[index] = -torch.inf
    return mask
