"""How uncertain a number is, as far as the images go, and the replicates by which methods are compared.

A method's value is the mean over its seeds, and so is each of its replicates, resample by resample: what varies is the
images alone. Replicates are kept as distances from their value, in half precision, which is exact to one part in 2,000
of the distance; so a number takes 2 kB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SamplingError(NamedTuple):
    """Of a number: the columns of a metrics table that say how uncertain it is.

    Attributes
    ----------
    ci_low, ci_high
        Its 95 % interval, a fraction.
    ci_method
        How that was made, from how many images or groups; of a number without one why it has none.
    ci_units, ci_strata
        How many units were drawn, from how many strata.
    ci_digest
        Of the resamples: numbers that share it can be compared replicate by replicate.
    replicates
        What `read_replicates` reads.
    """

    ci_low: float | None
    ci_high: float | None
    ci_method: str | None
    ci_units: int | None
    ci_strata: int | None
    ci_digest: str | None
    replicates: bytes | None


SCHEMA = pl.Schema(
    {
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "ci_method": pl.String,
        "ci_units": pl.Int64,
        "ci_strata": pl.Int64,
        "ci_digest": pl.String,
        "replicates": pl.Binary,
    }
)
UNKNOWN = SamplingError(None, None, None, None, None, None, None)


def as_replicates(distances: NDArray[np.float16]) -> bytes:
    """Turn the distances of replicates from their value, (R,), fractions, into what is kept."""
    return distances.astype("<f2").tobytes()


def read_replicates(value: float, replicates: bytes) -> NDArray[np.float64]:
    """Return the replicates, (R,), of a number, a fraction, that a metrics table holds."""
    return value + np.frombuffer(replicates, "<f2").astype(np.float64)
