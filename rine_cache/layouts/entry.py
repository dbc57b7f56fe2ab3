"""The contract between layouts and manifests: what a layout finds, and what a whole copy of its data set holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REAL, FAKE = 0, 1
LABEL_NAMES = ("real", "fake")  # by label


class Entry(NamedTuple):
    """One image.

    Attributes
    ----------
    image_id
        What names it within its data set. Of an image that is a file of its own, the path below the data set's root,
        with forward slashes.
    label
        0 real, 1 fake.
    subset
        A generator, or a source of real images.
    split
        train, val or test, where the layout names one.
    group
        What it shares its content with, if known.
    size
        Bytes of the image, or of the file that holds it where the listing cannot tell (a Parquet file's rows).
    variant
        Which kind of its subset, where the layout names one: OpenSDID's ``partial`` and ``global`` edits.
    container, position
        The file below the root that holds it, and its byte offset there (tar) or row number (Parquet); null for an
        image that is a file of its own.
    """

    image_id: str
    label: int
    subset: str
    split: str | None
    group: str | None
    size: int
    variant: str | None = None
    container: str | None = None
    position: int | None = None


class Stray(NamedTuple):
    """An image, or a line of a list, that the layout cannot place: left out, counted and shown.

    `path` is its path below the root, `reason` a few words that many strays share; `subset` and `split` what it would
    be of, null where that is not known.
    """

    path: str
    reason: str
    subset: str | None = None
    split: str | None = None


class Gap(NamedTuple):
    """A file that is not there, though the names of its neighbours tell of it (``-00001-of-00007``), or not whole.

    `path` is its path below the root; `subset` and `split` what its images would be of, null where no name says it.
    """

    path: str
    subset: str | None
    split: str | None


class Part(NamedTuple):
    """Images that a whole copy of the data set holds: one class of one subset, in one split or in any."""

    label: int
    subset: str
    split: str | None = None


@dataclass(frozen=True)
class Layout:
    """How one kind of data set lies on disk.

    Attributes
    ----------
    about
        One line for people: what it reads.
    find
        Yields, for a root, every image as an `Entry`, a `Stray` for each that has no place, and a `Gap` for each
        file that is known to be lost, in any order.
    parts
        What a whole copy holds; empty where that is not known beforehand.
    subsets_at
        Names the subsets that a root seems to hold, from its folders' or files' names alone and within milliseconds,
        whatever the number of images; none where the names do not tell.
    suffixes
        Of the files that it reads images out of, in lower case; none where images are files of their own.
    """

    about: str
    find: Callable[[Path], Iterator[Entry | Stray | Gap]]
    parts: tuple[Part, ...] = ()
    subsets_at: Callable[[Path], set[str]] | None = None
    suffixes: frozenset[str] = frozenset()
