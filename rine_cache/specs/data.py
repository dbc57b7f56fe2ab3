"""Data sets, training sets, and the sample that is made on this machine."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from rine_cache.specs.base import Name, Spec

Split = Literal["train", "val", "test"]
LayoutName = Literal[
    "forensynths-train",
    "forensynths-test",
    "ufd-diffusion",
    "genimage",
    "chameleon",
    "opensdid",
    "synthbuster",
    "ldm-train",
    "aigcdetectbenchmark",
    "folder",
    "table",
    "webdataset",
    "parquet",
]


class DatasetSpec(Spec):
    """One set of images that is cached as a unit.

    Attributes
    ----------
    root
        Folder that holds the images (for the layout ``table``, the table). A data set whose root is absent is
        reported as missing; its results are null and everything else is computed.
    layout
        How label, subset and split are read from the way the images lie; see `rine_cache.layouts`.
    label
        The label of every image, for a folder of one class without label folders; layout ``folder`` only.
    subsets, splits
        What to list of it: the subsets and the splits (train, val, test) to keep; empty keeps all.
    group_pattern
        Regular expression on an image's file name whose first group names what it was cut or varied from
        (a photograph, a prompt); empty for none. Images of one group are not independent.
    obtain
        Where to get it, for people; shown when it is missing. Nothing is ever downloaded from there.
    requires
        A file that Snakemake makes before the folder is listed, for data that the pipeline itself makes.
    shards
        How many jobs extract it, each a part of its images, on GPUs or nodes of their own. The features read are the
        same.
    """

    root: str
    layout: LayoutName = "folder"
    label: Literal["real", "fake"] | None = None
    subsets: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ()
    group_pattern: str = ""
    obtain: str = ""
    requires: str | None = None
    shards: int = Field(default=1, ge=1, le=1024)

    @field_validator("group_pattern")
    @classmethod
    def _pattern_has_one_group(cls, pattern: str) -> str:
        try:
            if pattern and re.compile(pattern).groups != 1:
                raise ValueError(f"group_pattern {pattern!r} must hold exactly one group: (...)")
        except re.error as error:
            raise ValueError(f"group_pattern {pattern!r} is not a regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _label_is_for_folders(self) -> DatasetSpec:
        if self.label and self.layout != "folder":
            raise ValueError(f"label is for the layout folder; {self.layout!r} reads the labels itself")
        return self


class DatasetPart(Spec):
    """A data set, or some of its subsets, read through one view.

    Attributes
    ----------
    dataset
        Name of a data set in the config.
    view
        Name of a view.
    subsets, splits
        The subsets and the splits (train, val, test) to keep; empty keeps all.
    share
        Keeps the images whose hash, a number from 0 to 1 made of their group or else their content, lies from the first
        bound up to, not including, the second: how a training set without a validation split holds some images out.
    """

    dataset: Name
    view: Name
    subsets: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ()
    share: tuple[float, float] = (0.0, 1.0)

    @field_validator("share")
    @classmethod
    def _share_is_an_interval(cls, share: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= share[0] < share[1] <= 1:
            raise ValueError(f"share {list(share)} must be [from, to] with 0 <= from < to <= 1")
        return share


class TrainingSetSpec(Spec):
    """What heads are trained on and selected on: unions of data sets' parts, disjoint by content."""

    train: tuple[DatasetPart, ...] = Field(min_length=1)
    validation: tuple[DatasetPart, ...] = Field(min_length=1)


Operator = Literal["transposed", "nearest", "subpixel", "bilinear"]


class SampleSpec(Spec):
    """The sample benchmark: crops of photographs, and fakes blended from autoencoders' reconstructions.

    A fake is ``x + s * (AE(x) - x)`` of a real crop x: the content is the real's, the trace is the
    upsampling operator's, and s sets how faint it is.

    Attributes
    ----------
    root
        Folder to write.
    seed
        Seed of the autoencoders: their initial weights and training patches.
    crop
        Side of a crop, in pixels: divisible by 8, as the autoencoders halve three times.
    train_operator
        The only operator whose fakes are trained on.
    train_strength
        s of the training and validation fakes.
    test_strengths
        s of the test fakes; every operator is tested at each.
    train_crops, validation_crops
        Crops per class. Each real crop has its fake.
    test_real_crops, test_fake_crops
        Test crops that are real, and how many of them each operator and strength turns into fakes.
    autoencoder_steps
        Optimiser steps per autoencoder.
    """

    root: str
    seed: int = Field(default=0, ge=0)
    crop: int = Field(default=224, ge=64, multiple_of=8)
    train_operator: Operator = "transposed"
    train_strength: float = Field(default=0.3, gt=0, le=1)
    test_strengths: tuple[float, ...] = (0.05, 0.1, 0.2)
    train_crops: int = Field(default=64, ge=2)
    validation_crops: int = Field(default=24, ge=2)
    test_real_crops: int = Field(default=64, ge=2)
    test_fake_crops: int = Field(default=24, ge=2)
    autoencoder_steps: int = Field(default=150, ge=1)

    @field_validator("test_strengths")
    @classmethod
    def _strengths_have_names_of_their_own(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        hundredths = [round(100 * strength) for strength in strengths]
        if not strengths or len(set(hundredths)) < len(hundredths) or not all(0 < part <= 100 for part in hundredths):
            raise ValueError(f"test_strengths {list(strengths)} must lie in (0, 1] and differ in their hundredths")
        return strengths

    @model_validator(mode="after")
    def _fakes_are_made_of_test_crops(self) -> SampleSpec:
        if self.test_fake_crops > self.test_real_crops:
            raise ValueError(f"test_fake_crops {self.test_fake_crops} exceed {self.test_real_crops} test_real_crops")
        return self
