"""The index of a folder of heads: which of the files there count, and what each must hold.

Heads outlive the run that trained them, so that no run trains one again: those of a method that an experiment no longer
names lie beside those that it does. The index, written once all of these are there, is what readers go by.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from pydantic import Field

from rine_cache.files import written_whole
from rine_cache.specs.base import Spec, parse, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

INDEX = "heads.json"
SUFFIX = ".safetensors"


class HeadIndex(Spec):
    """What an index says.

    Attributes
    ----------
    heads
        The sha256 of each head's file, by its path from the index's folder.
    """

    heads: dict[str, str] = Field(min_length=1)


def head_path(folder: Path, method: str, seed: int) -> Path:
    """Return where a folder of heads holds one."""
    return folder / method / f"seed{seed}{SUFFIX}"


def write_index(folder: Path, heads: Iterable[tuple[str, int]]) -> None:
    """Write down which heads of a folder count, by method and seed; all are there.

    Raises
    ------
    OutputError
        If the disk refuses.
    """
    paths = [head_path(folder, *head) for head in heads]
    found = {path.relative_to(folder).as_posix(): digest(path) for path in paths}
    with written_whole(folder / INDEX) as temporary:
        temporary.write_text(json.dumps({"heads": found}, indent=1) + "\n", encoding="utf-8")


def heads_below(folder: Path) -> dict[Path, str]:
    """Find the heads below a folder that count, in order, and what each one's sha256 must be, if an index says.

    Where there is an index, those that it names count; elsewhere all do.

    Raises
    ------
    ConfigError
        If an index is not what `write_index` writes.
    """
    found = dict.fromkeys(folder.rglob(f"*{SUFFIX}"), "")
    for path in sorted(folder.rglob(INDEX)):
        named = parse(HeadIndex, read_yaml(path), str(path)).heads
        for other in path.parent.rglob(f"*{SUFFIX}"):
            found.pop(other, None)
        found |= {path.parent / name: expected for name, expected in named.items()}
    return dict(sorted(found.items()))


def digest(path: Path) -> str:
    """Return the sha256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
