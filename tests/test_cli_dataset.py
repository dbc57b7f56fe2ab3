"""`rine-cache dataset`: a data set added, listed and checked as a new user would."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from rine_cache.layouts import LAYOUTS
from rine_cache.specs.config import load_benchmarks, load_config
from tests import container_twins, twins
from tests.conftest import refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Answer

    RineCache = Callable[..., Answer]

CONFIG = """\
# my configuration
encoders:
  small: {architecture: ViT-S-32-alt, weights: random}
datasets:
  known: {root: data/known, obtain: "https://example.org/known"} # by hand
training_sets: {}
experiments: {}
"""


@pytest.fixture
def folder(rine_cache: RineCache) -> Path:
    """A folder of two generators and one source of reals, and a configuration."""
    Path("my.yaml").write_text(CONFIG)
    reals = [f"0_real/coco/r{number}.jpg" for number in range(60)]
    fakes = [f"1_fake/{name}/{name}{number}.jpg" for name in ("sd3", "flux") for number in range(30)]
    return twins.build(Path("data/mine"), [*reals, *fakes])


def added(out: str) -> dict[str, object]:
    """Read the YAML that `dataset add` prints for a configuration."""
    text = out.partition("add to your configuration (--config does so):\n\n")[2].partition("\nTo test each")[0]
    return dict(yaml.safe_load(text)["datasets"])


def words(line: str) -> str:
    return " ".join(line.split())


# add


def test_a_folder_is_recognised_counted_and_shown(rine_cache: RineCache, folder: Path) -> None:
    answer = rine_cache("dataset", "add", "mine", folder)
    assert (answer.status, answer.err) == (0, "")
    lines = [words(line) for line in answer.out.splitlines()]
    assert lines[:8] == [
        "layout folder: 120 of 120 images have a place in it",
        "subset label images",
        "found coco real 60",
        "found flux fake 30",
        "found sd3 fake 30",
        "e.g. real coco: 0_real/coco/r0.jpg, 0_real/coco/r1.jpg, 0_real/coco/r10.jpg",
        "e.g. fake flux: 1_fake/flux/flux0.jpg, 1_fake/flux/flux1.jpg, 1_fake/flux/flux10.jpg",
        "e.g. fake sd3: 1_fake/sd3/sd30.jpg, 1_fake/sd3/sd31.jpg, 1_fake/sd3/sd310.jpg",
    ]
    assert "warning" not in answer.out
    assert added(answer.out) == {"mine": {"root": "data/mine", "layout": "folder"}}
    assert "To test each generator by itself, save this as a file and name that under benchmarks:" in answer.out


def test_nothing_is_written_without_a_configuration(rine_cache: RineCache, folder: Path) -> None:
    before = sorted(Path().rglob("*"))
    rine_cache("dataset", "add", "mine", folder)
    assert sorted(Path().rglob("*")) == before


def test_what_looks_wrong_is_said(rine_cache: RineCache) -> None:
    twins.build(Path("odd"), ["real/a.JPEG", "real/b.JPEG", "fake/c.png", "elsewhere/d.png"])
    out = rine_cache("dataset", "add", "odd", "odd").out
    assert [line for line in out.splitlines() if line.startswith("warning")] == [
        "warning: only 2 real images: intervals will be wide",
        "warning: only 1 fake image: intervals will be wide",
        "warning: file endings differ by class (real mostly .jpg, fake mostly .png): a detector may learn the format; "
        "audit it, and test through center224-jpeg96 as well",
    ]
    assert out.startswith("layout folder: 3 of 4 images have a place in it\n")
    assert re.search(r"^UNEXPECTED +under no label folder .*, e\.g\. elsewhere/d\.png +1$", out, flags=re.MULTILINE)


@pytest.mark.parametrize("trailing", ["", "/", "/../mine/."])
def test_a_root_is_written_relative_as_it_was_given(rine_cache: RineCache, folder: Path, trailing: str) -> None:
    out = rine_cache("dataset", "add", "mine", f"{folder}{trailing}").out
    (settings,) = added(out).values()
    assert isinstance(settings, dict)
    assert Path(settings["root"]).resolve() == folder.resolve()
    assert not Path(settings["root"]).is_absolute()


def test_a_published_layout_says_how_much_of_a_whole_copy_is_here(rine_cache: RineCache) -> None:
    twins.build(Path("GenImage"), twins.genimage(True, ["adm", "glide"], ["val"]))
    out = rine_cache("dataset", "add", "mine", "GenImage").out
    first = out.splitlines()[0]
    assert first == "layout genimage: 8 of 8 images have a place in it, and 4 of the 32 parts of a whole copy are here"
    assert "  or --layout folder: 8 of 8 images have a place in it\n" in out
    assert re.search(r"^MISSING +wukong +val +fake +0$", out, flags=re.MULTILINE)
    assert added(out) == {"mine": {"root": "GenImage", "layout": "genimage"}}


def test_training_images_are_not_tested_on(rine_cache: RineCache) -> None:
    Path("my.yaml").write_text(CONFIG)
    twins.build(Path("GenImage"), twins.genimage(generators=["adm", "glide"]))
    out = rine_cache("dataset", "add", "mine", "GenImage", "--config", "my.yaml").out
    warning = "warning: images of several splits (8 in train, 8 in val): a test that names no `splits` scores them all"
    assert warning in out.splitlines()
    benchmark = load_benchmarks(load_config(Path("my.yaml")), Path())["mine"]
    assert {test_set.fake.splits for test_set in benchmark.test_sets.values()} == {("val",)}
    assert "several splits" not in rine_cache("dataset", "check", "mine", "--config", "my.yaml").out


def test_a_layout_can_be_given(rine_cache: RineCache) -> None:
    twins.build(Path("GenImage"), twins.genimage(True, ["adm", "glide"], ["val"]))
    out = rine_cache("dataset", "add", "mine", "GenImage", "--layout", "folder").out
    assert not out.startswith("layout")
    assert added(out) == {"mine": {"root": "GenImage", "layout": "folder"}}
    assert "did you mean 'genimage'?" in refused(rine_cache("dataset", "add", "m", "GenImage", "--layout", "genimag"))


def test_a_table_of_paths_is_recognised(rine_cache: RineCache) -> None:
    path = container_twins.table(Path("table"))
    out = rine_cache("dataset", "add", "mine", path).out
    assert out.startswith("layout table: 8 of 8 images have a place in it\n")
    assert added(out) == {"mine": {"root": "table/images.csv", "layout": "table"}}


@pytest.mark.parametrize(
    ("build", "layout"),
    [(container_twins.webdataset, "webdataset"), (container_twins.parquet_folder, "parquet")],
)
def test_images_inside_files_are_recognised(
    rine_cache: RineCache,
    build: Callable[[Path], Path],
    layout: str,
) -> None:
    out = rine_cache("dataset", "add", "mine", build(Path("root"))).out
    assert out.startswith(f"layout {layout}: ")
    assert added(out) == {"mine": {"root": "root", "layout": layout}}


def test_one_class_without_label_folders_is_added_by_its_label(rine_cache: RineCache) -> None:
    twins.build(Path("photos"), [f"p{number}.jpg" for number in range(50)])
    message = refused(rine_cache("dataset", "add", "photos", "photos"))
    assert "found 50 under no label folder" in message
    assert message.endswith("say so: --label real or --label fake")
    out = rine_cache("dataset", "add", "photos", "photos", "--label", "real").out
    assert "warning: there are no fake images; a benchmark must pair it with another data set's" in out
    assert added(out) == {"photos": {"root": "photos", "layout": "folder", "label": "real"}}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone", "gone does not exist"),
        ("empty", "empty holds no image"),
        ("texts", "texts holds no image"),
        ("broken.csv", "broken.csv"),
        ("notes.txt", "notes.txt"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--label", "fake"), ("--config", "my.yaml")])
def test_what_holds_no_images_is_refused(
    rine_cache: RineCache,
    path: str,
    message: str,
    options: tuple[str, ...],
) -> None:
    Path("my.yaml").write_text(CONFIG)
    Path("empty").mkdir()
    twins.build(Path("texts"), ["0_real/a.txt", "1_fake/b.doc"])
    Path("broken.csv").write_text("a,b\n1,2\n")
    Path("notes.txt").write_text("no table")
    assert message in refused(rine_cache("dataset", "add", "mine", path, *options))
    assert Path("my.yaml").read_text() == CONFIG


@pytest.mark.parametrize("options", [(), ("--config", "my.yaml")])
@pytest.mark.parametrize("name", ["my data", "a/b", "größe"])
def test_a_name_that_files_could_not_have_is_refused_before_anything_is_listed(
    rine_cache: RineCache,
    folder: Path,
    name: str,
    options: tuple[str, ...],
) -> None:
    assert f"{name!r} cannot name a data set" in refused(rine_cache("dataset", "add", name, folder, *options))


def test_lines_are_inserted_in_a_configuration(rine_cache: RineCache, folder: Path) -> None:
    answer = rine_cache("dataset", "add", "mine", folder, "--config", "my.yaml")
    assert answer.status == 0
    assert answer.out.splitlines()[-2:] == [
        "added to my.yaml and my-benchmarks/mine.yaml",
        "to see what it will run: snakemake --configfile my.yaml -n",
    ]
    lines = Path("my.yaml").read_text().splitlines()
    where = lines.index("  mine:")
    assert lines[where : where + 3] == ["  mine:", "    root: data/mine", "    layout: folder"]
    assert lines[:where] + lines[where + 3 : -3] == CONFIG.splitlines()
    assert lines[-3:] == ["", "benchmarks:", "- my-benchmarks/mine.yaml"]


def test_each_generator_is_tested_by_itself(rine_cache: RineCache, folder: Path) -> None:
    rine_cache("dataset", "add", "mine", folder, "--config", "my.yaml")
    benchmark = load_benchmarks(load_config(Path("my.yaml")), Path())["mine"]
    assert {name: test_set.fake.subsets for name, test_set in benchmark.test_sets.items()} == {
        "flux": ("flux",),
        "sd3": ("sd3",),
    }
    assert benchmark.sources() == {("center224", "mine")}
    assert rine_cache("config", "check", "my.yaml").status == 0


def test_one_generator_is_tested_without_a_file(rine_cache: RineCache, folder: Path) -> None:
    shutil.rmtree(folder / "1_fake" / "flux")
    answer = rine_cache("dataset", "add", "mine", folder, "--config", "my.yaml")
    assert "\nadded to my.yaml\n" in answer.out
    config = load_config(Path("my.yaml"))
    assert config.benchmarks == ()
    assert list(load_benchmarks(config, Path())["mine"].test_sets) == ["mine"]


def test_the_name_that_a_benchmark_asks_for_is_tested_by_that(rine_cache: RineCache) -> None:
    twins.build(Path("GenImage"), twins.genimage(True, ["adm", "glide"], ["val"]))
    theirs = Path(__file__).parent.parent / "config" / "benchmarks" / "genimage.yaml"
    Path("my.yaml").write_text(f"{CONFIG}benchmarks:\n  - {theirs}\n")
    answer = rine_cache("dataset", "add", "genimage", "GenImage", "--config", "my.yaml")
    assert "\nadded to my.yaml\n" in answer.out
    assert not Path("benchmarks").exists()
    assert list(load_benchmarks(load_config(Path("my.yaml")), Path())) == ["genimage", "known"]


def test_what_cannot_be_added_leaves_all_as_it_was(rine_cache: RineCache, folder: Path) -> None:
    add = ("dataset", "add", "mine", folder, "--config", "my.yaml")
    assert "already" in refused(rine_cache("dataset", "add", "known", folder, "--config", "my.yaml"))
    assert "cannot read gone.yaml" in refused(rine_cache(*add[:-1], "gone.yaml"))
    Path("my.yaml").write_text(CONFIG + "...\n")
    answer = rine_cache(*add)
    assert answer.status == 2
    assert "add this by hand" in answer.err
    assert "datasets:\n  mine:\n    root: data/mine" in answer.err
    Path("my.yaml").write_text(CONFIG)
    twins.build(Path(), ["my-benchmarks/mine.yaml"])
    answer = rine_cache(*add)
    assert (answer.status, "added" in answer.out) == (2, False)
    assert "my-benchmarks/mine.yaml is there already; choose another name for the data set, or delete it" in answer.err
    assert Path("my.yaml").read_text() == CONFIG
    assert Path("my-benchmarks/mine.yaml").read_bytes() == b"abc"


# layouts, list, check


def test_every_layout_is_told(rine_cache: RineCache) -> None:
    lines = rine_cache("dataset", "layouts").out.splitlines()
    assert [line.split()[0] for line in lines] == ["layout", *LAYOUTS]
    assert all(len(line.split()) > 2 for line in lines[1:])


def manifest(rine_cache: RineCache, name: str, root: Path) -> None:
    assert rine_cache("manifest", root, "--out", f"results/manifests/{name}.parquet").status == 0


def test_the_list_says_what_is_here_what_was_listed_and_where_to_get_the_rest(
    rine_cache: RineCache,
    folder: Path,
) -> None:
    rine_cache("dataset", "add", "mine", folder, "--config", "my.yaml")
    manifest(rine_cache, "mine", folder)
    lines = [words(line) for line in rine_cache("dataset", "list", "--config", "my.yaml").out.splitlines()]
    assert lines == [
        "data set state layout images listed root where to get it",
        "known missing folder data/known https://example.org/known",
        "mine here folder 120 data/mine",
    ]


def test_the_list_says_what_came_since(rine_cache: RineCache) -> None:
    root = twins.build(Path("GenImage"), twins.genimage(True, ["adm"], ["val"]))
    Path("my.yaml").write_text(CONFIG)
    rine_cache("dataset", "add", "mine", root, "--config", "my.yaml")
    assert rine_cache("manifest", root, "--layout", "genimage", "--out", "results/manifests/mine.parquet").status == 0
    assert "not listed yet" not in rine_cache("dataset", "list", "--config", "my.yaml").out
    twins.build(root, twins.genimage(True, ["glide"], ["val"]))
    header, _, mine = rine_cache("dataset", "list", "--config", "my.yaml").out.splitlines()
    assert mine[header.index("not listed yet") :].startswith("glide ")


def test_a_check_passes_where_all_is_as_it_was_listed(rine_cache: RineCache, folder: Path) -> None:
    rine_cache("dataset", "add", "mine", folder, "--config", "my.yaml")
    answer = rine_cache("dataset", "check", "mine", "--config", "my.yaml")
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.startswith("mine: data/mine (folder)\n")
    assert answer.out.endswith("not listed by the pipeline yet\n\n")
    manifest(rine_cache, "mine", folder)
    answer = rine_cache("dataset", "check", "mine", "--config", "my.yaml")
    assert answer.status == 0
    assert answer.out.endswith("as the pipeline listed it\n\n")


def test_a_check_counts_what_changed_and_says_how_to_list_it_again(rine_cache: RineCache, folder: Path) -> None:
    rine_cache("dataset", "add", "mine", folder, "--config", "my.yaml")
    manifest(rine_cache, "mine", folder)
    twins.build(folder, ["1_fake/sd3/new.jpg", "1_fake/sd3/newer.jpg"])
    (folder / "0_real/coco/r0.jpg").write_bytes(b"another size")
    (folder / "0_real/coco/r1.jpg").unlink()
    answer = rine_cache("dataset", "check", "mine", "--config", "my.yaml")
    assert answer.status == 0
    assert "since the pipeline listed it: 3 images new or changed, 2 gone or changed; to list it again:\n" in answer.out
    assert "  snakemake --configfile my.yaml --forcerun results/manifests/mine.parquet\n" in answer.out


def test_a_check_fails_for_what_is_missing_and_goes_on(rine_cache: RineCache, folder: Path) -> None:
    Path("empty").mkdir()
    Path("my.yaml").write_text(CONFIG.replace("training_sets", "  hollow: {root: empty}\ntraining_sets", 1))
    rine_cache("dataset", "add", "mine", folder, "--config", "my.yaml")
    answer = rine_cache("dataset", "check", "--config", "my.yaml")
    assert answer.status == 1
    assert "known: data/known (folder)\nmissing; get it from https://example.org/known\n\n" in answer.out
    assert "hollow: empty (folder)\ncannot be listed: empty holds no image" in answer.out
    assert answer.out.endswith("not listed by the pipeline yet\n\n")


@pytest.mark.parametrize("path", ["elsewhere/a.png", "GenImage/sora/val/ai/a.png"])
def test_a_check_fails_for_images_without_a_place(rine_cache: RineCache, path: str) -> None:
    root = twins.build(Path("GenImage"), twins.genimage())
    Path("my.yaml").write_text(CONFIG)
    rine_cache("dataset", "add", "mine", root, "--config", "my.yaml")
    check = ("dataset", "check", "mine", "--config", "my.yaml")
    assert rine_cache(*check).status == 0
    twins.build(root, [path])
    answer = rine_cache(*check)
    assert answer.status == 1
    assert "UNEXPECTED" in answer.out


def test_a_check_fails_for_a_subset_that_is_missing(rine_cache: RineCache) -> None:
    root = twins.build(Path("GenImage"), twins.genimage(generators=["adm"]))
    settings = f"  mine: {{root: {root}, layout: genimage, subsets: [adm, glide]}}\ntraining_sets"
    Path("my.yaml").write_text(CONFIG.replace("training_sets", settings, 1))
    answer = rine_cache("dataset", "check", "mine", "--config", "my.yaml")
    assert answer.status == 1
    assert re.search(r"^MISSING +glide +train +real +0$", answer.out, flags=re.MULTILINE)
    assert "wukong" not in answer.out


def test_images_that_are_gone_are_said_to_be_usable_still(rine_cache: RineCache, folder: Path) -> None:
    rine_cache("dataset", "add", "mine", folder, "--config", "my.yaml")
    manifest(rine_cache, "mine", folder)
    shutil.rmtree(folder)
    answer = rine_cache("dataset", "check", "mine", "--config", "my.yaml")
    assert answer.status == 1
    assert "\nmissing; 120 images were listed, and their caches stay usable\n" in answer.out


def test_what_the_pipeline_makes_is_not_missing_before_it_has(rine_cache: RineCache) -> None:
    Path("my.yaml").write_text(CONFIG.replace("root: data/known", "root: data/known, requires: made.json"))
    answer = rine_cache("dataset", "check", "--config", "my.yaml")
    assert (answer.status, answer.out.splitlines()[1]) == (0, "not there yet; made by the pipeline, with made.json")


def test_an_unknown_name_is_refused(rine_cache: RineCache) -> None:
    Path("my.yaml").write_text(CONFIG)
    message = refused(rine_cache("dataset", "check", "knwon", "--config", "my.yaml"))
    assert message == "data set 'knwon' is not defined in my.yaml; did you mean 'known'? allowed: known"
