"""Cross-attention in which all hypotheses of an utterance share its keys and values.

Beam search in transformers copies an utterance's encoder output for every beam, projects each
copy, and reorders the projections at every step, though they are all the same: for short texts
that is most of the work. Here they are computed once per utterance and stay where they are; the
beams are further queries on them. The results are those of the standard attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import EncoderDecoderCache, WhisperForConditionalGeneration
    from transformers.models.whisper.modeling_whisper import WhisperDecoder

SHARED = "whisper_shared_cross"


def share_cross_attention(model: WhisperForConditionalGeneration) -> None:
    """Let ``model`` take several query rows, side by side, for each row of cross-attention keys."""
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(SHARED, _shared_attention)
    AttentionMaskInterface.register(SHARED, sdpa_mask)
    model.set_attn_implementation(SHARED)


class Encoded:
    """What the decoder asks of the encoded audio: the keys and values of its cross-attention."""

    def __init__(self, decoder: WhisperDecoder, encoded: torch.Tensor) -> None:
        """Project ``encoded``, shape (utterances, positions, d_model)."""
        self._layers = []
        for layer in decoder.layers:
            attention = layer.encoder_attn
            shape = (*encoded.shape[:2], attention.num_heads, attention.head_dim)
            keys = attention.k_proj(encoded).view(shape).transpose(1, 2).contiguous()
            values = attention.v_proj(encoded).view(shape).transpose(1, 2).contiguous()
            self._layers.append((keys, values))

    def cache(self) -> EncoderDecoderCache:
        """Return a fresh decoder cache on the shared projections.

        One for each pass: the decoder and the search change what they are given.
        """
        from transformers import DynamicCache, EncoderDecoderCache
        from transformers.cache_utils import DynamicLayer

        cross = DynamicCache()
        for keys, values in self._layers:
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values  # `update` would copy them
            cross.layers.append(layer)
        return EncoderDecoderCache(DynamicCache(), cross)


def _shared_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot product attention; query (utterances * n, heads, length, width)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, heads, length, width = query.shape
    utterances = key.shape[0]
    if rows == utterances:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output, None
    split = query.view(utterances, rows // utterances, heads, length, width)
    beside = split.transpose(1, 2).reshape(utterances, heads, -1, width)
    output, _ = sdpa_attention_forward(module, beside, key, value, None, **kwargs)
    return output.reshape(rows, length, heads, width), None
