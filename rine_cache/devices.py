"""Where torch computes."""

from __future__ import annotations

import logging
import platform
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import platformdirs
import torch
from filelock import FileLock, Timeout

from rine_cache.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger(__name__)


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


def prefers_one_dnn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies fastest: float32 on x86, where torch would ask MKL.

    MKL reaches half of an AMD processor's speed; on an Intel processor the two are alike.
    """
    x86 = platform.machine().lower() in {"x86_64", "amd64"}
    has_one_dnn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return x86 and has_one_dnn and device.type == "cpu" and dtype == torch.float32


@contextmanager
def claim_device(device: str) -> Iterator[str]:
    """Resolve a device, and where any CUDA device will do, hold one that no other job of this user's holds.

    Jobs that run at once on a machine of several devices so take one each. If none is free, the first is shared, and
    a warning says so. ``cuda:N`` names its device: it is taken whoever holds it, and holds nothing. What is held is
    given back at the end, or when the process dies.

    Raises
    ------
    ConfigError
        If the device is not on this machine; names what is.
    """
    chosen = resolve_device(device)
    with ExitStack() as held:
        yield _hold_free(held) if chosen == "cuda" else chosen


def _hold_free(held: ExitStack) -> str:
    """Enter the lock of the first CUDA device that is free, and return its name."""
    count = torch.cuda.device_count()
    folder = platformdirs.user_runtime_path("rine-cache", ensure_exists=True)
    for index in range(count):
        try:
            held.enter_context(FileLock(folder / f"{_lasting_name(index)}.lock", timeout=0))
        except Timeout:
            continue
        return f"cuda:{index}"
    LOG.warning("all %d CUDA devices are held by other jobs; cuda:0 is shared, and both will be slower", count)
    return "cuda:0"


def _lasting_name(index: int) -> str:
    """Name a device the same in every process: which are visible, and so their numbers, may differ."""
    return f"cuda-{torch.cuda.get_device_properties(index).uuid}"
