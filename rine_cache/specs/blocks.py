"""The grammar of block subsets: which of an encoder's K blocks a head reads, counted from 0.

``all``, ``last``, ``first:6``, ``last:6``, ``every:2`` (blocks 1, 3, 5 ...: every second one, the last
included for even K), ``3`` or ``0-11`` (both ends included), or a list such as ``[3, 7, 11]``.
"""

from __future__ import annotations

import re

from rine_cache.errors import ConfigError, nearest

BlocksExpression = str | int | tuple[int, ...]

_COUNTED = re.compile(r"(first|last|every):(\d+)")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_GRAMMAR = "all, last, first:N, last:N, every:N, N, N-M, or a list of block numbers from 0"


def check_blocks(expression: BlocksExpression) -> None:
    """Refuse what is no sentence of the grammar, before the encoder and so its number of blocks is known.

    Raises
    ------
    ValueError
        Saying what is allowed.
    """
    if isinstance(expression, tuple):
        if not expression or min(expression) < 0:
            raise ValueError(f"blocks {list(expression)} must be numbers from 0, one at least")
        return
    text = str(expression).strip()
    if text not in {"all", "last"} and not _COUNTED.fullmatch(text) and not _RANGE.fullmatch(text):
        words = nearest(text.partition(":")[0], ["all", "last", "first", "every"]).partition("allowed")[0]
        raise ValueError(f"blocks {text!r} are not understood; {words}allowed: {_GRAMMAR}")


def resolve_blocks(expression: BlocksExpression, block_count: int) -> tuple[int, ...]:
    """Turn an expression into increasing block numbers.

    Parameters
    ----------
    expression
        A sentence of the grammar above, or the numbers themselves.
    block_count
        K, the number of blocks of the encoder.

    Raises
    ------
    ConfigError
        If the expression is not in the grammar, names a block the encoder has not, or names one twice.
    """
    try:
        check_blocks(expression)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    numbers = expression if isinstance(expression, tuple) else _expand(str(expression).strip(), block_count)
    if not numbers:
        raise ConfigError(f"blocks {expression!r} select none of {block_count} blocks; allowed: {_GRAMMAR}")
    outside = [number for number in numbers if not 0 <= number < block_count]
    if outside:
        raise ConfigError(
            f"blocks {expression!r} name block {outside[0]}, but the encoder has blocks 0 to "
            f"{block_count - 1}; they are counted from 0"
        )
    if len(set(numbers)) != len(numbers):
        raise ConfigError(f"blocks {expression!r} name a block twice; name each once")
    return tuple(sorted(numbers))


def _expand(text: str, block_count: int) -> tuple[int, ...]:
    if text == "all":
        return tuple(range(block_count))
    if text == "last":
        return (block_count - 1,)
    if match := _COUNTED.fullmatch(text):
        word, count = match[1], int(match[2])
        if not 1 <= count <= block_count:
            raise ConfigError(f"blocks {text!r}: {count} is not between 1 and {block_count}")
        chosen = {
            "first": range(count),
            "last": range(block_count - count, block_count),
            "every": range(count - 1, block_count, count),
        }
        return tuple(chosen[word])
    first, last = text.split("-") if "-" in text else (text, text)
    return tuple(range(int(first), int(last) + 1))
