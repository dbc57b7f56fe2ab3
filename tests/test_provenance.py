from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from rine_cache import provenance
from rine_cache.provenance import canonical_json, code_version, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VERSION = metadata.version("rine-cache")
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that the package lies in a folder of its own, where nothing is committed yet."""
    module = tmp_path / "checkout" / "rine_cache" / "provenance.py"
    module.parent.mkdir(parents=True)
    module.write_text("original\n")
    monkeypatch.setattr(provenance, "__file__", str(module))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set where the tests run from a git hook
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "checkout"


@pytest.fixture
def git(checkout: Path) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(checkout), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return run


@pytest.fixture
def committed(git: Callable[..., str]) -> str:
    """Commit the pretended package; return the commit's short name."""
    git("init", "--quiet")
    git("add", "-A")
    git("commit", "--quiet", "-m", "first")
    return git("rev-parse", "--short=12", "HEAD")


def uncached_code_version() -> str:
    return code_version.__wrapped__()


def test_canonical_json_sorts_keys_at_every_depth_and_leaves_no_space() -> None:
    assert canonical_json({"b": [1, 2.5, None, True], "a": {"d": "x", "c": 0}}) == (
        '{"a":{"c":0,"d":"x"},"b":[1,2.5,null,true]}'
    )


def test_canonical_json_is_ascii_whatever_the_text() -> None:
    assert canonical_json("caché") == r'"cach\u00e9"'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_canonical_json_refuses_what_json_cannot_say(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"xi": value})


def test_fingerprint_is_the_sha256_of_the_canonical_json() -> None:
    assert fingerprint({"b": 1, "a": 2}) == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()


def test_fingerprint_ignores_the_order_of_keys_but_not_of_items() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_fingerprint_tells_numbers_from_their_text() -> None:
    assert fingerprint({"seed": 0}) != fingerprint({"seed": "0"})


def test_fingerprint_has_not_changed_between_versions() -> None:
    """Every cache keeps one: a change of the serialisation would make all of them strangers."""
    key = {"tap": "ln_2", "view": {"kind": "center", "size": 224}, "batch_size": 16}
    assert fingerprint(key) == "8852605a5f8e3ed1a10be29458a8214cf0b2f56b2f8df33bacdfb50813beb0df"


@needs_git
def test_code_version_names_the_commit_of_a_clean_checkout(committed: str) -> None:
    assert uncached_code_version() == f"{VERSION}+g{committed}"


@needs_git
def test_code_version_says_dirty_when_a_tracked_file_differs(checkout: Path, committed: str) -> None:
    (checkout / "rine_cache" / "provenance.py").write_text("edited\n")
    assert uncached_code_version() == f"{VERSION}+g{committed}.dirty"


@needs_git
def test_code_version_does_not_call_results_beside_the_code_dirty(checkout: Path, committed: str) -> None:
    (checkout / "notes.txt").write_text("not tracked\n")
    assert uncached_code_version() == f"{VERSION}+g{committed}"


def test_code_version_outside_a_checkout_is_the_bare_version(checkout: Path) -> None:
    assert uncached_code_version() == VERSION


@needs_git
def test_code_version_without_a_commit_is_the_bare_version(git: Callable[..., str]) -> None:
    git("init", "--quiet")
    assert uncached_code_version() == VERSION


def test_code_version_without_git_is_the_bare_version(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert uncached_code_version() == VERSION


def test_code_version_of_this_package_has_the_documented_form() -> None:
    assert re.fullmatch(rf"{re.escape(VERSION)}(\+g[0-9a-f]{{12}}(\.dirty)?)?", code_version())
