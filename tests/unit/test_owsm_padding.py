"""Convolutions over padding are computed once, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from systems.owsm.padding import SharedPadding, share_padding


def layers(depth: int) -> torch.nn.Sequential:
    torch.manual_seed(depth)
    found: list[torch.nn.Module] = []
    for at in range(depth):
        found += [torch.nn.Conv2d(4 if at else 1, 4, 3, 2), torch.nn.ReLU()]
    return torch.nn.Sequential(*found).eval()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_output_is_that_of_the_convolutions(depth: int) -> None:
    plain = layers(depth)
    shared = SharedPadding(*plain).eval()
    assert shared.state_dict().keys() == plain.state_dict().keys()
    for frames in (31, 40, 63, 101):
        clips = torch.full((6, 1, frames, 40), -23.0)
        for clip, heard in zip(clips, (0, 1, 17, frames // 2, frames - 1, frames), strict=True):
            clip[0, :heard] = torch.randn(heard, 40)
        torch.testing.assert_close(shared(clips), plain(clips), rtol=1e-5, atol=1e-6)


def test_frames_of_padding_are_not_convolved() -> None:
    shared = SharedPadding(*layers(3)).eval()
    sizes: list[int] = []
    shared[0].register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape[2]))
    clips = torch.zeros(2, 1, 1000, 40)
    clips[0, 0, :100] = 1.0
    shared(clips)
    assert sizes == [104 + 15, 15]


def test_training_is_left_alone_and_other_encoders_too() -> None:
    shared = SharedPadding(*layers(2)).train()
    sizes: list[int] = []
    shared[0].register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape[2]))
    shared(torch.zeros(3, 1, 200, 40))
    assert sizes == [200]

    encoder = torch.nn.Module()
    encoder.embed = torch.nn.Module()
    share_padding(encoder)
    padded = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2, padding=1), torch.nn.ReLU())
    encoder.embed.conv = padded
    share_padding(encoder)
    assert encoder.embed.conv is padded
