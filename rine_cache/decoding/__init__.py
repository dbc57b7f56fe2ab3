"""Decoding: images read, decoded and rendered in worker processes, some rows before they are asked for.

`Decoder` gives a manifest's rows in order (`decoder`). It hands them to processes (`pool`) that may die or hang on an
image without harm to the rest (`worker` is what runs in them, `read` how they read a file), over sockets that never
make the parent wait (`channel`). Nothing here loads torch or HDF5, so that workers are small and start fast.
"""

from __future__ import annotations

from rine_cache.decoding.decoder import Decoder
from rine_cache.decoding.rows import DecodedRow

__all__ = ["DecodedRow", "Decoder"]
