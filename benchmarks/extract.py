"""Speed of extraction, end to end, against the forward pass alone and against the loop that everybody writes.

Run it as ``python benchmarks/extract.py``; ``--help`` lists what can be set. Timed in turn, in one run:

plain     the forward pass of open_clip's image tower with hooks on every block, on tensors in memory
own       the forward pass of rine_cache's encoder, on 8-bit crops in memory
decode    reading, decoding and cropping alone, in the worker processes that extraction uses
extract   end to end, from JPEG and PNG files on disk to a sealed cache
naive     the loop of the RINE authors' code: DataLoader, hooks, stack (no file is written)

A ratio is that of two speeds measured one after the other, in one round; its median over the rounds is printed with the
quartiles. Weights are random, as they do not change the time. With ``--device cuda`` it says as well how busy
nvidia-smi saw the GPU during `extract`.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import open_clip
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from rine_cache.cli.options import default_workers
from rine_cache.decoding import Decoder
from rine_cache.devices import resolve_device
from rine_cache.encoders import Encoder, load_encoder
from rine_cache.extract import BATCHES_AHEAD, ROWS_AHEAD_PER_WORKER, Target, extract
from rine_cache.layouts import list_images
from rine_cache.manifest import Manifest, build_manifest
from rine_cache.sample.photographs import crops
from rine_cache.specs.data import DatasetSpec
from rine_cache.specs.encoding import BUILTIN_VIEWS, CenterViewSpec, EncoderSpec

if TYPE_CHECKING:
    from collections.abc import Callable

PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def write_images(root: Path, count: int) -> None:
    """Write photographs of 512 x 384 pixels: every other one JPEG of quality 90, the others PNG."""
    photographs = [crop.pixels for part in ("train", "test") for crop in crops(part, 32, 256)]
    for number in range(count):
        folder = root / ("0_real" if number % 2 else "1_fake")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.roll(photographs[number % len(photographs)], number, axis=1)  # no two images are one
        image = Image.fromarray(pixels).resize((512, 384), Image.Resampling.BICUBIC)
        if number % 2:
            image.save(folder / f"{number:06d}.jpg", quality=90)
        else:
            image.save(folder / f"{number:06d}.png")


class Plain:
    """open_clip's own forward pass, with a hook on every block, as the RINE authors' code taps it."""

    def __init__(self, encoder: Encoder, device: str) -> None:
        precision = PRECISIONS[encoder.compute_dtype]
        tower = open_clip.create_model(
            encoder.identity["architecture"], precision=precision, device=device, pretrained_text=False
        ).visual
        self._tower = tower.eval().requires_grad_(requires_grad=False)
        self._dtype = getattr(torch, encoder.compute_dtype)
        self._device, self._tokens = device, []
        self.batch_size, self.size = encoder.batch_size, encoder.image_size
        for name, module in self._tower.named_modules():
            if name.endswith("ln_2"):
                module.register_forward_hook(lambda _module, _inputs, output: self._tokens.append(output[:, 0]))

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the tokens, (K, B, D), of normalised pixels, (B, 3, S, S)."""
        self._tokens.clear()
        self._tower(pixels.to(self._device, self._dtype))
        return torch.stack(self._tokens).half().cpu()  # (K, B, D)

    def run(self, count: int) -> None:
        """Encode `count` images that are in memory already."""
        pixels = torch.rand(self.batch_size, 3, self.size, self.size)  # (B, 3, S, S)
        for _ in range(0, count, self.batch_size):
            self(pixels)


class Files(Dataset[torch.Tensor]):
    """Images as the RINE authors' code reads them: centre crop, tensor, normalised."""

    def __init__(self, manifest: Manifest, encoder: Encoder) -> None:
        self._paths = [manifest.root / image_id for image_id in manifest.table["image_id"]]
        self._transform = transforms.Compose(
            [
                transforms.CenterCrop(encoder.image_size),
                transforms.ToTensor(),
                transforms.Normalize(encoder.identity["mean"], encoder.identity["std"]),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._transform(Image.open(self._paths[index]).convert("RGB"))  # (3, S, S)


class Workload:
    """What is timed, each over all images."""

    def __init__(self, manifest: Manifest, encoder: Encoder, workers: int, device: str) -> None:
        self._manifest, self._encoder, self._workers = manifest, encoder, workers
        self._plain = Plain(encoder, device)
        self._view = BUILTIN_VIEWS["center224"]
        assert isinstance(self._view, CenterViewSpec)
        self._view = self._view.model_copy(update={"size": encoder.image_size})

    def plain(self) -> None:
        """Encode tensors in memory with open_clip."""
        self._plain.run(len(self._manifest))

    def own(self) -> None:
        """Encode crops in memory with the project's encoder."""
        running = []
        for _ in range(0, len(self._manifest), self._encoder.batch_size):
            running.append(self._encoder.start(self._encoder.new_batch()))
            if len(running) > self._encoder.in_flight:
                running.pop(0).result()
        for batch in running:
            batch.result()

    def decode(self) -> None:
        """Read, decode and crop, and drop what comes."""
        ahead = BATCHES_AHEAD * self._encoder.batch_size + ROWS_AHEAD_PER_WORKER * self._workers
        with Decoder(self._manifest, [self._view], self._workers, ahead, lambda _: [0], None) as decoder:
            for _ in decoder.rows(range(len(self._manifest))):
                pass

    def extract(self) -> None:
        """Make a sealed cache."""
        with tempfile.TemporaryDirectory() as folder:
            target = Target(self._encoder, "ln_2", self._view, Path(folder) / "x.h5")
            extract(self._manifest, [target], workers=self._workers)

    def naive(self) -> None:
        """Run the authors' loop."""
        loader = DataLoader(
            Files(self._manifest, self._encoder), batch_size=self._encoder.batch_size, num_workers=self._workers
        )
        features = [self._plain(batch).numpy() for batch in loader]  # each (K, B, D)
        np.concatenate(features, axis=1)


class GpuMeter:
    """Asks nvidia-smi twice a second how busy the GPUs are."""

    def __init__(self) -> None:
        self.readings: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> GpuMeter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._stop.wait(0.5):
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            self.readings.append(max(map(float, lines)))


def timed(work: Callable[[], None], count: int) -> float:
    """Return images per second."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def show(name: str, values: list[float], unit: str) -> None:
    """Print a median with its quartiles."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    click.echo(f"{name:<22}{middle:9.2f}{unit}   [{low:.2f}, {high:.2f}]")


@click.command()
@click.option("--architecture", default="ViT-B-16-quickgelu", show_default=True)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|mps|cuda[:N]")
@click.option("--precision", default="auto", show_default=True)
@click.option("--batch-size", default=16, show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Compile our forward pass.")
@click.option("--images", default=128, show_default=True, help="How many are encoded each time.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--workers", type=int, default=default_workers, show_default="one per core")
def main(
    architecture: str,
    device: str,
    precision: str,
    batch_size: int,
    images: int,
    rounds: int,
    workers: int,
    *,
    compiled: bool,
) -> None:
    """Print images per second, and ratios of speeds that were measured side by side."""
    spec = EncoderSpec.model_validate(
        {
            "architecture": architecture,
            "weights": "random",
            "precision": precision,
            "batch_size": batch_size,
            "compile": compiled,
        }
    )
    device = resolve_device(device)
    on_gpu = device.startswith("cuda") and shutil.which("nvidia-smi") is not None
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{torch.get_num_threads()} CPU cores"
    encoder = load_encoder(spec, device)
    click.echo(
        f"{architecture}, batches of {batch_size}, {encoder.compute_dtype}, {where} ({platform.machine()}), "
        f"{workers} decoding workers, {images} images, {rounds} rounds, torch {torch.__version__}"
    )
    speeds: dict[str, list[float]] = {name: [] for name in ("plain", "own", "decode", "extract", "naive")}
    busy: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, images)
        manifest = build_manifest(list_images(DatasetSpec(root=str(root))).table, root)
        workload = Workload(manifest, encoder, workers, device)
        for name in speeds:  # once before it counts
            getattr(workload, name)()
        for number in range(rounds):
            # Forwards and backwards in turn, so that a machine that grows slower favours nobody.
            for name in list(speeds)[:: 1 if number % 2 else -1]:
                if name == "extract" and on_gpu:
                    with GpuMeter() as meter:
                        speeds[name].append(timed(workload.extract, images))
                    busy += meter.readings
                else:
                    speeds[name].append(timed(getattr(workload, name), images))
                click.echo(f"  round {number + 1}: {name} {speeds[name][-1]:.2f} images/s", err=True)
    for name, values in speeds.items():
        show(name, values, " images/s")
    for over, under in (("own", "plain"), ("extract", "plain"), ("extract", "own"), ("extract", "naive")):
        show(f"{over} / {under}", [a / b for a, b in zip(speeds[over], speeds[under], strict=True)], " x       ")
    if busy:
        click.echo(f"the GPU was busy {np.mean(busy):.0f} % of `extract`")


if __name__ == "__main__":
    main()
