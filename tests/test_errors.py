from __future__ import annotations

import pytest

from rine_cache import errors
from rine_cache.errors import RineCacheError, nearest


def test_nearest_names_the_closest_and_lists_all_in_order() -> None:
    assert nearest("ln2", ["ln_2", "block"]) == "did you mean 'ln_2'? allowed: block, ln_2"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("opnai", "openai"),
        ("OPENAI", "openai"),
        ("vit-l-14-quickgelu", "ViT-L-14-quickgelu"),
        ("Openai-", "openai"),
        ("rine", "RINE"),
    ],
)
def test_nearest_forgives_typing_errors_and_case(written: str, meant: str) -> None:
    hint = nearest(written, ["openai", "ViT-L-14", "ViT-L-14-quickgelu", "wheel", "RINE"])
    assert hint.startswith(f"did you mean {meant!r}?")


def test_nearest_guesses_nothing_when_nothing_is_close() -> None:
    assert nearest("zzzz", ["ln_2", "block"]) == "allowed: block, ln_2"


def test_nearest_says_so_when_nothing_is_allowed() -> None:
    assert nearest("anything", []) == "allowed: none"


def test_nearest_takes_any_iterable_once() -> None:
    assert nearest("b", (name for name in ("b", "a"))) == "did you mean 'b'? allowed: a, b"


def test_every_error_of_the_module_is_of_the_family() -> None:
    raised = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(raised) > 10
    assert all(issubclass(error, RineCacheError) for error in raised)


@pytest.mark.parametrize(
    "error",
    [errors.CacheMismatchError, errors.CacheUnsealedError, errors.CacheCorruptError, errors.CacheBusyError],
)
def test_one_except_clause_catches_whatever_is_wrong_with_a_cache(error: type[Exception]) -> None:
    assert issubclass(error, errors.CacheError)
