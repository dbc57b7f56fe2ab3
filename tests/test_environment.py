"""environment.yml and pyproject.toml say the same, and the constraints stay within it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"torch": "pytorch", "opencv-python-headless": "opencv"}


def pip_requirements() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    named = {CONDA_NAMES.get(item.name, re.sub(r"[-_.]+", "-", item.name).lower()): item.specifier for item in listed}
    return {"python": project["requires-python"], **{name: str(bounds) for name, bounds in named.items()}}


def conda_requirements() -> dict[str, str]:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    # Those that conda's channels may not have are in a list of pip's own.
    flat = [text for item in listed for text in (item["pip"] if isinstance(item, dict) else [item])]
    parsed = [re.fullmatch(r"([a-z0-9-]+)(.*)", text) for text in flat]
    return {match[1]: match[2] for match in parsed if match}


def test_conda_and_pip_users_get_the_same_packages_and_bounds() -> None:
    def parts(bounds: str) -> set[str]:
        return set(bounds.split(","))

    ours, theirs = pip_requirements(), conda_requirements()
    assert {name: parts(bounds) for name, bounds in ours.items()} == {
        name: parts(bounds) for name, bounds in theirs.items()
    }


def test_every_dependency_has_a_lower_bound() -> None:
    assert all(">=" in bounds for bounds in pip_requirements().values())


def test_the_constraints_lie_within_the_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = {item.name: item.specifier for item in map(Requirement, project["dependencies"])}
    pins = [
        Requirement(line) for line in (ROOT / ".ci" / "constraints.txt").read_text().splitlines() if line[:1].isalpha()
    ]
    assert {pin.name for pin in pins} == {"torch", "torchvision"}
    for pin in pins:
        assert bounds[pin.name].contains(str(pin.specifier).removeprefix("=="))
