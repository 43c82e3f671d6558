"""Log-mel features of a batch, equal to WhisperFeatureExtractor's, on the model's device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from manifests.audio import Samples

if TYPE_CHECKING:
    import torch
    from transformers import WhisperFeatureExtractor

_MEL_FLOOR = 1e-10
_DYNAMIC_RANGE = 8.0  # log10: 80 dB below the utterance's loudest bin


def log_mel(
    batch: Sequence[Samples], extractor: WhisperFeatureExtractor, device: torch.device
) -> torch.Tensor:
    """Return float32 features, shape (len(batch), mels, frames), padded to the extractor's window.

    The padding is silence in the audio, as in training. ValueError for audio beyond the window,
    which the extractor itself would cut off without a word.
    """
    import torch

    size = extractor.n_samples
    padded = np.zeros((len(batch), size), np.float32)
    for row, samples in zip(padded, batch, strict=True):
        if len(samples) > size:
            raise ValueError(f"audio has {len(samples)} samples, must have at most {size}")
        row[: len(samples)] = samples
    audio = torch.from_numpy(padded).to(device)
    window = torch.hann_window(extractor.n_fft, device=device)
    spectrum = torch.stft(
        audio, extractor.n_fft, extractor.hop_length, window=window, return_complex=True
    )[..., :-1]
    power = (spectrum.real.square() + spectrum.imag.square()).contiguous()
    filters = torch.from_numpy(extractor.mel_filters).to(device, torch.float32)
    mel = torch.clamp(filters.T @ power, min=_MEL_FLOOR).log10()
    floor = mel.amax(dim=(1, 2), keepdim=True) - _DYNAMIC_RANGE
    return (torch.maximum(mel, floor) + 4.0) / 4.0
