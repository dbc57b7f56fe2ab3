from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import platformdirs
import pytest
import torch

from rine_cache.devices import claim_device, resolve_device
from rine_cache.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make the machine one of two CUDA devices, as far as choosing one goes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"uuid-{index}"))
    monkeypatch.setattr(platformdirs, "user_runtime_path", lambda *_, **__: tmp_path)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_cuda_then_mps_then_the_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device("auto") == expected
    assert resolve_device("cpu") == "cpu"


def test_a_device_that_is_absent_is_refused_naming_those_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda:0") == "cuda:0"
    with pytest.raises(ConfigError, match=r"'cuda:1' is not on this machine; allowed here: auto, cuda, cuda:0"):
        resolve_device("cuda:1")


@pytest.mark.usefixtures("two_devices")
def test_jobs_at_once_take_a_device_each_and_share_the_first_with_a_warning_when_none_is_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with claim_device("auto") as first, claim_device("cuda") as second:
        assert (first, second) == ("cuda:0", "cuda:1")
        assert not caplog.messages
        with claim_device("auto") as third:
            assert third == "cuda:0"
        assert caplog.messages == [
            "all 2 CUDA devices are held by other jobs; cuda:0 is shared, and both will be slower"
        ]
    with claim_device("auto") as again:
        assert again == "cuda:0"


@pytest.mark.usefixtures("two_devices")
def test_a_device_that_is_named_is_taken_and_holds_nothing() -> None:
    with claim_device("cuda:0") as named, claim_device("cuda:0") as twice, claim_device("cpu") as cpu:
        assert (named, twice, cpu) == ("cuda:0", "cuda:0", "cpu")
        with claim_device("auto") as free:
            assert free == "cuda:0"


@pytest.mark.usefixtures("two_devices")
def test_a_device_is_known_by_its_uuid_not_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with claim_device("auto"):  # uuid-0
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"uuid-{1 - index}")
        )
        with claim_device("auto") as other:
            assert other == "cuda:0"  # uuid-1


@pytest.mark.usefixtures("two_devices")
def test_a_process_that_dies_holding_a_device_gives_it_back(tmp_path: Path) -> None:
    hold = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); input()"
    path = str(tmp_path / "cuda-uuid-0.lock")
    with subprocess.Popen([sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with claim_device("auto") as while_alive:
            assert while_alive == "cuda:1"
        other.kill()
        other.wait()
    with claim_device("auto") as after:
        assert after == "cuda:0"
