"""Work that is killed at random moments, over and over, until it is done.

It is forked from a process of its own, in which nothing else runs: a fork beside other threads, as those of polars in
the process of the tests, may inherit a lock that one of them held and nobody will release.
"""

from __future__ import annotations

import multiprocessing
import random
from typing import TYPE_CHECKING, Any

from rine_cache.decoding import pool

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

PATIENCE_S = 240  # for work that is not killed any more


def kills_until_done(
    work: Callable[..., None], arguments: tuple[Any, ...], longest_s: float, most: int, seed: int = 0
) -> int:
    """Start work again and again, kill it after a random time, and return how often it was killed before it ended.

    Parameters
    ----------
    work, arguments
        A function of a module, and what it is given; read what needs threads in it, and not before.
    longest_s
        Seconds after which it is killed at the latest.
    most
        After so many kills it may go on to its end.
    seed
        Of the random times.

    Raises
    ------
    AssertionError
        If it fails, or does not end.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_kill, args=(there, work, arguments, longest_s, most, seed))
    process.start()
    there.close()
    process.join()
    assert process.exitcode == 0
    kills: int = here.recv()
    return kills


def _kill(
    kills_to: Connection, work: Callable[..., None], arguments: tuple[Any, ...], longest_s: float, most: int, seed: int
) -> None:
    pool.START_METHOD = "fork"  # a fork server for each start of the work would take longer than it lives
    rng = random.Random(seed)
    kills = 0
    while True:
        child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
        child.start()
        child.join(rng.uniform(0, longest_s) if kills < most else PATIENCE_S)
        if not child.is_alive():
            assert child.exitcode == 0, "the work failed"
            kills_to.send(kills)
            return
        child.kill()
        child.join()
        assert kills < most, f"the work did not end within {PATIENCE_S} s"
        kills += 1
