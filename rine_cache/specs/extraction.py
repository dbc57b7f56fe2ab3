"""What is asked of one pass over a data set's files: which caches, and where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import field_validator

from rine_cache.errors import nearest
from rine_cache.specs.base import Spec
from rine_cache.specs.encoding import BUILTIN_VIEWS, EncoderSpec, Tap, ViewSpec


class CacheSpec(Spec):
    """One cache: where it is written, through which encoder, tap and view.

    Attributes
    ----------
    out
        Path of the cache.
    view
        A view, or the name of a built-in one.
    """

    out: Path
    encoder: EncoderSpec
    tap: Tap
    view: ViewSpec

    @field_validator("view", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in BUILTIN_VIEWS:
            raise ValueError(f"{value!r} is not built in; {nearest(value, BUILTIN_VIEWS)}, or inline JSON")
        return BUILTIN_VIEWS[value]
