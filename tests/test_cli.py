from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import h5py
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from rine_cache.cli.main import COMMANDS, cli
from rine_cache.leaderboard import read_leaderboard
from tests.conftest import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Answer, MadeCache

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "open_clip", "h5py", "polars", "pyarrow", "cv2", "scipy", "sklearn", "PIL", "snakemake")


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Walk over every command that does something, with its full name."""
    with click.Context(cli) as context:
        for name in COMMANDS:
            command = cli.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from (((name, inner), found) for inner, found in command.commands.items())
            else:
                yield (name,), command


ALL_COMMANDS = dict(commands())


def example_of(command: click.Command) -> list[str]:
    """Return the words of the example in a command's help, but for where its output goes."""
    _, _, example = (command.help or "").partition("Example:")
    return shlex.split(re.sub(r"\\+\n|>.*", " ", example))


@pytest.mark.parametrize("name", ALL_COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(name: tuple[str, ...], rine_cache: Callable[..., Answer]) -> None:
    answer = rine_cache(*name, "--help")
    assert answer.status == 0
    assert f"Usage: rine-cache {' '.join(name)} " in answer.out
    assert "Example:" in answer.out
    assert f"rine-cache {' '.join(name)} " in " ".join(answer.out.partition("Example:")[2].split())


@pytest.mark.parametrize("name", ALL_COMMANDS, ids=" ".join)
def test_examples_can_be_copied_from_the_help(name: tuple[str, ...], rine_cache: Callable[..., Answer]) -> None:
    shown = rine_cache(*name, "--help").out
    assert "\\b" not in shown
    assert re.search(rf"Example:\n    rine-cache {' '.join(name)}\s", shown)
    assert "\\\\" not in shown


@pytest.mark.parametrize("name", ALL_COMMANDS, ids=" ".join)
def test_every_example_has_the_options_and_arguments_its_command_takes(name: tuple[str, ...]) -> None:
    command = ALL_COMMANDS[name]
    words = example_of(command)
    assert words[: len(name) + 1] == ["rine-cache", *name]
    command.make_context(" ".join(name), words[len(name) + 1 :])  # raises where one is unknown or missing


def test_every_option_says_what_it_is_for() -> None:
    silent = [
        f"{' '.join(name)} {option.opts[0]}"
        for name, command in ALL_COMMANDS.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    # These list their values, or stand beside a default that says it.
    allowed = {"extract --tap", "extract --precision", "leaderboard show --file", "leaderboard show --config"}
    assert set(silent) <= allowed


def test_the_groups_help_names_every_command(rine_cache: Callable[..., Answer]) -> None:
    answer = rine_cache("--help")
    assert answer.status == 0
    assert [line.split()[0] for line in answer.out.split("Commands:\n")[1].splitlines()] == list(COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), *((*name, "--help") for name in ALL_COMMANDS)],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...], imported_for_help: dict[str, list[str]]) -> None:
    assert imported_for_help[" ".join(arguments)] == []


@pytest.fixture(scope="module")
def imported_for_help() -> dict[str, list[str]]:
    """In a fresh process, ask for help of everything; tell after each what heavy packages are imported."""
    script = f"""
import json, sys
from rine_cache.cli.main import cli
found = {{}}
for arguments in json.loads(sys.argv[1]):
    cli.main(arguments, prog_name="rine-cache", standalone_mode=False)
    found[" ".join(arguments)] = [name for name in {HEAVY!r} if name in sys.modules]
print("\\n" + json.dumps(found))
"""
    questions = [["--help"], ["--version"], *([*name, "--help"] for name in ALL_COMMANDS)]
    command = [sys.executable, "-c", script, json.dumps(questions)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    found: dict[str, list[str]] = json.loads(output.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("written", "meant"),
    [("extrct", "extract"), ("leader-board", "leaderboard"), ("Verify", "verify"), ("eval", "evaluate")],
)
def test_an_unknown_command_is_refused_with_the_nearest(
    written: str, meant: str, rine_cache: Callable[..., Answer]
) -> None:
    answer = rine_cache(written)
    assert answer.status == 2
    assert f"Error: no command {written!r}; did you mean {meant!r}? allowed: ablate, config, dataset, " in answer.err


def test_an_unknown_subcommand_is_refused_with_the_nearest(rine_cache: Callable[..., Answer]) -> None:
    answer = rine_cache("leaderboard", "shwo")
    assert answer.status == 2
    assert "Did you mean 'show'?" in answer.err


def test_a_missing_option_is_named(rine_cache: Callable[..., Answer]) -> None:
    answer = rine_cache("manifest", "images")
    assert answer.status == 2
    assert "Missing option '--out'" in answer.err


def test_the_installed_command_shows_an_error_as_one_message_without_a_traceback(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("rine-cache")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "rine_cache"]
    ended = subprocess.run(
        [*command, "manifest", "nowhere", "--out", "m.parquet"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: nowhere does not exist; set the data set's root to where its images lie\n"


MISTAKES: dict[str, tuple[list[str], str]] = {
    "manifest of a missing folder": (["manifest", "nowhere", "--out", "m.parquet"], "nowhere does not exist"),
    "manifest of an empty folder": (
        ["manifest", ".", "--out", "m.parquet"],
        "holds no image in the layout 'folder' (any folder with label folders (0_real|1_fake, ",
    ),
    "manifest in an unknown layout": (
        ["manifest", ".", "--out", "m.parquet", "--layout", "fodler"],
        "layout: did you mean 'folder'? allowed: ",
    ),
    "manifest with a broken pattern": (
        ["manifest", ".", "--out", "m.parquet", "--group-pattern", "("],
        "group_pattern '(' is not a regular expression",
    ),
    "info on a missing cache": (["info", "nowhere.h5"], "no cache at nowhere.h5"),
    "info on a missing manifest": (["info", "nowhere.parquet"], "no file at nowhere.parquet; `rine-cache info` takes"),
    "info on a missing head": (["info", "nowhere.safetensors"], "cannot read the head nowhere.safetensors"),
    "info on something else": (["info", "notes.txt"], "has the ending '.txt'; allowed: .h5, .parquet, .safetensors"),
    "leaderboard show without one": (["leaderboard", "show"], "results/leaderboard.parquet is not a leaderboard"),
    "leaderboard of missing metrics": (
        ["leaderboard", "build", "--metrics", "nowhere.parquet", "--out", "l.parquet"],
        "nowhere.parquet is not a file of metrics",
    ),
    "leaderboard of missing numbers": (
        ["leaderboard", "build", "--published", "nowhere.csv", "--out", "l.parquet"],
        "cannot read the published numbers nowhere.csv",
    ),
    "leaderboard of a missing benchmark": (
        ["leaderboard", "build", "--benchmark", "nowhere.yaml", "--out", "l.parquet"],
        "cannot read nowhere.yaml: No such file or directory",
    ),
    "config that is not there": (["config", "check", "nowhere.yaml"], "cannot read nowhere.yaml"),
    "evaluate with broken JSON": (
        ["evaluate", '{"encoder": ', "--name", "x", "--encoder", "{}", "--out", "m.parquet"],
        "the JSON argument does not parse: ",
    ),
    "evaluate with an unknown key": (
        ["evaluate", '{"seed": 1}', "--name", "x", "--encoder", "{}", "--out", "m.parquet"],
        "unknown key 'seed'; did you mean 'seeds'?",
    ),
    "sample with an unknown key": (["sample", '{"rot": "data"}'], "unknown key 'rot'; did you mean 'root'?"),
    "score with a missing cache": (
        [
            "score",
            "--heads",
            "h",
            "--features",
            "c.h5",
            "--manifest",
            "m.parquet",
            "--dataset",
            "d",
            "--out",
            "s.parquet",
        ],
        "no cache at c.h5",
    ),
    "train with an empty experiment": (
        ["train", "{}", "--train", "c.h5", "m.parquet", "--validation", "c.h5", "m.parquet", "--out", "heads"],
        "encoder: Field required",
    ),
    "predict without the head": (["predict", "a.jpg", "--head", "nowhere.safetensors"], "cannot read the head nowhere"),
    "predict with an authors' file": (
        ["predict", "a.jpg", "--head", "nowhere.pth"],
        "convert an authors' .pth with `rine-cache head import`",
    ),
    "import of a missing head": (
        ["head", "import", "nowhere.pth", "--out", "h.safetensors"],
        "cannot read nowhere.pth",
    ),
    "export of a missing head": (["head", "export", "nowhere", "--out", "h.pth"], "cannot read the head nowhere"),
    "extract of a missing manifest": (
        ["extract", "nowhere.parquet", "--out", "c.h5"],
        "no manifest at nowhere.parquet",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_users_error_is_one_message_and_exit_status_2(mistake: str, rine_cache: Callable[..., Answer]) -> None:
    arguments, expected = MISTAKES[mistake]
    assert expected in refused(rine_cache(*arguments))
    assert list(Path.cwd().iterdir()) == []


@pytest.fixture
def files(rine_cache: Callable[..., Answer], make_cache: Callable[..., MadeCache]) -> MadeCache:
    """Put files into the empty folder that are not what their names promise."""
    made = make_cache(per_class=2)
    Path("file").write_text("not a folder")
    Path("junk.pth").write_text("junk")
    Path("junk.safetensors").write_text("junk")
    schema = pa.schema([("logit", pa.float32())], metadata={"rine_cache": '{"dataset": "d"}'})
    pq.write_table(schema.empty_table(), "scores.parquet")
    return made


EXPERIMENT = json.dumps({"encoder": "e", "training_set": "t", "methods": {"RINE": {"head": {"kind": "rine"}}}})
TWO_PARTS = [{"dataset": "a", "view": "center224"}, {"dataset": "b", "view": "center224"}]
# Each is a mistake that a user can make and that ends in a traceback so far.
TRACEBACKS: dict[str, list[str]] = {
    "output below a file": ["leaderboard", "build", "--out", "file/l.parquet"],
    "log below a file": ["leaderboard", "build", "--out", "l.parquet", "--log", "file/l.log"],
    "info on scores": ["info", "scores.parquet"],
    "evaluate with a manifest for scores": [
        *("evaluate", EXPERIMENT, "--name", "x", "--encoder", '{"architecture": "a", "weights": "b"}'),
        *("--scores", "MANIFEST", "--out", "metrics.parquet"),
    ],
    "training set of more parts than pairs": [
        *("train", EXPERIMENT, "--train", "FEATURES", "MANIFEST", "--validation", "FEATURES", "MANIFEST"),
        *("--training-set", json.dumps({"train": TWO_PARTS, "validation": TWO_PARTS[:1]}), "--out", "heads"),
    ],
    "import of junk": ["head", "import", "junk.pth", "--out", "head.safetensors"],
    "weights that are junk": [
        *("extract", "MANIFEST", "--out", "c.h5", "--architecture", "ViT-S-32", "--weights", "junk.safetensors"),
    ],
}


@pytest.mark.parametrize("mistake", TRACEBACKS)
def test_a_users_error_ends_in_no_traceback(mistake: str, files: MadeCache, rine_cache: Callable[..., Answer]) -> None:
    paths = {"MANIFEST": files.manifest_path, "FEATURES": files.features}
    refused(rine_cache(*(paths.get(word, word) for word in TRACEBACKS[mistake])))


@pytest.fixture
def manifest_path(make_images: Callable[..., Path], rine_cache: Callable[..., Answer], tmp_path: Path) -> Path:
    """List three images of each class with the command."""
    root, path = make_images(per_class=3), tmp_path / "three.parquet"
    assert rine_cache("manifest", root, "--out", path).status == 0
    return path


WRONG_EXTRACTIONS: dict[str, tuple[list[str], str]] = {
    "architecture": (
        ["--architecture", "ViT-B-16-quickgeul", "--weights", "random"],
        "architecture 'ViT-B-16-quickgeul' is not one of open_clip's; did you mean 'ViT-B-16-quickgelu'? allowed: ",
    ),
    "a ResNet": (["--architecture", "RN50", "--weights", "random"], "architecture 'RN50' is a ResNet"),
    "weights": (
        ["--architecture", "ViT-B-16-quickgelu", "--weights", "opnai"],
        "weights 'opnai' are neither a file nor a tag of ViT-B-16-quickgelu; did you mean 'openai'? allowed: ",
    ),
    "activation": (["--architecture", "ViT-B-16", "--weights", "openai"], "set architecture: ViT-B-16-quickgelu"),
    "view": (
        ["--architecture", "ViT-S-32", "--weights", "random", "--view", "center225"],
        "view: 'center225' is not built in; did you mean 'center224'? allowed: blur0.5, ",
    ),
    "view as JSON": (
        ["--architecture", "ViT-S-32", "--weights", "random", "--view", '{"kind": "centre"}'],
        "  view.kind: did you mean 'center'? allowed: center, patches, perturbed, tencrop, train; found 'centre'",
    ),
    "precision": (["--precision", "float64"], "found 'float64'"),
    "workers": (["--workers", "0"], "--workers is 0; at least 1 process must decode"),
    "batch size": (["--batch-size", "0"], "batch_size: Input should be greater than or equal to 1; found 0"),
    "device": (
        ["--architecture", "ViT-S-32", "--weights", "random", "--device", "gpu"],
        "device 'gpu' is not on this machine; allowed here: ",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_EXTRACTIONS)
def test_a_wrong_extraction_is_refused_before_anything_is_written(
    wrong: str, manifest_path: Path, rine_cache: Callable[..., Answer]
) -> None:
    arguments, expected = WRONG_EXTRACTIONS[wrong]
    assert expected in refused(rine_cache("extract", manifest_path, "--out", "c.h5", *arguments))
    assert list(Path.cwd().iterdir()) == []


def test_an_unknown_tap_is_refused_with_what_is_allowed(rine_cache: Callable[..., Answer]) -> None:
    answer = rine_cache("extract", "m.parquet", "--out", "c.h5", "--tap", "ln2")
    assert answer.status == 2
    assert "'ln2' is not one of 'ln_2', 'block'" in answer.err


def test_config_check_of_the_default_config_says_what_is_there(
    rine_cache: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    answer = rine_cache("config", "check")
    assert (answer.status, answer.err) == (0, "")
    first, *others = answer.out.splitlines()
    assert first == "config/config.yaml is valid: 1 experiments, 7 benchmarks, 1 ablations"
    assert [line.split(":")[0] for line in others] == [
        *("data set sample-train", "data set sample-validation", "data set sample-test", "ablation sample-blocks")
    ]


def test_config_check_tells_data_sets_that_are_here_from_missing_ones(
    rine_cache: Callable[..., Answer], make_images: Callable[..., Path]
) -> None:
    root = make_images(per_class=1)
    config = {
        "encoders": {},
        "training_sets": {},
        "experiments": {},
        "datasets": {"here": {"root": str(root)}, "gone": {"root": "nowhere"}, "made": {"root": "x", "requires": "y"}},
    }
    Path("config.yaml").write_text(json.dumps(config))
    assert rine_cache("config", "check", "config.yaml").out.splitlines() == [
        "config.yaml is valid: 0 experiments, 3 benchmarks",
        f"data set here: here ({root})",
        "data set gone: missing (nowhere)",
        "data set made: made by the pipeline (x)",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("encoders: {}\nexperiments: [\n", "broken.yaml is not valid YAML: "),
        ("encodrs: {}\n", "(top level): unknown key 'encodrs'; did you mean 'encoders'? allowed: "),
        ("", "broken.yaml is not valid:\n  (top level): "),
    ],
)
def test_config_check_of_a_broken_file_names_what_is_wrong(
    text: str, expected: str, rine_cache: Callable[..., Answer]
) -> None:
    Path("broken.yaml").write_text(text)
    assert expected in refused(rine_cache("config", "check", "broken.yaml"))


def test_manifest_lists_what_it_found(manifest_path: Path, rine_cache: Callable[..., Answer]) -> None:
    facts = json.loads(rine_cache("info", manifest_path, "--json").out)
    assert (facts["kind"], facts["images"]) == ("manifest", 9)
    assert facts["counts"] == {"real real": 3, "fake gen-a": 3, "fake gen-b": 3}


def test_messages_go_to_the_log_file_too(rine_cache: Callable[..., Answer], make_images: Callable[..., Path]) -> None:
    answer = rine_cache("manifest", make_images(per_class=2), "--out", "m.parquet", "--log", "logs/manifest.log")
    assert answer.out == ""
    logged = [line.split(" ", 3)[3] for line in Path("logs/manifest.log").read_text().splitlines()]
    assert logged == answer.err.splitlines()
    assert "found  gen-a   fake   2" in logged


def test_an_error_goes_to_the_log_file_too(rine_cache: Callable[..., Answer]) -> None:
    refused(rine_cache("manifest", "nowhere", "--out", "m.parquet", "--log", "manifest.log"))
    (line,) = Path("manifest.log").read_text().splitlines()
    assert line.split(" ", 2)[2].startswith("ERROR nowhere does not exist")


def flip_a_byte(path: Path, dataset: str) -> None:
    with h5py.File(path, "r", locking=False) as file:
        offset = file[dataset].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_verify_of_whole_caches_succeeds(
    make_cache: Callable[..., MadeCache], rine_cache: Callable[..., Answer]
) -> None:
    paths = [make_cache(name, per_class=2).features for name in ("one", "two")]
    answer = rine_cache("verify", *paths)
    assert answer == (0, "".join(f"{path}: whole\n" for path in paths), "")


@pytest.mark.parametrize(
    ("dataset", "part"), [("features", "block 0"), ("embedding", "embedding"), ("content_sha256", "row tables")]
)
def test_verify_names_the_damaged_part_of_a_flipped_cache_and_fails(
    dataset: str, part: str, make_cache: Callable[..., MadeCache], rine_cache: Callable[..., Answer]
) -> None:
    whole, damaged = (make_cache(name, per_class=2).features for name in ("whole", "damaged"))
    flip_a_byte(damaged, dataset)
    answer = rine_cache("verify", whole, damaged)
    assert answer.status == 1
    said = f"{damaged} is damaged: slab 0 ({part}); delete {damaged} and extract it again, by "
    assert answer.out.startswith(f"{whole}: whole\n{damaged}: not whole: {said}")
    assert "1 of 2 are not whole" in answer.err


def test_verify_of_a_cut_cache_fails(make_cache: Callable[..., MadeCache], rine_cache: Callable[..., Answer]) -> None:
    path = make_cache(per_class=2).features
    path.write_bytes(path.read_bytes()[:-100])
    answer = rine_cache("verify", path)
    assert answer.status == 1
    assert f"{path}: not whole: " in answer.out


def test_info_of_a_cache(make_cache: Callable[..., MadeCache], rine_cache: Callable[..., Answer]) -> None:
    made = make_cache(per_class=2)
    facts = json.loads(rine_cache("info", made.features, "--json").out)
    expected = {"kind": "sealed cache", "images": 6, "quarantined": {}, "blocks": 3, "draws": 1, "width": 8}
    assert {name: facts[name] for name in expected} == expected
    assert (facts["embedding width"], facts["tap"], facts["batch_size"]) == (5, "ln_2", 4)
    assert facts["view"]["kind"] == "center"
    assert facts["encoder"]["architecture"] == "stand-in"
    assert facts["manifest digest"] == made.manifest.listing_digest
    lines = rine_cache("info", made.features).out.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(facts)
    assert f"manifest digest       {made.manifest.listing_digest}" in lines
    assert "images                6" in lines


def test_info_counts_quarantined_images_by_reason(
    make_images: Callable[..., Path], tmp_path: Path, rine_cache: Callable[..., Answer]
) -> None:
    from rine_cache.extract import Target, extract
    from rine_cache.manifest import read_manifest
    from tests.conftest import CENTER, StandInEncoder

    root = make_images(per_class=2)
    (root / "0_real" / "000.png").write_bytes(b"")
    (root / "0_real" / "001.png").write_bytes(b"text")
    manifest, features = tmp_path / "m.parquet", tmp_path / "c.h5"
    assert rine_cache("manifest", root, "--out", manifest).status == 0
    extract(read_manifest(manifest), [Target(StandInEncoder(), "ln_2", CENTER, features)], workers=1)
    assert json.loads(rine_cache("info", features, "--json").out)["quarantined"] == {"empty": 1, "not_an_image": 1}


def test_info_of_a_manifest(make_cache: Callable[..., MadeCache], rine_cache: Callable[..., Answer]) -> None:
    made = make_cache(per_class=2)
    facts = json.loads(rine_cache("info", made.manifest_path, "--json").out)
    assert facts == {
        "kind": "manifest",
        "images": 6,
        "root": str(made.manifest.root),
        "digest": made.manifest.digest,
        "counts": {"real real": 2, "fake gen-a": 2, "fake gen-b": 2},
    }
    assert rine_cache("info", made.manifest_path).out.splitlines() == [
        "kind    manifest",
        "images  6",
        f"root    {made.manifest.root}",
        f"digest  {made.manifest.digest}",
        'counts  {"real real": 2, "fake gen-a": 2, "fake gen-b": 2}',
    ]


def test_info_of_a_head(
    make_cache: Callable[..., MadeCache], tmp_path: Path, rine_cache: Callable[..., Answer]
) -> None:
    from rine_cache.cache import FeatureCache
    from rine_cache.features import feature_identity
    from rine_cache.heads.head import Head, HeadCard, build_network, save_head
    from rine_cache.specs.training import LinearHeadSpec

    identity = feature_identity(FeatureCache(make_cache(per_class=1).features))
    spec = LinearHeadSpec(kind="linear")
    card = HeadCard(method="UnivFD", seed=3, head=spec, features=identity, training_set="progan")
    path = tmp_path / "head.safetensors"
    save_head(Head(card, build_network(spec, identity)), path)
    facts = json.loads(rine_cache("info", path, "--json").out)
    expected = {"kind": "head", "trainable parameters": 6, "method": "UnivFD", "seed": 3, "training_set": "progan"}
    assert {name: facts[name] for name in expected} == expected
    assert facts["head"] == {"kind": "linear"}
    assert facts["features"]["encoder"]["architecture"] == "stand-in"
    lines = rine_cache("info", path).out.splitlines()
    assert "method                UnivFD" in lines
    assert "trainable parameters  6" in lines


def test_the_commands_from_caches_to_a_leaderboard(
    make_cache: Callable[..., MadeCache], rine_cache: Callable[..., Answer]
) -> None:
    """What the workflow's rules call, in their order, on tiny caches."""
    train, validation, test = (make_cache(name, per_class=8, seed=seed) for seed, name in enumerate(("a", "b", "c")))
    experiment = {
        "encoder": "stand-in",
        "training_set": "tiny",
        "seeds": [0, 1],
        "training": {"epochs": 2, "batch_size": 8},
        "methods": {
            "RINE": {"head": {"kind": "rine", "width": 4}},
            "UnivFD": {"head": {"kind": "linear"}, "training": {"xi": 0}},
        },
    }
    Path("experiment.yaml").write_text(json.dumps(experiment))
    source = {"dataset": "c"}
    benchmark = {
        "name": "tiny",
        "title": "Tiny",
        "test_sets": {name: {"real": source, "fake": {**source, "subsets": [name]}} for name in ("gen-a", "gen-b")},
        "protocols": {"both": {"test_sets": ["gen-a", "gen-b"], "headline": ["auc", "acc"]}},
    }
    Path("tiny.yaml").write_text(json.dumps(benchmark))
    pairs = [
        "--train",
        train.features,
        train.manifest_path,
        "--validation",
        validation.features,
        validation.manifest_path,
    ]
    assert rine_cache("train", "experiment.yaml", *pairs, "--out", "heads", "--device", "cpu").status == 0
    assert sorted(str(path) for path in Path("heads").rglob("*.safetensors")) == [
        f"heads/{method}/seed{seed}.safetensors" for method in ("RINE", "UnivFD") for seed in (0, 1)
    ]
    scored = ["--features", test.features, "--manifest", test.manifest_path, "--dataset", "c", "--out", "s.parquet"]
    assert rine_cache("score", "--heads", "heads", *scored, "--device", "cpu").status == 0
    encoder = '{"architecture": "ViT-L-14-quickgelu", "weights": "openai"}'
    arguments = ["--name", "mine", "--encoder", encoder, "--benchmark", "tiny.yaml", "--scores", "s.parquet"]
    assert rine_cache("evaluate", "experiment.yaml", *arguments, "--out", "metrics.parquet").status == 0
    built = ["--metrics", "metrics.parquet", "--benchmark", "tiny.yaml", "--out", "l.parquet"]
    built += ["--markdown", "l.md", "--csv", "l.csv"]
    assert rine_cache("leaderboard", "build", *built).status == 0
    table = read_leaderboard(Path("l.parquet"))
    assert_frame_equal(pl.read_csv("l.csv", schema=table.schema), table, abs_tol=1e-12)

    config = {"encoders": {}, "training_sets": {}, "experiments": {}, "benchmarks": ["tiny.yaml"]}
    Path("config.yaml").write_text(json.dumps(config))
    shown = rine_cache("leaderboard", "show", "--file", "l.parquet", "--config", "config.yaml")
    assert shown.status == 0
    assert shown.out.rstrip("\n") == Path("l.md").read_text().rstrip("\n")
    lines = [line for line in shown.out.splitlines() if line.startswith("|") and " measured " in line]
    assert {line.split("|")[2].strip() for line in lines} == {"RINE", "UnivFD"}
    assert all(" 2/2 " in line and " 8 + 16 " in line for line in lines)

    show = ["leaderboard", "show", "--file", "l.parquet", "--config", "config.yaml", "--benchmark"]
    assert "### both: mean of 2 test sets" in rine_cache(*show, "tiny").out
    assert "benchmark 'tinny' is not in l.parquet; did you mean 'tiny'?" in refused(rine_cache(*show, "tinny"))


def test_a_head_of_another_architecture_is_refused_when_it_is_imported(rine_cache: Callable[..., Answer]) -> None:
    official = Path(__file__).parent / "data" / "model_2class_trainable.pth"
    answer = rine_cache("head", "import", official, "--out", "x.safetensors", "--architecture", "ViT-B-16-quickgelu")
    assert "24 blocks of width 1024, but ViT-B-16-quickgelu has 12 of width 768; give --architecture" in refused(answer)
    assert not Path("x.safetensors").exists()


def test_a_listing_whose_images_are_gone_stays_only_for_who_asks_for_the_same(
    rine_cache: Callable[..., Answer], make_images: Callable[..., Path]
) -> None:
    root = make_images(per_class=2)
    options = ("manifest", root, "--out", "m.parquet", "--subset", "gen-a")
    assert rine_cache(*options).status == 0
    before = Path("m.parquet").read_bytes()
    root.rename(root.with_name("away"))
    assert "stays as it is" in rine_cache(*options).err
    other = refused(rine_cache(*options, "--subset", "gen-b"))
    assert "was listed otherwise" in other
    assert "'subsets': ['gen-a', 'gen-b']" in other
    assert Path("m.parquet").read_bytes() == before


def test_a_table_that_is_gone_keeps_its_listing(rine_cache: Callable[..., Answer]) -> None:
    Path("images.csv").write_text("path,label\nmissing.png,fake\n")
    Path("missing.png").write_bytes(b"x")
    options = ("manifest", "images.csv", "--layout", "table", "--out", "m.parquet")
    assert rine_cache(*options).status == 0
    Path("images.csv").unlink()
    assert "stays as it is" in rine_cache(*options).err
