"""A shorter encoder window for Whisper.

Whisper pads every clip to 30 s, though children's clips last seconds. Its encoder positions are
fixed sinusoids, so the first rows of the table serve a shorter input exactly as they stand
(row t belongs to time 0.02 t s).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from manifests.rows import Seconds

if TYPE_CHECKING:
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

POSITIONS_PER_SECOND = 50  # encoder output: 100 mel frames a second, halved by conv2's stride
SAMPLES_PER_POSITION = 320
FRAMES_PER_POSITION = 2


def shorten(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor, seconds: Seconds | None
) -> Seconds:
    """Give the model and its feature extractor a window of ``seconds`` (None: the whole table).

    Costs microseconds, since the positions in use are a view of the checkpoint's table, which
    is kept: call it for each batch, shorter or longer. The window is rounded up to 0.02 s and
    returned. ValueError when it exceeds the table. ``model`` is the bare Whisper: for an
    adapter, ``get_base_model()``.
    """
    import torch

    encoder = model.model.encoder
    table = _full_table(encoder)
    # Rounded first: 2.3 * 50 is 114.99999999999999, and 0.14 * 50 is 7.000000000000001.
    positions = len(table) if seconds is None else math.ceil(round(seconds * 50, 6))
    if not 1 <= positions <= len(table):
        raise ValueError(
            f"window is {seconds:g} s, must be > 0 and at most "
            f"{len(table) / POSITIONS_PER_SECOND:g} s, which the checkpoint has positions for"
        )
    if encoder.embed_positions.num_embeddings != positions:
        rows = torch.nn.Embedding(positions, table.shape[1], _weight=table[:positions])
        encoder.embed_positions = rows.requires_grad_(False)
    # One object in transformers 5, but nothing there promises it.
    for config in (model.config, model.model.config, encoder.config):
        config.max_source_positions = positions
    encoder.max_source_positions = positions
    extractor = processor.feature_extractor
    extractor.n_samples = positions * SAMPLES_PER_POSITION
    extractor.nb_max_frames = positions * FRAMES_PER_POSITION
    # Only whole seconds survive save_pretrained; our loader goes by max_source_positions.
    extractor.chunk_length = math.ceil(positions / POSITIONS_PER_SECOND)
    return positions / POSITIONS_PER_SECOND


def fit_each_batch(model: WhisperForConditionalGeneration) -> None:
    """Have the encoder take features of any even length up to its window, as training wants.

    Between two passes it is what it was: checkpoints hold the whole table.
    """
    import torch

    encoder: Any = model.model.encoder
    whole = encoder.embed_positions
    longest = model.config.max_source_positions

    def set_length(positions: int, rows: torch.nn.Embedding) -> None:
        encoder.embed_positions = rows
        encoder.config.max_source_positions = positions

    def cut(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        features = args[0] if args else kwargs["input_features"]
        positions = min(features.shape[-1] // FRAMES_PER_POSITION, longest)
        rows = torch.nn.Embedding(positions, whole.embedding_dim, _weight=whole.weight[:positions])
        set_length(positions, rows.requires_grad_(False))

    encoder.register_forward_pre_hook(cut, with_kwargs=True)
    encoder.register_forward_hook(lambda *_: set_length(longest, whole), always_call=True)


def window_of(model: WhisperForConditionalGeneration) -> Seconds:
    """Return the window that is set now."""
    return float(model.config.max_source_positions) / POSITIONS_PER_SECOND


def _full_table(encoder: Any) -> torch.Tensor:
    """Return the checkpoint's whole positional table, shape (positions, d_model).

    It is remembered as a plain attribute: a buffer or parameter would be saved with the model.
    """
    weight: torch.Tensor = encoder.embed_positions.weight.detach()
    table: torch.Tensor = encoder.__dict__.setdefault("full_positions", weight)
    if (table.device, table.dtype) != (weight.device, weight.dtype):  # moved by model.to()
        table = encoder.__dict__["full_positions"] = table.to(weight.device, weight.dtype)
    return table
