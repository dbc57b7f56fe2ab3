"""Where torch computes."""

from __future__ import annotations

import torch

from rine_cache.errors import ConfigError


def resolve_device(device: str) -> str:
    """Turn ``auto`` into CUDA, else MPS, else the CPU, and refuse a device that is absent.

    Raises
    ------
    ConfigError
        If the device is not on this machine; names what is.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present = ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), *present]
    if device == "auto":
        return present[0]
    if device not in present:
        raise ConfigError(f"device {device!r} is not on this machine; allowed here: auto, {', '.join(present)}")
    return device
