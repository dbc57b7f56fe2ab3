from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rine_cache.threads import wait_without_spinning


@pytest.mark.parametrize("users", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_what_the_user_set_stands(monkeypatch: pytest.MonkeyPatch, users: dict[str, str]) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    wait_without_spinning()
    assert {name: os.environ[name] for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if name in os.environ} == users


def test_the_command_line_sets_it_before_torch_is_loaded() -> None:
    """GNU's OpenMP prints what it took from the environment when it is loaded."""
    program = (
        "import sys\nfrom rine_cache.cli.main import main\nsys.argv[1:] = ['train', '--help']\n"
        "try: main()\nfinally: import torch"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    shown = {"OMP_DISPLAY_ENV": "VERBOSE"}
    done = subprocess.run([sys.executable, "-c", program], env=kept | shown, capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this torch does not compute by GNU's OpenMP")
    assert "GOMP_SPINCOUNT = '1000'" in done.stderr
