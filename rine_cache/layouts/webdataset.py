"""Tar shards: members that share a name up to its first dot make one sample, as webdataset has it.

A sample's label stands in its ``.cls`` (0, 1, real, fake), in its ``.json`` (see `rine_cache.layouts.columns`), or is
named by a label folder, of the shard or within it, as in the layout ``folder``. Its images are the members with an
image's suffix and the fewest dots: ``a.jpg`` and ``a.png`` are two images, beside which ``a.mask.png`` has no place.
"""

from __future__ import annotations

import json
import re
import tarfile
from itertools import groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from rine_cache.errors import LayoutError
from rine_cache.layouts.columns import Traits, columns_of, read_label, read_traits
from rine_cache.layouts.entry import Entry, Gap, Layout, Stray
from rine_cache.layouts.folder import LABELS, split_of_folders, subset_of
from rine_cache.layouts.shards import lost_shards, split_of
from rine_cache.layouts.walk import IMAGE_SUFFIXES, files_below, is_litter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SUFFIXES = frozenset({".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst"})
_COMPRESSED = re.compile(r".+\.(tgz|tbz2|txz|tar\.(gz|bz2|xz|zst))", re.IGNORECASE)
_LABELLING = ("cls", "json")
_NO_TRAITS = Traits(None, None, None, None, None)


class _Member(NamedTuple):
    """A member of a tar: `content` of labels only, `position` null of a link."""

    name: str
    position: int | None
    size: int
    content: bytes

    @property
    def key(self) -> str:
        folder, _, name = self.name.rpartition("/")
        return f"{folder}/{name.partition('.')[0]}"

    @property
    def suffix(self) -> str:
        """What follows the first dot, in lower case."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()

    @property
    def is_image(self) -> bool:
        return PurePosixPath(self.name).suffix.lower() in IMAGE_SUFFIXES


def find(root: Path) -> Iterator[Entry | Stray | Gap]:
    """Yield every image of every tar below `root`.

    Raises
    ------
    LayoutError
        If a tar is compressed or not whole, or a sample's labels are unknown or contradict each other.
    """
    found = sorted(path for path, _ in files_below(root, _SUFFIXES))
    if compressed := next((path for path in found if _COMPRESSED.fullmatch(path)), None):
        raise LayoutError(
            f"{root / compressed} is compressed, so that its images cannot be read by themselves; decompress it to a "
            ".tar (gunzip, bunzip2, unxz, unzstd) and keep only that"
        )
    shards = [path for path in found if path.lower().endswith(".tar")]
    for path in shards:
        for _, sample in groupby(_members(root / path), key=lambda member: member.key):
            yield from _images(root, path, list(sample))
    for path in lost_shards(shards):
        yield Gap(path, None, split_of(path))


def _images(root: Path, path: str, sample: list[_Member]) -> Iterator[Entry | Stray]:
    images = [member for member in sample if member.is_image]
    fewest = min((member.suffix.count(".") for member in images), default=0)
    folders = [*path.split("/")[:-1], *sample[0].name.split("/")[:-1]]
    label, traits = _read_labels(root / path, folders, sample)
    subset = traits.subset or (None if label is None else subset_of(folders, label))
    split = traits.split or split_of(path) or split_of_folders(folders)
    for image in images:
        image_id = f"{path}/{image.name}"
        if image.position is None:
            yield Stray(image_id, "a link within a tar, which holds no bytes", subset, split)
        elif image.suffix.count(".") > fewest:
            yield Stray(image_id, "beside the image of its name, and no image of its own", subset, split)
        elif label is None or subset is None:
            yield Stray(image_id, _why_unlabelled(sample), subset, split)
        else:
            position = image.position
            yield Entry(image_id, label, subset, split, traits.group, image.size, traits.variant, path, position)


def _why_unlabelled(sample: list[_Member]) -> str:
    if any(member.suffix.endswith(tuple(f".{ending}" for ending in _LABELLING)) for member in sample):
        return "no label: a sample's name ends at its first dot, and its .cls or .json has another"
    return f"no label in .cls or .json, under no label folder ({', '.join(LABELS)})"


def _read_labels(path: Path, folders: list[str], sample: list[_Member]) -> tuple[int | None, Traits]:
    """Read a sample's label from all that states one, and what else its JSON says."""
    labels = {LABELS[name.lower()] for name in folders if name.lower() in LABELS}
    traits = _NO_TRAITS
    for member in sample:
        where = f"{path}, member {member.name}"
        if member.suffix == "cls":
            labels.add(read_label(_text(member, where), where))
        elif member.suffix == "json":
            row = _json(member, where)
            traits = read_traits(row, columns_of(row), (), where)
            labels |= {traits.label} if traits.label is not None else set()
    if len(labels) > 1:
        raise LayoutError(f"{path}, member {sample[0].name}: labelled both real and fake; keep one of them")
    return next(iter(labels), None), traits


def _text(member: _Member, where: str) -> str:
    try:
        return member.content.decode()
    except UnicodeDecodeError:
        raise LayoutError(f"{where} is not UTF-8; write it again") from None


def _json(member: _Member, where: str) -> dict[str, object]:
    try:
        row = json.loads(_text(member, where))
    except ValueError as error:
        raise LayoutError(f"{where} is not JSON: {error}; write it again") from None
    if not isinstance(row, dict):
        raise LayoutError(f"{where} holds {type(row).__name__}, not an object such as {{'label': 1}}")
    return row


def _members(path: Path) -> Iterator[_Member]:
    """Yield a tar's files and links in their order; hidden files and archive litter are passed over."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
                name = _member_name(info, path)
                if any(map(is_litter, name.split("/"))) or not (info.isreg() or info.islnk() or info.issym()):
                    continue
                member = _Member(name, info.offset_data if info.isreg() else None, info.size, b"")
                if member.is_image and info.issparse():
                    raise LayoutError(f"{path}, member {name}: stored sparse; pack it again without --sparse")
                if info.isreg() and member.suffix in _LABELLING:
                    content = tar.extractfile(info)
                    assert content is not None, "a regular file"
                    member = member._replace(content=content.read())
                yield member
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end-of-archive block where it should be")
    except tarfile.TarError as error:
        raise LayoutError(
            f"{path} is no whole, uncompressed tar ({error}); its download may have stopped half-way: fetch it again"
        ) from None
    except OSError as error:
        raise LayoutError(f"cannot read {path}: {error.strerror}") from None


def _member_name(info: tarfile.TarInfo, path: Path) -> str:
    try:
        info.name.encode()
    except UnicodeEncodeError:
        raise LayoutError(f"{path}, member {info.name!r}: its name is not UTF-8; pack it again") from None
    return "/".join(part for part in info.name.split("/") if part not in ("", "."))


LAYOUT = Layout(
    "tar shards (webdataset): images with .cls or .json beside them, or in label folders", find, suffixes=_SUFFIXES
)
