"""How inner loops are compiled: by numba, to machine code that is kept for the next process where it can be.

numba keeps it beside the module or in the user's cache, and refuses to start where it may write to neither, as in a
container that is read only: there it is compiled anew in each process, which takes some seconds. NUMBA_CACHE_DIR names
another place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of numbers and arrays at its first call; it runs without Python's global lock.

    Division by zero gives what numpy gives, as a check would keep loops from being vectorised.
    """
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # numba: "no locator available", there is no place that it may write to
        return numba.njit(nogil=True, error_model="numpy")(function)
