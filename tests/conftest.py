"""Fixtures shared by the tests: tiny images, a torch-free stand-in for the encoder, caches, the command line."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from rine_cache.cli.main import main
from rine_cache.extract import Target, extract
from rine_cache.layouts import list_images
from rine_cache.manifest import Manifest, build_manifest, write_manifest
from rine_cache.specs.data import DatasetSpec
from rine_cache.specs.encoding import CenterViewSpec, ViewSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 16  # pixels a side of the stand-in's input
CENTER = CenterViewSpec(kind="center", size=SIZE)
MOST_PROCESSES = 4  # each takes up to 2.5 GB, and the longest file of tests bounds what more would gain


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads these options
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite on several cores; files that were named, `-s` and `--pdb` in this process, as `-n 0` does.

    All tests of a file go to one process, for the sake of the fixtures that they share.
    """
    option = config.option
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    whole = all(Path(argument).is_dir() for argument in config.args)
    if option.numprocesses is None and whole and not (option.usepdb or option.trace or option.capture == "no"):
        option.numprocesses = min(_cores(), MOST_PROCESSES) if _cores() > 1 else 0
        option.dist = "loadfile"
        option.loadscopereorder = False  # the files that take longest have few tests, and would come last


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores among the processes: threads of all of them on every core mostly wait for each other."""
    processes = getattr(config.option, "numprocesses", None) or 1
    if processes > 1:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, str(max(1, _cores() // processes)))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Encoded(NamedTuple):
    tokens: dict[str, np.ndarray]
    embedding: np.ndarray


class Running(NamedTuple):
    encoded: Encoded

    def result(self) -> Encoded:
        return self.encoded


class StandInEncoder:
    """Encodes without torch: fixed random projections of the pixels, so that equal images have equal features."""

    def __init__(self, batch_size: int = 4, blocks: int = 3, width: int = 8, embedding: int = 5, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._weights = rng.normal(size=(blocks, SIZE * SIZE * 3, width)).astype(np.float32) / SIZE
        self._projection = rng.normal(size=(SIZE * SIZE * 3, embedding)).astype(np.float32) / SIZE
        self.identity: dict[str, Any] = {
            "architecture": "stand-in",
            "activation": "none",
            "weights_sha256": f"{seed:064d}",
            "image_size": SIZE,
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
        }
        self.compute_dtype = "float32"
        self.compiled = False
        self.batch_size = batch_size
        self.in_flight = 1
        self.device = "cpu"
        self.block_count = blocks
        self.width = width
        self.embedding_width = embedding
        self.image_size = SIZE
        self.passes = 0

    def new_batch(self) -> np.ndarray:
        return np.zeros((self.batch_size, SIZE, SIZE, 3), np.uint8)  # (B, S, S, 3)

    def start(self, crops: np.ndarray) -> Running:
        return Running(self.encode(crops))

    def encode(self, crops: np.ndarray) -> Encoded:
        assert crops.shape == (self.batch_size, SIZE, SIZE, 3), "batches have one fixed shape"
        self.passes += 1
        pixels = crops.reshape(self.batch_size, -1).astype(np.float32) / 255  # (B, S*S*3)
        tokens = np.einsum("bp,kpd->kbd", pixels, self._weights).astype(np.float16)  # (K, B, D)
        return Encoded({"ln_2": tokens, "block": tokens + 1}, (pixels @ self._projection).astype(np.float16))


@pytest.fixture
def encoder() -> StandInEncoder:
    return StandInEncoder()


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """Write `per_class` random PNGs per class below a folder; fakes are brighter, so that they can be learnt."""

    def make(name: str = "images", per_class: int = 10, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        root = tmp_path / name
        for folder, offset in (("0_real", 0), ("1_fake/gen-a", 60), ("1_fake/gen-b", 60)):
            for index in range(per_class):
                pixels = rng.integers(0, 190, (SIZE + 4, SIZE + 6, 3)) + offset
                path = root / folder / f"{index:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
        return root

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Train in one thread: small tensors gain nothing from more, and lose much on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Answer(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def restored_logger() -> Iterator[None]:
    """Leave the package's logger as Python makes it: every command sets it up, and what a test captures goes by it."""
    yield
    logger = logging.getLogger("rine_cache")
    for handler in logger.handlers:
        handler.close()
    logger.propagate, logger.handlers = True, []
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def rine_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """Run the command line in this process, in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["rine-cache", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int | None)
        return Answer(ended.value.code or 0, captured.out, captured.err)

    return run


def refused(answer: Answer) -> str:
    """Check that the answer is a refusal as they should be, and return its message."""
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.err
    return answer.err.removeprefix("error: ").rstrip("\n")


class MadeCache(NamedTuple):
    features: Path
    manifest_path: Path
    manifest: Manifest


@pytest.fixture
def make_cache(tmp_path: Path, make_images: Callable[..., Path]) -> Callable[..., MadeCache]:
    """Make a sealed cache of random images with the stand-in encoder, and its manifest."""

    def make(
        name: str = "images",
        per_class: int = 10,
        seed: int = 0,
        view: ViewSpec = CENTER,
        tap: str = "ln_2",
        encoder: StandInEncoder | None = None,
    ) -> MadeCache:
        root = make_images(name, per_class, seed)
        manifest = build_manifest(list_images(DatasetSpec(root=str(root))).table, root)
        manifest_path, features = tmp_path / f"{name}.parquet", tmp_path / f"{name}-{tap}.h5"
        write_manifest(manifest, manifest_path)
        extract(manifest, [Target(encoder or StandInEncoder(), tap, view, features)], workers=2)
        return MadeCache(features, manifest_path, manifest)

    return make
