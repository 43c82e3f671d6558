"""ESPnet's transformer decoder, one token at a time, without doing anything twice.

ESPnet projects the whole encoder output to keys and values again for every hypothesis at every
step, and all tokens so far again for its self-attention: most of the work of its beam search.
Here the encoder's projections are computed once per utterance and shared by its hypotheses, and
each hypothesis keeps its own keys and values. The log-probabilities are ESPnet's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float32]
_LOGITS_AT_ONCE = 1 << 25  # 128 MB in float32


class CachedDecoder:
    """The decoder on the encoded audio of some utterances, each with as many hypotheses.

    Rows are utterances x hypotheses, an utterance's hypotheses side by side. A state is
    (layers, 2, rows, tokens, width): the keys and values of what was said so far.
    """

    def __init__(self, decoder: Any, encoded: Tensor) -> None:
        """Project ``encoded``, shape (utterances, frames, width)."""
        self._decoder = decoder
        check_decoder(decoder)
        self._cross = []
        for layer in decoder.decoders:
            attention = layer.src_attn
            keys = attention.k_norm(_heads(attention, attention.linear_k(encoded)))
            self._cross.append((keys, _heads(attention, attention.linear_v(encoded))))

    def start(self, primers: Tensor) -> tuple[Tensor, Tensor]:
        """Return ln P(next token), (rows, vocabulary), and the state after ``primers``."""
        return self._forward(primers, 0, None)

    def step(self, last: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return ln P(next token), (rows, vocabulary), and the state after ``last``, (rows,)."""
        return self._forward(last[:, None], state.shape[3], state)

    def score(self, primers: Tensor, texts: Tensor, lengths: Sequence[int]) -> list[Floats]:
        """Return ln P of each row's first ``lengths[row]`` tokens of ``texts``, given the primer.

        ``primers`` is (rows, primer length), ``texts`` (rows, tokens): teacher forcing.
        """
        import torch

        primed = primers.shape[1]
        hidden, _ = self._hidden(torch.cat((primers, texts[:, :-1]), dim=1), 0, None)
        inside = torch.arange(texts.shape[1]) < torch.tensor(lengths)[:, None]
        inside = inside.to(texts.device)
        states, wanted = hidden[:, primed - 1 :][inside], texts[inside]
        layer = self._decoder.output_layer
        size = max(1, _LOGITS_AT_ONCE // layer.out_features)
        found = []
        for first in range(0, len(wanted), size):
            logits = layer(states[first : first + size]).float()
            chosen = logits.gather(1, wanted[first : first + size, None])[:, 0]
            found.append(chosen - logits.logsumexp(dim=-1))
        flat = torch.cat(found).cpu().numpy()
        return np.split(flat, np.cumsum(lengths)[:-1])

    def _forward(self, tokens: Tensor, said: int, state: Tensor | None) -> tuple[Tensor, Tensor]:
        import torch

        hidden, state = self._hidden(tokens, said, state)
        logits = self._decoder.output_layer(hidden[:, -1]).float()
        return torch.log_softmax(logits, dim=-1), state

    def _hidden(self, tokens: Tensor, said: int, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the last layer's output for ``tokens``, (rows, length, width), and the state."""
        import torch

        decoder = self._decoder
        x = self._embed(tokens, said)
        states = []
        for index, layer in enumerate(decoder.decoders):
            before = None if state is None else state[index]
            attended, after = _self_attention(layer.self_attn, layer.norm1(x), before)
            states.append(after)
            x = x + attended
            x = x + _cross_attention(layer.src_attn, layer.norm2(x), *self._cross[index])
            x = x + layer.feed_forward(layer.norm3(x))
        return decoder.after_norm(x), torch.stack(states)

    def _embed(self, tokens: Tensor, said: int) -> Tensor:
        """Return the embedded tokens at positions ``said`` and after, (rows, length, width)."""
        embedding, positions = self._decoder.embed
        embedded = embedding(tokens)
        end = said + tokens.shape[1]
        positions.extend_pe(embedded.new_zeros(1, end, 1))
        # PositionalEncoding in eval mode, for tokens that do not begin at position 0.
        table = positions.pe[:, said:end].to(embedded.dtype)
        scaled: Tensor = embedded * positions.xscale + table
        return scaled


def check_decoder(decoder: Any) -> None:
    """Raise ValueError unless ``decoder`` is of the kind that every OWSM has."""
    from espnet.nets.pytorch_backend.transformer.embedding import PositionalEncoding
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder

    plain = (
        type(decoder) is TransformerDecoder
        and decoder.normalize_before
        and len(decoder.embed) == 2
        and type(decoder.embed[1]) is PositionalEncoding
        and all(not layer.concat_after for layer in decoder.decoders)
    )
    if not plain:
        raise ValueError(
            f"decoder is a {type(decoder).__name__} with unusual settings, must be a "
            "TransformerDecoder with normalize_before and without concat_after"
        )


def _heads(attention: Any, projected: Tensor) -> Tensor:
    """Return (rows, length, width) as (rows, heads, length, width of a head)."""
    rows, length, _ = projected.shape
    return projected.view(rows, length, attention.h, attention.d_k).transpose(1, 2)


def _self_attention(attention: Any, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the attention's output and the keys and values, (2, rows, tokens, width)."""
    import torch

    new = torch.stack((attention.linear_k(x), attention.linear_v(x)))
    kept = new if before is None else torch.cat((before, new), dim=2)
    output = torch.nn.functional.scaled_dot_product_attention(
        attention.q_norm(_heads(attention, attention.linear_q(x))),
        attention.k_norm(_heads(attention, kept[0])),
        _heads(attention, kept[1]),
        is_causal=before is None,  # later there is one token, which may see all
    )
    return _merged(attention, output), kept


def _cross_attention(attention: Any, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Let all hypotheses of an utterance attend as further queries to its one set of keys."""
    import torch

    utterances = keys.shape[0]
    rows, length, width = x.shape
    beside = x.reshape(utterances, rows // utterances * length, width)
    output = torch.nn.functional.scaled_dot_product_attention(
        attention.q_norm(_heads(attention, attention.linear_q(beside))), keys, values
    )
    return _merged(attention, output).view(rows, length, width)


def _merged(attention: Any, output: Tensor) -> Tensor:
    projected: Tensor = attention.linear_out(output.transpose(1, 2).flatten(2))
    return projected


def greedy(cached: CachedDecoder, primers: Tensor, eos: int, limit: int, banned: Tensor) -> Tensor:
    """Return the likeliest next tokens, (rows, tokens), after an end nothing but ends.

    ``banned`` is added to the log-probabilities: -inf for what is never said.
    """
    import torch

    log_probs, state = cached.start(primers)
    said = []
    done = torch.zeros(len(primers), dtype=torch.bool, device=primers.device)
    for _ in range(limit):
        token = (log_probs + banned).argmax(dim=-1).masked_fill(done, eos)
        said.append(token)
        done |= token == eos
        if bool(done.all()):
            break
        log_probs, state = cached.step(token, state)
    return torch.stack(said, dim=1)
