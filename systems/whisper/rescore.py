"""Teacher forcing: what Whisper thinks of given texts, in one pass of its decoder over all.

Gives every hypothesis, whoever wrote it, the log-probability of each token and the time at which
each token is said (cross-attention of the alignment heads, warped as in openai/whisper).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from systems.align import Floats, dtw_starts
from systems.whisper.search import decoder_states

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import EncoderDecoderCache, WhisperForConditionalGeneration

_LOGITS_AT_ONCE = 1 << 25  # 128 MB in float32
_MEDIAN_WIDTH = 7  # frames, as published


@dataclass(frozen=True)
class Forced:
    """A token sequence as teacher forcing sees it."""

    log_probs: npt.NDArray[np.float32]  # (tokens + 1,): of each token, then of the end of text
    starts: npt.NDArray[np.intp] | None  # (tokens + 1,): encoder position where each begins

    @property
    def score(self) -> float:
        """ln P(text, end of text | audio, prompt)."""
        return float(self.log_probs.sum(dtype=np.float64))


def force(
    model: WhisperForConditionalGeneration,
    cache: EncoderDecoderCache,
    prompts: Tensor,
    texts: Sequence[Sequence[Sequence[int]]],
    positions: Sequence[int] | None,
) -> list[list[Forced]]:
    """Return, for each utterance of ``cache``, what its token sequences get.

    ``prompts`` is (utterances, prompt length); ``positions`` says how many encoder positions of
    each utterance hold audio (None: no times are wanted). ``cache`` must be fresh.
    """
    import torch

    eos = model.generation_config.eos_token_id
    most = max(len(of_one) for of_one in texts)
    prompt_length = prompts.shape[1]
    # Every utterance needs as many rows; the surplus repeat the end of text and are dropped.
    rows = [list(text) for of_one in texts for text in [*of_one, *[()] * (most - len(of_one))]]
    longest = max(map(len, rows))
    targets = torch.tensor([row + [eos] * (longest + 1 - len(row)) for row in rows])
    targets = targets.to(prompts.device)
    inputs = torch.cat((prompts.repeat_interleave(most, dim=0), targets[:, :-1]), dim=1)
    heads = alignment_heads(model) if positions is not None else []
    with _queries(model, {layer for layer, _ in heads}) as queries:
        hidden = decoder_states(model, inputs, cache)[:, prompt_length - 1 :]
    lengths = [len(row) + 1 for row in rows]
    log_probs = _log_probs(model, hidden, targets, lengths)
    starts: list[Any] = [None] * len(rows)
    if positions is not None:
        costs: list[Floats] = []
        for index, frames in enumerate(positions):
            own = slice(index * most, (index + 1) * most)
            weights = _attention(model, cache, queries, heads, index, own, frames)
            ends = [prompt_length - 1 + length for length in lengths[own]]
            costs += [cost[prompt_length - 1 :] for cost in _costs(weights, ends)]
        starts = list(dtw_starts(costs))
    forced = [Forced(*pair) for pair in zip(log_probs, starts, strict=True)]
    return [forced[i * most : i * most + len(of_one)] for i, of_one in enumerate(texts)]


def alignment_heads(model: WhisperForConditionalGeneration) -> list[tuple[int, int]]:
    """Return the (layer, head) pairs that align: the checkpoint's, else the upper half's."""
    listed = getattr(model.generation_config, "alignment_heads", None)
    if listed:
        return [(layer, head) for layer, head in listed]
    layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
    return [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]


def _log_probs(
    model: WhisperForConditionalGeneration, hidden: Tensor, targets: Tensor, lengths: Sequence[int]
) -> list[npt.NDArray[np.float32]]:
    """Return the ln probability of each row's first ``lengths[row]`` targets."""
    import torch

    wanted = torch.arange(targets.shape[1]) < torch.tensor(lengths)[:, None]
    wanted = wanted.to(hidden.device)
    states, ids = hidden[wanted], targets[wanted]
    size = max(1, _LOGITS_AT_ONCE // model.config.vocab_size)
    found = []
    for first in range(0, len(ids), size):
        logits = model.proj_out(states[first : first + size]).float()
        chosen = logits.gather(1, ids[first : first + size, None])[:, 0]
        found.append(chosen - logits.logsumexp(dim=-1))
    flat = torch.cat(found).cpu().numpy()
    return np.split(flat, np.cumsum(lengths)[:-1])


@contextmanager
def _queries(
    model: WhisperForConditionalGeneration, layers: set[int]
) -> Iterator[dict[int, Tensor]]:
    """Collect the cross-attention queries of some layers, (rows, heads, length, width), by layer.

    The fused attention kernels do not tell their weights, and the eager one would tell those of
    every layer and head; from the queries only the wanted weights are computed.
    """
    found: dict[int, Tensor] = {}
    handles = []
    for index in layers:
        attention = model.model.decoder.layers[index].encoder_attn

        def keep(
            module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], index: int = index
        ) -> None:
            states = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            query = module.q_proj(states) * module.scaling
            shape = (*states.shape[:-1], module.num_heads, module.head_dim)
            found[index] = query.view(shape).transpose(1, 2)

        handles.append(attention.register_forward_pre_hook(keep, with_kwargs=True))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _attention(
    model: WhisperForConditionalGeneration,
    cache: EncoderDecoderCache,
    queries: dict[int, Tensor],
    heads: Sequence[tuple[int, int]],
    index: int,
    rows: slice,
    frames: int,
) -> Tensor:
    """Return one utterance's attention to its audio, shape (texts, heads, length, frames)."""
    import torch

    weights = []
    for layer, query in queries.items():
        own = [head for of_layer, head in heads if of_layer == layer]
        keys = cache.cross_attention_cache.layers[layer].keys[index, own, :frames]
        weights.append((query[rows][:, own] @ keys.transpose(1, 2)).float().softmax(dim=-1))
    return torch.cat(weights, dim=1)


def _costs(weights: Tensor, ends: Sequence[int]) -> list[Floats]:
    """Return (length, frames) costs of each text: weights sharpened, smoothed and averaged.

    ``ends`` says how many rows of each text count (prompt included).
    """
    import torch

    counts = torch.tensor(ends, device=weights.device)
    inside = torch.arange(weights.shape[2], device=weights.device) < counts[:, None]
    inside = inside[:, None, :, None].to(weights.dtype)
    count = counts.view(-1, 1, 1, 1)
    mean = (weights * inside).sum(2, keepdim=True) / count
    deviation = (weights - mean) * inside
    variance = deviation.square().sum(2, keepdim=True) / count
    sharpened = deviation / variance.sqrt().clamp_min(1e-8)
    smooth = median_filter(sharpened).mean(dim=1)
    return [-matrix[:end] for matrix, end in zip(smooth.cpu().numpy(), ends, strict=True)]


def median_filter(values: Tensor) -> Tensor:
    """Return the median of the 7 values around each along the last axis, mirrored at its ends.

    By a network of 13 exchanges (Devillard, 1998) in place of a sort: ten times as fast.
    """
    import torch

    half = _MEDIAN_WIDTH // 2
    if values.shape[-1] <= half:
        return values
    padded = torch.nn.functional.pad(
        values.flatten(0, -2)[None], (half, half), mode="reflect"
    ).view(*values.shape[:-1], -1)
    size = values.shape[-1]
    p = [padded[..., shift : shift + size] for shift in range(_MEDIAN_WIDTH)]
    for low, high in _EXCHANGES:
        p[low], p[high] = torch.minimum(p[low], p[high]), torch.maximum(p[low], p[high])
    return p[3]


_EXCHANGES = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6),
    (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4),
)  # fmt: skip
