"""What of a configuration's data is here, from names of folders and listings: nothing is scheduled for what is not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rine_cache.inventory import Holding, State, missing_for_training, missing_table, take_inventory
from rine_cache.layouts import list_images
from rine_cache.manifest import build_manifest, write_manifest
from rine_cache.specs.benchmark import BenchmarkSpec
from rine_cache.specs.config import Config, config_from
from rine_cache.specs.data import DatasetSpec
from tests import container_twins, twins

RESULTS = Path("results")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config_of(datasets: dict[str, Any], *training: dict[str, Any], **experiment: Any) -> Config:
    """Make a configuration whose one experiment ``e`` is trained on some parts."""
    method = {"head": {"kind": "rine"}}
    parts = [{"view": "center224", **part} for part in training or ({"dataset": next(iter(datasets))},)]
    return config_from(
        {
            "encoders": {"small": {"architecture": "ViT-S-32-alt", "weights": "random"}},
            "datasets": datasets,
            "training_sets": {"t": {"train": parts, "validation": parts}},
            "experiments": {"e": {"encoder": "small", "training_set": "t", "methods": {"RINE": method}, **experiment}},
        }
    )


def benchmark_of(*sources: dict[str, Any]) -> BenchmarkSpec:
    test_sets = {f"t{number}": {"real": source, "fake": source} for number, source in enumerate(sources)}
    protocols = {"p": {"test_sets": list(test_sets)}}
    return BenchmarkSpec.model_validate({"name": "b", "title": "b", "test_sets": test_sets, "protocols": protocols})


def genimage(*generators: str, splits: tuple[str, ...] = ("train", "val"), unpacked: bool = False) -> dict[str, Any]:
    """Build some of GenImage's generators, and return the data set's settings."""
    twins.build(Path("GenImage"), twins.genimage(unpacked, generators, splits))
    return {"root": "GenImage", "layout": "genimage", "obtain": "somewhere"}


def list_as(name: str, settings: dict[str, Any]) -> None:
    """Make the listing that the pipeline makes of a data set."""
    listing = list_images(DatasetSpec.model_validate(settings))
    write_manifest(build_manifest(listing.table, listing.root), RESULTS / "manifests" / f"{name}.parquet")


def holding(settings: dict[str, Any], *sources: dict[str, Any]) -> Holding:
    """Return the holding of one data set ``d``, tested through some sources and trained on by nothing."""
    config = config_of({"other": {"root": "other"}, "d": settings}, {"dataset": "other"})
    benchmarks = [benchmark_of(*({"dataset": "d", **source} for source in sources))] if sources else []
    return take_inventory(config, benchmarks, RESULTS)["d"]


def lacking(datasets: dict[str, Any], *training: dict[str, Any], **experiment: Any) -> list[str]:
    config = config_of(datasets, *training, **experiment)
    return missing_for_training(config, take_inventory(config, [], RESULTS), "e")


# States.


def test_a_root_that_is_not_there_is_missing_and_says_where_to_look_and_to_get_it() -> None:
    assert holding({"root": "gone", "obtain": "somewhere"}) == (State.MISSING, (), "gone", "somewhere", (), None)
    assert not holding({"root": "gone"}).usable


@pytest.mark.parametrize("layout", ["folder", "genimage", "opensdid", "ldm-train", "webdataset", "parquet", "table"])
def test_an_empty_folder_is_missing(layout: str) -> None:
    """A disk that is not mounted leaves one; listing it would fail."""
    Path("empty").mkdir()
    assert holding({"root": "empty", "layout": layout}).state is State.MISSING


@pytest.mark.parametrize("layout", ["genimage", "forensynths-test", "opensdid", "ldm-train", "synthbuster"])
def test_a_folder_of_other_things_is_missing(layout: str) -> None:
    twins.build(Path("other"), ["readme.txt", "holiday/beach.jpg"])
    assert holding({"root": "other", "layout": layout}).state is State.MISSING


@pytest.mark.parametrize("unpacked", [False, True])
def test_a_whole_copy_is_here(unpacked: bool) -> None:
    settings = genimage(*twins.GENIMAGE, unpacked=unpacked)
    found = holding(settings, *({"subsets": [name], "splits": ["val"]} for name in twins.GENIMAGE))
    assert (found.state, found.absent, found.unlisted) == (State.HERE, (), ())


def test_a_partial_copy_names_what_is_asked_for_and_not_here() -> None:
    found = holding(genimage("adm", "glide"), {"subsets": ["adm"]}, {"subsets": ["wukong"]}, {"subsets": ["biggan"]})
    assert (found.state, found.absent, found.usable) == (State.PARTLY, ("biggan", "wukong"), True)


def test_what_nothing_asks_for_is_not_missed() -> None:
    assert holding(genimage("adm"), {"subsets": ["adm"]}).state is State.HERE
    assert holding(genimage("adm"), {}).state is State.HERE


def test_a_data_set_that_asks_for_a_split_which_is_not_here_is_missing() -> None:
    """Training images of GenImage where its test images alone were fetched: a listing of them would fail."""
    settings = genimage("sdv14", splits=("val",))
    assert holding({**settings, "splits": ["train"]}).state is State.MISSING
    assert holding({**settings, "splits": ["val"]}).state is State.HERE


def test_a_data_set_that_asks_for_subsets_none_of_which_is_here_is_missing() -> None:
    settings = genimage("sdv14", "adm")
    assert holding({**settings, "subsets": ["wukong"]}).state is State.MISSING
    partly = holding({**settings, "subsets": ["adm", "wukong"]})
    assert (partly.state, partly.absent) == (State.PARTLY, ("wukong",))
    assert holding({**settings, "subsets": ["adm"]}).state is State.HERE


def test_a_subset_whose_split_is_not_here_is_named_with_it() -> None:
    twins.build(Path("GenImage"), twins.genimage(generators=["adm"], splits=["val"]))
    settings = genimage("glide")
    found = holding(settings, {"subsets": ["adm"], "splits": ["train"]}, {"subsets": ["glide"], "splits": ["train"]})
    assert (found.state, found.absent) == (State.PARTLY, ("adm in train",))


def test_sources_of_real_images_are_subsets() -> None:
    twins.build(Path("ufd"), [path for path in twins.ufd_diffusion() if "imagenet" not in path])
    settings = {"root": "ufd", "layout": "ufd-diffusion"}
    assert holding(settings, {"subsets": ["imagenet"]}, {"subsets": ["laion"]}).absent == ("imagenet",)
    twins.build(Path("ufd2"), twins.ufd_with_reals_everywhere())
    assert holding({**settings, "root": "ufd2"}, {"subsets": ["imagenet"]}, {"subsets": ["laion"]}).absent == ()


def test_data_sets_without_label_folders_and_without_subsets() -> None:
    twins.build(Path("sb"), [path for path in twins.synthbuster() if "RAISE" not in path and "firefly" not in path])
    settings = {"root": "sb", "layout": "synthbuster"}
    assert holding(settings, {"subsets": ["raise"]}, {"subsets": ["firefly"]}).absent == ("firefly", "raise")
    twins.build(Path("Chameleon"), twins.chameleon())
    settings = {"root": "Chameleon", "layout": "chameleon"}
    assert holding(settings, {"subsets": ["chameleon"], "splits": ["test"]}).state is State.HERE


def test_files_that_hold_images() -> None:
    container_twins.opensdid(Path("osd"), 1, {"test": {"sd15": 1, "flux": 1}})
    settings = {"root": "osd", "layout": "opensdid"}
    found = holding(settings, {"subsets": ["flux"]}, {"subsets": ["sdxl"]})
    assert (found.state, found.absent) == (State.PARTLY, ("sdxl",))
    assert holding({**settings, "subsets": ["sd3"]}).state is State.MISSING


def test_layouts_whose_names_do_not_tell_miss_nothing() -> None:
    twins.build(Path("mine"), ["0_real/a.png", "1_fake/gen/a.png"])
    found = holding({"root": "mine"}, {"subsets": ["elsewhere"]})
    assert (found.state, found.absent, found.places) == (State.HERE, (), None)


def test_what_the_pipeline_makes_is_not_missing() -> None:
    made = holding({"root": "gone", "requires": "made.json"}, {"subsets": ["x"]})
    assert (made.state, made.absent, made.usable) == (State.MADE, (), True)


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_images_that_are_gone_leave_their_listing(left: str) -> None:
    settings = genimage("adm", "glide")
    list_as("d", settings)
    shutil.rmtree("GenImage")
    if left == "an empty folder":
        Path("GenImage").mkdir()
    found = holding(settings, {"subsets": ["adm"], "splits": ["val"]}, {"subsets": ["wukong"]})
    assert (found.state, found.absent, found.usable) == (State.LISTED, ("wukong",), True)


def test_what_was_listed_stays_so_though_its_folder_is_gone() -> None:
    settings = genimage("adm", "glide")
    list_as("d", settings)
    shutil.rmtree("GenImage/ADM")
    assert holding(settings, {"subsets": ["adm"]}).state is State.HERE


def test_a_damaged_listing_is_no_listing() -> None:
    (RESULTS / "manifests").mkdir(parents=True)
    (RESULTS / "manifests" / "d.parquet").write_bytes(b"PAR1 and then nothing")
    assert holding({"root": "gone"}).state is State.MISSING
    assert holding(genimage("adm"), {"subsets": ["glide"]}).absent == ("glide",)


def test_a_folder_that_has_grown_says_so() -> None:
    settings = genimage("adm")
    assert holding(settings).unlisted == ()
    list_as("d", settings)
    assert holding(settings).unlisted == ()
    genimage("glide")
    found = holding(settings, {"subsets": ["glide"]})
    assert (found.state, found.absent, found.unlisted) == (State.HERE, (), ("glide",))
    assert holding({**settings, "subsets": ["adm"]}).unlisted == ()
    list_as("d", settings)
    assert holding(settings).unlisted == ()


def test_a_split_that_has_come_makes_its_subset_grow() -> None:
    settings = genimage("adm", splits=("val",))
    list_as("d", settings)
    genimage("adm")
    assert holding(settings).unlisted == ("adm",)


def test_a_folder_that_cannot_be_read_is_left_to_the_job_that_lists_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = genimage("adm")

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert holding(settings, {"subsets": ["glide"]}).state is State.HERE


def test_data_sets_that_only_benchmarks_name_are_missing() -> None:
    config = config_of({"d": {"root": "gone"}})
    far = take_inventory(config, [benchmark_of({"dataset": "far"})], RESULTS)["far"]
    assert (far.state, far.root, far.obtain) == (
        State.MISSING,
        "",
        "not defined under datasets: of this configuration",
    )


# What training lacks.


def test_a_whole_training_set_lacks_nothing() -> None:
    settings = genimage("sdv14")
    assert lacking({"d": settings}) == []
    assert lacking({"d": settings}, {"dataset": "d", "subsets": ["sdv14"], "splits": ["train"]}) == []
    assert lacking({"d": {**settings, "splits": ["train"], "subsets": ["sdv14"]}}) == []


def test_a_missing_data_set_is_lacking_and_named_once() -> None:
    assert lacking({"d": {"root": "gone"}}) == ["d"]
    assert lacking({"d": genimage("adm"), "e": {"root": "x"}}, {"dataset": "d"}, {"dataset": "e"}) == ["e"]


def test_a_class_that_is_not_here_is_lacking() -> None:
    twins.build(Path("progan"), twins.forensynths_train(["car", "chair", "horse"]))
    settings = {"root": "progan", "layout": "forensynths-train"}
    classes = {"dataset": "d", "subsets": ["car", "cat", "chair", "horse"]}
    assert lacking({"d": settings}, classes) == ["d:cat"]
    assert lacking({"d": {**settings, "subsets": ["car", "cat"]}}) == ["d:cat"]
    assert lacking({"d": settings}, {"dataset": "d", "subsets": ["horse"]}) == []
    assert lacking({"d": settings}) == [], "whatever is here was asked for"


def test_a_part_of_another_data_set_that_is_lacking_does_not_matter() -> None:
    settings = genimage("adm", "glide")
    config = config_of({"d": settings}, {"dataset": "d", "subsets": ["adm"]})
    holdings = take_inventory(config, [benchmark_of({"dataset": "d", "subsets": ["wukong"]})], RESULTS)
    assert holdings["d"].absent == ("wukong",)
    assert missing_for_training(config, holdings, "e") == []


def test_a_split_that_is_not_here_is_lacking() -> None:
    settings = genimage("adm", splits=("val",))
    in_train = {"dataset": "d", "splits": ["train"]}
    assert lacking({"d": settings}, {**in_train, "subsets": ["adm"]}) == ["d:adm in train"]
    assert lacking({"d": settings}, in_train) == ["d:images in train"]
    assert lacking({"d": {**settings, "splits": ["train"]}}) == ["d"]
    genimage("adm")
    assert lacking({"d": settings}, in_train) == []


def test_sources_of_reals_are_lacking_where_a_data_set_is_trained_on_whole() -> None:
    """Without them one class would be missing, or made of other images than its name says."""
    twins.build_ldm_train(Path("ldm"))
    settings = {"root": "ldm", "layout": "ldm-train", "splits": ["train"]}
    assert lacking({"d": settings}) == []
    shutil.rmtree("ldm/coco")
    assert lacking({"d": settings}) == ["d:coco"]


def test_listed_images_can_be_trained_on_without_their_folder() -> None:
    settings = genimage("adm")
    list_as("d", settings)
    shutil.rmtree("GenImage")
    assert lacking({"d": settings}, {"dataset": "d", "subsets": ["adm"], "splits": ["train"]}) == []
    assert lacking({"d": settings}, {"dataset": "d", "subsets": ["glide"]}) == ["d:glide"]


def official(file: str) -> dict[str, Any]:
    return {"methods": {"official": {"head": {"kind": "official", "file": file, "obtain": "the authors"}}}}


def test_official_heads_lack_their_files_and_no_images() -> None:
    datasets = {"d": {"root": "gone"}}
    assert lacking(datasets, **official("m.pth")) == ["m.pth"]
    Path("m.pth").write_bytes(b"x")
    assert lacking(datasets, **official("m.pth")) == []


# The table.


def test_the_table_holds_what_is_missing_and_nothing_else() -> None:
    datasets = {
        "d": genimage("adm"),
        "gone": {"root": "gone", "obtain": "there"},
        "made": {"root": "m", "requires": "p"},
    }
    config = config_of(datasets, {"dataset": "d"}, **official("m.pth"))
    sources = ({"dataset": "d", "subsets": ["adm"]}, {"dataset": "d", "subsets": ["glide"]}, {"dataset": "far"})
    table = missing_table(config, take_inventory(config, [benchmark_of(*sources)], RESULTS))
    assert table.columns == ["what", "state", "missing subsets", "looked for at", "where to get it"]
    assert table.rows() == [
        ("data set d", "partly here", "glide", "GenImage", "somewhere"),
        ("data set gone", "missing", "", "gone", "there"),
        ("data set far", "missing", "", "", "not defined under datasets: of this configuration"),
        ("head e/official", "missing", "", "m.pth", "the authors"),
    ]


def test_the_table_is_empty_where_all_is_here() -> None:
    config = config_of({"d": genimage("adm")})
    assert missing_table(config, take_inventory(config, [], RESULTS)).is_empty()
