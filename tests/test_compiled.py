from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba

from rine_cache import compiled as module
from rine_cache.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def doubled(number: int) -> int:
    return 2 * number


def test_a_function_is_compiled_and_kept() -> None:
    found: Any = compiled(doubled)
    assert found(21) == 42
    assert len(found.nopython_signatures) == 1
    assert sum(found.stats.cache_hits.values()) + sum(found.stats.cache_misses.values()) == 1


def test_where_nothing_may_be_written_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As numba looks for a place when it decorates, the whole command would not start."""

    def njit(*, cache: bool = False, **options: Any) -> Callable[..., Any]:
        def decorate(function: Callable[..., Any]) -> Any:
            if cache:
                raise RuntimeError("cannot cache function 'doubled': no locator available for file 'x.py'")
            return real(**options)(function)

        return decorate

    real = numba.njit
    monkeypatch.setattr(module.numba, "njit", njit)
    found: Any = compiled(doubled)
    assert found(21) == 42
    assert len(found.nopython_signatures) == 1
