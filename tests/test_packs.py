from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import yaml

from rine_cache.cache import FeatureCache, RowRange, join_shards, open_writer, shard_path
from rine_cache.errors import (
    CacheCorruptError,
    CacheError,
    CacheMismatchError,
    CacheUnsealedError,
    ConfigError,
    ManifestError,
    OutputError,
    RineCacheError,
)
from rine_cache.features import FeatureSet, open_part
from rine_cache.files import written_whole
from rine_cache.heads.head import load_heads
from rine_cache.manifest import build_manifest, read_manifest, write_manifest
from rine_cache.packs import read_pack, write_pack
from rine_cache.packs.content import one_file
from rine_cache.packs.index import INDEX
from rine_cache.score import ScoredImages, score
from rine_cache.specs.base import parse
from rine_cache.specs.config import Config
from rine_cache.specs.training import ExperimentSpec
from rine_cache.train import train_experiment
from tests.conftest import StandInEncoder
from tests.test_shards import split

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MadeCache

TRAIN = "features/stand-in/ln_2/center16/train.h5"
TEST = "features/stand-in/ln_2/center16/test.h5"
FILES = ["manifests/test.parquet", "manifests/train.parquet", TEST, TRAIN]  # in the order of a pack


@pytest.fixture
def results(make_cache: Callable[..., MadeCache], tmp_path: Path) -> Path:
    """A results folder with the caches of two data sets."""
    folder = tmp_path / "results"
    for seed, name in enumerate(("train", "test")):
        made = make_cache(name, per_class=5 + seed, seed=seed)
        places = {f"features/stand-in/ln_2/center16/{name}.h5": made.features}
        for path, source in {**places, f"manifests/{name}.parquet": made.manifest_path}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            source.rename(folder / path)
    return folder


@pytest.fixture
def pack(results: Path, tmp_path: Path) -> Path:
    write_pack(results, tmp_path / "pack.tar")
    return tmp_path / "pack.tar"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The results folder of another machine: not there yet."""
    return tmp_path / "elsewhere" / "results"


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def contents_of(pack: Path) -> dict[str, bytes]:
    with tarfile.open(pack) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]


def write_tar(path: Path, contents: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def forge(pack: Path, replaced: dict[str, bytes], edit: Callable[[dict[str, Any]], Any] = lambda index: None) -> None:
    """Rewrite a pack with other files in it, and an index whose sizes and digests are right for them."""
    contents = {**contents_of(pack), **replaced}
    index = json.loads(contents[INDEX])
    names = list(contents)[1:]
    for name, entry in zip(names, index["files"], strict=True):
        entry.update(size=len(contents[name]), sha256=hashlib.sha256(contents[name]).hexdigest())
    edit(index)
    write_tar(pack, {**contents, INDEX: json.dumps(index).encode()})


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x01
    path.write_bytes(data)


def refused(pack: Path, folder: Path, error: type[RineCacheError], match: str) -> None:
    """Check that a pack is refused and that its import leaves no trace."""
    with pytest.raises(error, match=match):
        read_pack(pack, folder)
    assert not folder.parent.exists()


def test_a_round_trip_gives_the_same_files_and_no_others(results: Path, pack: Path, elsewhere: Path) -> None:
    imported = read_pack(pack, elsewhere)
    assert files_below(elsewhere) == files_below(results)
    assert (imported.new, imported.replaced, imported.kept) == (FILES, [], [])
    assert [content.file.path for content in imported.contents] == [TEST, TRAIN]
    assert [(content.images, content.quarantined) for content in imported.contents] == [(18, 0), (15, 0)]


def test_the_index_comes_first_and_says_what_is_in_the_pack(results: Path, pack: Path) -> None:
    contents = contents_of(pack)
    assert list(contents) == [INDEX, *FILES]
    index = json.loads(contents[INDEX])
    assert (index["format"], index["format_version"]) == ("rine-cache pack", 1)
    for name, entry in zip(FILES, index["files"], strict=True):
        assert entry["size"] == len(contents[name])
        assert entry["sha256"] == hashlib.sha256(contents[name]).hexdigest()
    cache = FeatureCache(results / TEST)
    assert index["files"][2]["encoding_fingerprint"] == cache.fingerprint
    assert index["files"][2]["manifest_digest"] == cache.identity.manifest_digest


def test_equal_files_give_equal_packs_whoever_made_them_and_when(results: Path, pack: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*.h5"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    write_pack(tmp_path / "copy", tmp_path / "second.tar")
    assert (tmp_path / "second.tar").read_bytes() == pack.read_bytes()


def test_no_image_is_in_a_pack(pack: Path, tmp_path: Path) -> None:
    packed = pack.read_bytes()
    images = list(tmp_path.rglob("*.png"))
    assert len(images) == 33
    for image in images:
        data = image.read_bytes()
        assert data[:8] not in packed  # PNG's signature
        assert data[-100:-20] not in packed


@pytest.mark.parametrize(
    ("chosen", "caches"),
    [({"datasets": ["test"]}, [TEST]), ({"encoder": "stand-in", "view": "center16"}, [TEST, TRAIN])],
)
def test_a_pack_may_hold_some_of_the_caches(
    results: Path, tmp_path: Path, chosen: dict[str, Any], caches: list[str]
) -> None:
    contents = write_pack(results, tmp_path / "some.tar", **chosen)
    assert [content.file.path for content in contents] == caches
    names = [f"manifests/{Path(path).stem}.parquet" for path in caches]
    assert list(contents_of(tmp_path / "some.tar")) == [INDEX, *names, *caches]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"datasets": ["tset"]}, r"--dataset 'tset'.*did you mean 'test'\? allowed: test, train"),
        ({"encoder": "standin"}, r"--encoder 'standin'.*did you mean 'stand-in'\?"),
        ({"view": "centre16"}, r"--view 'centre16'.*did you mean 'center16'\?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    results: Path, tmp_path: Path, chosen: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_pack(results, tmp_path / "pack.tar", **chosen)
    assert not (tmp_path / "pack.tar").exists()


def test_a_folder_without_caches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no cache below"):
        write_pack(tmp_path, tmp_path / "pack.tar")


def leave_unsealed(results: Path) -> None:
    (results / TEST).rename(results / f"{TEST}.part")


def write_over_the_seal(results: Path) -> None:
    data = (results / TEST).read_bytes()
    (results / TEST).write_bytes(b"rine-cache part\n".ljust(512, b"\0") + data[512:])


def damage_a_feature(results: Path) -> None:
    layout_offset = (results / TEST).read_bytes().index(FeatureCache(results / TEST).features[0, 0].tobytes())
    flip(results / TEST, layout_offset)


def damage_a_manifest(results: Path) -> None:
    flip(results / FILES[0], 40)


def lose_a_manifest(results: Path) -> None:
    (results / FILES[0]).unlink()


def mix_up_manifests(results: Path) -> None:
    shutil.copy(results / FILES[1], results / FILES[0])


@pytest.mark.parametrize(
    ("harm", "error", "message"),
    [
        (leave_unsealed, CacheError, r"test\.h5; its extraction has not finished"),
        (write_over_the_seal, CacheUnsealedError, r"test\.h5 is not sealed"),
        (damage_a_feature, CacheCorruptError, r"test\.h5 is damaged: slab 0 \(block 0\)"),
        (damage_a_manifest, ManifestError, r"test\.parquet"),
        (lose_a_manifest, ManifestError, r"no manifest at .*test\.parquet"),
        (mix_up_manifests, CacheMismatchError, r"test\.h5 was made from manifest .*test\.parquet"),
    ],
)
def test_what_is_not_whole_is_not_packed(
    results: Path, tmp_path: Path, harm: Callable[[Path], None], error: type[RineCacheError], message: str
) -> None:
    harm(results)
    with pytest.raises(error, match=message):
        write_pack(results, tmp_path / "pack.tar")
    assert not (tmp_path / "pack.tar").exists()
    assert write_pack(results, tmp_path / "pack.tar", datasets=["train"])


def test_a_file_that_is_no_pack_is_not_replaced_and_a_pack_is(results: Path, pack: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "mine.tar", {"holiday.png": b"pixels"})
    before = (tmp_path / "mine.tar").read_bytes()
    with pytest.raises(OutputError, match=r"mine\.tar is there, no pack, and is not replaced"):
        write_pack(results, tmp_path / "mine.tar")
    assert (tmp_path / "mine.tar").read_bytes() == before
    write_pack(results, pack, datasets=["test"])
    assert list(contents_of(pack)) == [INDEX, FILES[0], TEST]


def test_a_cache_that_changes_while_it_is_packed_is_noticed(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def then_change(path: Path) -> Any:
        flip(results / TRAIN, 600)
        return written_whole(path)

    monkeypatch.setattr("rine_cache.packs.writer.written_whole", then_change)
    with pytest.raises(CacheError, match=r"train\.h5 was changed while it was packed"):
        write_pack(results, tmp_path / "pack.tar")
    assert [path.name for path in tmp_path.glob("*pack*")] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(
    results: Path, pack: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pack.read_bytes()
    original = Path.open
    opened = tarfile.open

    def onto_a_full_disk(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        full = mode == "wb" and path.suffix == ".tmp"
        return original(Path("/dev/full") if full else path, mode, *rest, **options)

    def tar_onto_a_full_disk(path: Path, mode: str, **options: Any) -> Any:
        return opened(Path("/dev/full") if mode == "w" else path, mode, **options)

    monkeypatch.setattr(Path, "open", onto_a_full_disk)
    monkeypatch.setattr(tarfile, "open", tar_onto_a_full_disk)
    refused(pack, elsewhere, OutputError, r"cannot write .*manifests/test\.parquet: No space left on device")
    with pytest.raises(OutputError, match=r"cannot write .*pack\.tar: No space left on device"):
        write_pack(results, pack)
    assert pack.read_bytes() == whole
    assert [path.name for path in pack.parent.glob("*pack*")] == ["pack.tar"]


@pytest.mark.parametrize("name", [INDEX, *FILES])
def test_a_changed_byte_anywhere_is_refused_and_leaves_nothing(pack: Path, elsewhere: Path, name: str) -> None:
    whole = pack.read_bytes()
    with tarfile.open(pack) as tar:
        member = tar.getmember(name)
    start, end = member.offset_data, member.offset_data + member.size
    for place in (member.offset, start, (start + end) // 2, end - 1):
        flip(pack, place)
        refused(pack, elsewhere, RineCacheError, r"pack\.tar")
        pack.write_bytes(whole)


@pytest.mark.parametrize("name", [INDEX, *FILES])
def test_a_pack_cut_short_anywhere_is_refused_and_leaves_nothing(pack: Path, elsewhere: Path, name: str) -> None:
    whole = pack.read_bytes()
    with tarfile.open(pack) as tar:
        member = tar.getmember(name)
    start, end = member.offset_data, -(-(member.offset_data + member.size) // 512) * 512
    for place in (member.offset, member.offset + 100, (start + end) // 2, end):
        pack.write_bytes(whole[:place])
        refused(pack, elsewhere, CacheError, r"pack\.tar")


def test_what_stands_after_the_last_file_is_refused(pack: Path, elsewhere: Path) -> None:
    with tarfile.open(pack, "a") as tar:
        tar.addfile(tarfile.TarInfo("more"))
    refused(pack, elsewhere, CacheCorruptError, "does not end after its last file")


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "foreign", "compressed"])
def test_what_is_no_pack_is_refused_by_name(pack: Path, elsewhere: Path, kind: str) -> None:
    whole = pack.read_bytes()
    pack.unlink()
    if kind == "folder":
        pack.mkdir()
    elif kind == "foreign":
        write_tar(pack, {"images/0.png": b"pixels"})
    elif kind == "compressed":
        with tarfile.open(pack, "w:gz") as tar:
            member = tarfile.TarInfo(INDEX)
            member.size = len(whole)
            tar.addfile(member, io.BytesIO(whole))
    elif kind != "missing":
        pack.write_bytes({"empty": b"", "text": b"features of everything\n" * 100}[kind])
    refused(pack, elsewhere, CacheError, r"pack\.tar")


@pytest.mark.parametrize("part", ["dataset", "encoder", "tap", "view"])
def test_a_pack_can_write_nowhere_else(pack: Path, elsewhere: Path, part: str) -> None:
    contents = contents_of(pack)
    for name in ("../../evil", "/tmp/evil", "..", ".hidden", "a/b", "", "evil\n"):
        index = json.loads(contents[INDEX])
        files = {}
        for entry, data in zip(index["files"], list(contents.values())[1:], strict=True):
            if part in entry:
                entry[part] = name
            cache = "features/{encoder}/{tap}/{view}/{dataset}.h5"
            files[(cache if entry["kind"] == "cache" else "manifests/{dataset}.parquet").format(**entry)] = data
        write_tar(pack, {INDEX: json.dumps(index).encode(), **files})
        refused(pack, elsewhere, ConfigError, rf"the index of .*pack\.tar is not valid:\n  .*{part}")


def test_a_member_that_is_a_link_is_refused(pack: Path, elsewhere: Path) -> None:
    contents = contents_of(pack)
    with tarfile.open(pack, "w") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if name == TEST:
                member.type, member.size, member.linkname = tarfile.SYMTYPE, 0, "/etc/passwd"
            tar.addfile(member, io.BytesIO(data))
    refused(pack, elsewhere, CacheCorruptError, r"test\.h5 is not where its index says")


def drop_a_manifest(index: dict[str, Any]) -> None:
    del index["files"][0]


def name_a_file_twice(index: dict[str, Any]) -> None:
    index["files"].append(index["files"][0])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda index: index.update(format_version=2), "has format version 2, this code reads 1"),
        (lambda index: index.update(format="other"), "format: "),
        (lambda index: index.update(files=[]), "files: "),
        (lambda index: index.update(extra=1), "unknown key 'extra'"),
        (lambda index: index["files"][0].update(kind="image"), "kind"),
        (lambda index: index["files"][2].update(sha256="0"), "sha256"),
        (drop_a_manifest, "test.h5 has no manifest in it"),
        (name_a_file_twice, "test.parquet stands twice in it"),
    ],
)
def test_an_index_that_says_something_else_is_refused(
    pack: Path, elsewhere: Path, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    forge(pack, {}, edit)
    refused(pack, elsewhere, RineCacheError, message)


def test_files_that_their_index_vouches_for_are_checked_all_the_same(
    results: Path, pack: Path, elsewhere: Path
) -> None:
    whole = pack.read_bytes()
    damage_a_feature(results)
    forge(pack, {TEST: (results / TEST).read_bytes()})
    refused(pack, elsewhere, CacheError, rf"pack.tar holds what cannot be used: {TEST} is damaged: slab 0 \(block 0\)")
    pack.write_bytes(whole)
    forge(pack, {FILES[0]: (results / FILES[1]).read_bytes()})
    refused(pack, elsewhere, CacheError, rf"{TEST} was made from manifest .* but {FILES[0]}")
    pack.write_bytes(whole)
    forge(pack, {FILES[0]: b"no manifest"})
    refused(pack, elsewhere, CacheError, rf"{FILES[0]} is not a manifest")
    pack.write_bytes(whole)
    forge(pack, {}, lambda index: index["files"][2].update(encoding_fingerprint="0" * 64))
    refused(pack, elsewhere, CacheError, rf"{TEST} is of tap ln_2, encoding ")


def test_files_that_are_there_already_are_left_alone(pack: Path, elsewhere: Path) -> None:
    read_pack(pack, elsewhere)
    (elsewhere / TEST).unlink()
    before = {path: (elsewhere / path).stat() for path in FILES if path != TEST}
    imported = read_pack(pack, elsewhere)
    assert (imported.new, imported.kept) == ([TEST], [FILES[0], FILES[1], TRAIN])
    for path, status in before.items():
        now = (elsewhere / path).stat()
        assert (now.st_ino, now.st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


def test_files_that_differ_are_refused_by_name_before_anything_is_written(pack: Path, elsewhere: Path) -> None:
    (elsewhere / TEST).parent.mkdir(parents=True)
    (elsewhere / TEST).write_bytes(b"mine")
    with pytest.raises(OutputError, match=rf"1 of the 4 files .* with other bytes: {TEST}; .*--replace"):
        read_pack(pack, elsewhere)
    assert files_below(elsewhere) == {TEST: b"mine"}
    imported = read_pack(pack, elsewhere, replace=True)
    assert (imported.new, imported.replaced) == ([FILES[0], FILES[1], TRAIN], [TEST])
    assert FeatureCache(elsewhere / TEST).readable.all()


def test_a_failed_replacement_keeps_what_was_there(pack: Path, elsewhere: Path) -> None:
    (elsewhere / TEST).parent.mkdir(parents=True)
    (elsewhere / TEST).write_bytes(b"mine")
    flip(pack, len(pack.read_bytes()) - 1)
    with pytest.raises(CacheCorruptError):
        read_pack(pack, elsewhere, replace=True)
    assert files_below(elsewhere) == {TEST: b"mine"}
    assert not (elsewhere / "manifests").exists()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_shards_that_hold_what_the_pack_holds_are_left_alone(pack: Path, elsewhere: Path, count: int) -> None:
    read_pack(pack, elsewhere)
    split(elsewhere / TEST, count)
    before = files_below(elsewhere)
    imported = read_pack(pack, elsewhere)
    assert (imported.new, imported.replaced, imported.kept) == ([], [], FILES)
    assert files_below(elsewhere) == before


def test_shards_without_rows_change_nothing(results: Path, pack: Path, tmp_path: Path) -> None:
    """The index then names a single shard: it is that which is packed."""
    cache = FeatureCache(results / TEST)
    few = cache.shape._replace(images=cache.shape.slab_rows)
    assert few.slabs == 1
    (results / TEST).unlink()
    place, identity = results / TEST, cache.identity._replace(rows=RowRange(0, few.images))
    for path, rows in ((shard_path(place, 1, 2), few), (tmp_path / "whole.h5", few)):
        with open_writer(path, rows, identity) as writer:
            content = cache.read_slab(0)
            assert content is not None
            writer.write(0, content)
            writer.seal()
    join_shards(place, 2)
    with one_file(place, tmp_path) as one:
        assert one.read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.fixture
def of_another_encoder(
    pack: Path, elsewhere: Path, make_cache: Callable[..., MadeCache], tmp_path: Path
) -> FeatureCache:
    """Import a pack, and put shards of another encoder in the place of a cache of it."""
    read_pack(pack, elsewhere)
    made = make_cache("test", per_class=6, seed=1, encoder=StandInEncoder(seed=1))
    shutil.copy(made.features, elsewhere / TEST)
    return split(elsewhere / TEST, 3)


@pytest.mark.usefixtures("of_another_encoder")
def test_shards_that_differ_go_once_the_pack_s_cache_is_in_place(results: Path, pack: Path, elsewhere: Path) -> None:
    before = files_below(elsewhere)
    with pytest.raises(OutputError, match=rf"1 of the 4 files .* with other bytes: {TEST}; .*--replace"):
        read_pack(pack, elsewhere)
    assert files_below(elsewhere) == before
    part = (elsewhere / TEST).with_suffix(".shards") / "2-of-3.h5.part"
    part.write_bytes(b"being written by another process")
    assert read_pack(pack, elsewhere, replace=True).replaced == [TEST]
    found = files_below(elsewhere)
    assert found.pop(str(part.relative_to(elsewhere))) == b"being written by another process"
    assert found == files_below(results)


class KilledError(BaseException):
    """The process is gone: nothing that it would have done from here on is done."""


def killed_at(deadly: int, monkeypatch: pytest.MonkeyPatch, replace: Callable[[], object]) -> bool:
    """Replace, but from the given call on let no file be renamed or deleted; say whether it came that far."""
    calls = itertools.count()

    def mortal(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) >= deadly:
                raise KilledError
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink", "rmdir"):
            patch.setattr(Path, name, mortal(getattr(Path, name)))
        with contextlib.suppress(KilledError):
            replace()
    return next(calls) > deadly


def test_a_kill_while_shards_are_replaced_leaves_the_old_cache_or_the_new(
    of_another_encoder: FeatureCache, results: Path, pack: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = of_another_encoder.fingerprint, FeatureCache(results / TEST).fingerprint
    start = elsewhere.with_name("start")
    shutil.copytree(elsewhere, start, symlinks=True)
    seen = []
    for deadly in itertools.count():
        shutil.rmtree(elsewhere)
        shutil.copytree(start, elsewhere, symlinks=True)
        killed = killed_at(deadly, monkeypatch, lambda: read_pack(pack, elsewhere, replace=True))
        found = FeatureCache(elsewhere / TEST)
        assert found.damage() == []
        seen.append(found.fingerprint)
        if not killed:
            break
    changed = seen.index(new)
    assert seen == [old] * changed + [new] * (len(seen) - changed)
    assert changed > 1
    assert len(seen) - changed > 4, "three shards, their folder, and the end"
    assert files_below(elsewhere) == files_below(results)


def test_caches_are_newer_than_their_manifests(results: Path, pack: Path, elsewhere: Path) -> None:
    """Snakemake compares times; an older cache would be made again, from images that are not here."""
    read_pack(pack, elsewhere)
    for name in ("test", "train"):
        (cache,) = elsewhere.rglob(f"{name}.h5")
        assert cache.stat().st_mtime_ns > (elsewhere / f"manifests/{name}.parquet").stat().st_mtime_ns
    # Labels were corrected: the manifest is another, and its caches are those that were there.
    manifest = read_manifest(results / FILES[0])
    corrected = manifest.table.with_columns(subset=pl.lit("renamed"))
    write_manifest(build_manifest(corrected, manifest.root), results / FILES[0])
    write_pack(results, pack)
    os.utime(elsewhere / TEST, (1, 1))
    imported = read_pack(pack, elsewhere, replace=True)
    assert (imported.replaced, imported.kept) == ([FILES[0]], [FILES[1], TEST, TRAIN])
    assert (elsewhere / TEST).stat().st_mtime_ns > (elsewhere / FILES[0]).stat().st_mtime_ns


def test_a_manifest_is_not_replaced_under_a_cache_that_is_not_in_the_pack(
    results: Path, pack: Path, elsewhere: Path
) -> None:
    other = "features/other/ln_2/center16/test.h5"
    (elsewhere / other).parent.mkdir(parents=True)
    shutil.copy(results / TRAIN, elsewhere / other)
    with pytest.raises(CacheMismatchError, match=rf"{other} was made from other images"):
        read_pack(pack, elsewhere)
    assert list(files_below(elsewhere)) == [other]
    shutil.copy(results / TEST, elsewhere / other)
    os.utime(elsewhere / other, (1, 1))
    read_pack(pack, elsewhere)
    assert (elsewhere / other).stat().st_mtime_ns > (elsewhere / FILES[0]).stat().st_mtime_ns


def test_heads_trained_and_scored_elsewhere_without_the_images_give_equal_scores(
    results: Path, pack: Path, elsewhere: Path, tmp_path: Path
) -> None:
    spec = parse(
        ExperimentSpec,
        {
            "encoder": "stand-in",
            "training_set": "mine",
            "seeds": [0],
            "training": {"epochs": 3, "batch_size": 8},
            "methods": {
                "RINE": {"head": {"kind": "rine", "width": 8, "layers": 1}},
                "linear": {"head": {"kind": "linear"}, "training": {"xi": 0}},
            },
        },
        "test",
    )

    def scores(folder: Path) -> bytes:
        train, test = open_part(folder / TRAIN, folder / FILES[1]), open_part(folder / TEST, folder / FILES[0])
        train_experiment(spec, FeatureSet([train]), FeatureSet([test]), folder / "heads", "cpu")
        score(load_heads(folder / "heads"), test, ScoredImages("test", "center16"), folder / "scores.parquet", "cpu")
        return (folder / "scores.parquet").read_bytes()

    here = scores(results)
    for name in ("train", "test"):
        shutil.rmtree(tmp_path / name)
    shutil.rmtree(results)
    read_pack(pack, elsewhere)
    assert scores(elsewhere) == here


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    from rine_cache.cli.main import main

    monkeypatch.setattr(sys, "argv", ["rine-cache", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_commands_say_what_travels_and_what_the_configuration_needs(
    results: Path, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = run(monkeypatch, capsys, "export", tmp_path / "p.tar", "--results", results)
    assert "test      stand-in  ln_2  center16      18            0" in out
    assert "2 caches with 2 manifests" in out
    assert "No image is in it" in out
    assert "file names" in out
    out, _ = run(monkeypatch, capsys, "import", tmp_path / "p.tar", "--results", elsewhere)
    assert "4 files new" in out
    entries = yaml.safe_load(out[out.index("encoders:") :])
    assert set(entries["datasets"]) == {"test", "train"}
    assert entries["datasets"]["test"] == {"root": str(tmp_path / "test")}
    assert entries["encoders"]["stand-in"]["batch_size"] == 4
    parse(Config, {**entries, "training_sets": {}, "experiments": {}}, "what import prints")
    out, _ = run(monkeypatch, capsys, "import", tmp_path / "p.tar", "--results", elsewhere)
    assert f"there already, the same: {TEST}" in out
