"""The encoder's first convolutions, computed once for all the padding of a clip.

Every clip is padded to the model's window, as in training. In ESPnet the convolutions that take
frames of 10 ms to frames of 80 ms cost most of the encoder's time, and where nothing but padding
is heard they give one and the same frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


class SharedPadding(torch.nn.Sequential):
    """Convolutions over (clips, 1, frames, features) that give what they give without this.

    Neither the names of the weights nor what is computed in training change.
    """

    def __init__(self, *layers: torch.nn.Module) -> None:
        super().__init__(*layers)
        self.span = self.stride = 1  # frames that an output frame hears, and how far they lie apart
        for layer in layers:
            if isinstance(layer, torch.nn.Conv2d):
                self.span += (layer.kernel_size[0] - 1) * self.stride
                self.stride *= layer.stride[0]

    def forward(self, clips: Tensor) -> Tensor:
        if self.training:
            return self._all(clips)
        differs = (clips[:, :, :-1] != clips[:, :, -1:]).any(dim=-1).any(dim=1)
        places = torch.arange(1, clips.shape[2], device=clips.device)
        heard = (differs * places).amax(dim=1).tolist()
        found = [
            self._convolved(clip[None], count) for clip, count in zip(clips, heard, strict=True)
        ]
        return torch.cat(found)

    def _convolved(self, clip: Tensor, heard: int) -> Tensor:
        """Return the output for a clip whose frames from ``heard`` on are all the same."""
        total = (clip.shape[2] - self.span) // self.stride + 1
        silent = -(-heard // self.stride)  # the first output frame that hears none but those
        part = self._all(clip[:, :, : silent * self.stride + self.span])
        missing = total - part.shape[2]
        tail = part[:, :, -1:].expand(-1, -1, missing, -1)
        return torch.cat((part, tail), dim=2)

    def _all(self, clips: Tensor) -> Tensor:
        for layer in self:
            clips = layer(clips)
        return clips


def share_padding(encoder: Any) -> None:
    """Make the encoder's convolutions `SharedPadding`, if they are of the kind that OWSM has."""
    layers = getattr(encoder.embed, "conv", None)
    if type(layers) is torch.nn.Sequential and all(map(_is_plain, layers)):
        shared = SharedPadding(*layers).train(layers.training)
        if next(layers.parameters()).device.type == "cpu":
            for weight in shared.parameters():  # a third faster than contiguous
                if weight.dim() == 4:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        encoder.embed.conv = shared


def _is_plain(layer: torch.nn.Module) -> bool:
    """Tell whether a layer gives the same for the same frames, wherever they stand."""
    if isinstance(layer, torch.nn.Conv2d):
        return layer.padding[0] == 0 and layer.dilation[0] == 1
    return isinstance(layer, torch.nn.ReLU)
