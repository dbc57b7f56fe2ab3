"""How threads of a computation wait for each other, set before the library that does it is loaded."""

from __future__ import annotations

import os

# As many turns as GNU's OpenMP itself allows a thread that waits where there are more threads than cores.
SPINS = 1000
_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_without_spinning() -> None:
    """Let a thread that waits for the others of its product sleep soon.

    By default it turns 300,000 times, and only sees threads of its own process: beside another program on the same
    cores, each of the thousands of small products of a step waits that long for a thread that has no core
    (``benchmarks/busy_cores.py``). What the user has set stands. Without effect once torch is loaded, and where it
    uses another library than GNU's.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
