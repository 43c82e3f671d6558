"""Where to compute and how precisely, decided in one place for every system."""

from __future__ import annotations

from typing import Literal

Device = Literal["cuda", "mps", "cpu"]
Precision = Literal["fp32", "bf16", "fp16"]


def pick_device(wanted: str = "auto") -> Device:
    """Return the device to use: ``auto`` takes CUDA, then MPS, then the CPU.

    ValueError when ``wanted`` is not there. Which CUDA card is a matter of
    CUDA_VISIBLE_DEVICES and of torchrun.
    """
    import torch

    present: dict[Device, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    for device, is_present in present.items():
        if is_present and wanted in ("auto", device):
            return device
    if wanted in present:
        raise ValueError(f"device is {wanted!r}, which this machine or this torch does not have")
    raise ValueError(f"device is {wanted!r}, must be one of: auto, {', '.join(present)}")


def pick_precision(wanted: str, device: Device) -> Precision:
    """Return the arithmetic for ``device``: ``auto`` is bf16 on CUDA from Ampere on, fp16 on
    older cards and fp32 elsewhere.

    ValueError for fp16 on a CPU, where it is slower than fp32 and overflows.
    """
    import torch

    if wanted == "auto":
        if device != "cuda":
            return "fp32"
        # including_emulation is True by default and would claim bf16 for Volta and Turing.
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if wanted == "fp16" and device == "cpu":
        raise ValueError("precision is 'fp16', must be fp32 or bf16 on a CPU")
    for precision in ("fp32", "bf16", "fp16"):
        if wanted == precision:
            return precision
    raise ValueError(f"precision is {wanted!r}, must be one of: auto, fp32, bf16, fp16")


def peak_memory(device: Device) -> int:
    """Return the most memory in bytes that this process has held, on the card if there is one."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
