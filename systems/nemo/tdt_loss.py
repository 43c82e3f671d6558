"""The token-and-duration transducer's loss on any device (Xu et al., 2023, arXiv 2304.06795).

NeMo's `tdt` needs CUDA, its reference `TDTLossPytorch` calls `.cuda()` and visits every cell of
the lattice by itself. This one visits a frame at a time, all cells of it together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_IMPOSSIBLE = -1000.0  # as in NeMo's reference


class TdtLoss(torch.nn.Module):
    """Loss of each utterance, as `nemo.collections.asr.losses.rnnt_pytorch.TDTLossPytorch`.

    The logits' last ``len(durations)`` outputs are the durations', those before the tokens' with
    the blank. ``sigma`` is the paper's logit under-normalisation.
    """

    def __init__(self, blank: int, durations: Sequence[int], sigma: float = 0.0) -> None:
        super().__init__()
        self.blank = blank
        self.durations = list(durations)
        self.sigma = sigma
        self.reduction: str | None = "none"  # set by NeMo's RNNTLoss, which reduces by itself

    def forward(self, acts: Tensor, labels: Tensor, act_lens: Tensor, label_lens: Tensor) -> Tensor:
        """Return -ln P(labels), shape (B,).

        ``acts`` (B, T, U + 1, V + 1 + durations) are logits, ``labels`` (B, U).
        """
        outputs = len(self.durations)
        tokens = torch.log_softmax(acts[..., :-outputs].float(), -1) - self.sigma
        lasting = torch.log_softmax(acts[..., -outputs:].float(), -1)
        blank = tokens[..., self.blank]
        index = labels.long()[:, None, :, None].expand(-1, acts.shape[1], -1, 1)
        emit = tokens[:, :, :-1].gather(-1, index)[..., 0]
        alphas: list[Tensor] = []
        for frame in range(int(act_lens.max())):
            alphas.append(self._frame(frame, alphas, blank, emit, lasting))
        return -self._end(torch.stack(alphas, 1), blank, lasting, act_lens.long(), label_lens)

    def _frame(
        self, frame: int, alphas: list[Tensor], blank: Tensor, emit: Tensor, lasting: Tensor
    ) -> Tensor:
        """Return ln of the lattice's forward probability in one frame, shape (B, U + 1)."""
        batch, _, states = blank.shape
        impossible = blank.new_full((batch, states), _IMPOSSIBLE)
        terms = [impossible]
        stay: Tensor | None = None
        for n, duration in enumerate(self.durations):
            before = frame - duration
            if before < 0:
                continue
            if duration == 0:
                stay = emit[:, frame] + lasting[:, frame, :-1, n]
                continue
            terms.append(alphas[before] + blank[:, before] + lasting[:, before, :, n])
            moved = alphas[before][:, :-1] + emit[:, before] + lasting[:, before, :-1, n]
            terms.append(torch.cat((impossible[:, :1], moved), 1))
        entering = torch.logsumexp(torch.stack(terms), 0)
        if frame == 0:
            entering = torch.cat((torch.zeros_like(entering[:, :1]), impossible[:, 1:]), 1)
        if stay is None:
            return entering
        # Tokens of no duration lead from state to state of the same frame.
        states_of = [entering[:, 0]]
        for u in range(1, states):
            states_of.append(torch.logaddexp(entering[:, u], states_of[-1] + stay[:, u - 1]))
        return torch.stack(states_of, 1)

    def _end(
        self, alphas: Tensor, blank: Tensor, lasting: Tensor, act_lens: Tensor, label_lens: Tensor
    ) -> Tensor:
        """Return ln of the probability that a last blank leads to the utterance's end."""
        rows = torch.arange(len(act_lens), device=alphas.device)
        ends = [alphas.new_full((len(act_lens),), _IMPOSSIBLE)]
        for n, duration in enumerate(self.durations):
            if duration == 0:
                continue
            last = (act_lens - duration).clamp(min=0)
            at = (rows, last, label_lens.long())
            end = alphas[at] + blank[at] + lasting[..., n][at]
            ends.append(torch.where(act_lens >= duration, end, ends[0]))
        return torch.logsumexp(torch.stack(ends), 0)


def is_tdt(model: Any) -> bool:
    """Return whether a NeMo model's transducer also predicts durations."""
    return bool(getattr(getattr(model, "joint", None), "num_extra_outputs", 0))


def right_loss(model: Any) -> None:
    """Give a NeMo transducer the loss that its config names, on the device that it is on.

    `change_vocabulary` replaces a TDT's loss by a plain transducer's, whose blank is a duration;
    and NeMo's own TDT loss has no CPU.
    """
    from nemo.collections.asr.losses.rnnt import RNNTLoss
    from omegaconf import OmegaConf

    if not is_tdt(model):
        return
    settings = OmegaConf.to_container(model.cfg.loss.tdt_kwargs)
    assert isinstance(settings, dict)
    blank = model.joint.num_classes_with_blank - 1 - model.joint.num_extra_outputs
    model.loss = RNNTLoss(
        num_classes=blank,
        reduction=model.cfg.get("rnnt_reduction", "mean_batch"),
        loss_name="tdt",
        loss_kwargs=dict(settings),  # it takes some out
    )
    if next(model.parameters()).device.type != "cuda":
        model.loss._loss = TdtLoss(blank, settings["durations"], settings.get("sigma", 0.0))
    model.joint.set_loss(model.loss)
