"""Decoding: images read, decoded and rendered in worker processes, some rows before they are asked for.

`Decoder` gives a manifest's rows in order (`decoder`, `rows`). Each is a `job` for the processes of a `pool`, which may
die or hang on an image without harm to the rest. The parent talks with a `process` over a socket that never makes it
wait (`channel`); `worker` is what runs there, `read` how it reads a file. Nothing here loads torch or HDF5, so that
workers are small and start fast.
"""

from __future__ import annotations

from rine_cache.decoding.decoder import Decoder
from rine_cache.decoding.rows import DecodedRow

__all__ = ["DecodedRow", "Decoder"]
