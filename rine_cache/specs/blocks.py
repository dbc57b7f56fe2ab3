"""The grammar of block subsets: which of an encoder's K blocks a head reads, counted from 0.

``all``, ``last``, ``first:6``, ``last:6``, ``every:2`` (blocks 1, 3, 5 ...: every second one, the last
included for even K), ``3`` or ``0-11`` (both ends included), or a list such as ``[3, 7, 11]``.

And of families of subsets, which an ablation compares, made of the blocks that a method reads: ``each`` block alone;
``leave-one-out``, all but each; ``prefixes``, the first one, the first two, and so on to all; ``suffixes``, the last
one, the last two, and so on; ``greedy``, one block more in each round, whichever makes the validation loss lowest, to
all or, as ``greedy:6``, to six.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rine_cache.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

BlocksExpression = str | int | tuple[int, ...]

Subset = tuple[int, ...]  # increasing block numbers

GREEDY = "greedy"
# Families whose subsets are known before anything is trained.
_FIXED_FAMILIES: dict[str, Callable[[Subset], list[Subset]]] = {
    "each": lambda whole: [(block,) for block in whole],
    "leave-one-out": lambda whole: [tuple(other for other in whole if other != block) for block in whole],
    "prefixes": lambda whole: [whole[: count + 1] for count in range(len(whole))],
    "suffixes": lambda whole: [whole[len(whole) - count - 1 :] for count in range(len(whole))],
}
FAMILIES = (*_FIXED_FAMILIES, GREEDY)

_COUNTED = re.compile(r"(first|last|every):(\d+)")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_ROUNDS = re.compile(rf"{GREEDY}(?::(\d+))?")
_WORDS = ("all", "last", "first", "every")
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
    if family_of(text):
        raise ValueError(f"{text!r} is a family of subsets, and a head reads one; compare a family under `ablations`")
    if text not in {"all", "last"} and not _COUNTED.fullmatch(text) and not _RANGE.fullmatch(text):
        raise ValueError(f"blocks {text!r} are not understood; {_guess(text, _WORDS)}allowed: {_GRAMMAR}")


def check_subsets(expression: BlocksExpression) -> None:
    """Refuse what is neither a family of subsets nor one subset, before the encoder is known.

    Raises
    ------
    ValueError
        Saying what is allowed.
    """
    family = family_of(expression)
    if family == GREEDY and _greedy_count(expression) == 0:
        raise ValueError(f"{expression!r} chooses no block; name how many, from 1, or leave the number out")
    if family:
        return
    try:
        check_blocks(expression)
    except ValueError as error:
        if isinstance(expression, tuple):
            raise
        guess = _guess(str(expression).strip(), (*FAMILIES, *_WORDS))
        raise ValueError(
            f"subsets {str(expression)!r} are not understood; {guess}allowed: the families {', '.join(FAMILIES)} and "
            f"{GREEDY}:N; or one subset: {_GRAMMAR}"
        ) from error


def family_of(expression: BlocksExpression) -> str:
    """Return which family of subsets an expression names; none, "", where it names one subset or nothing."""
    text = str(expression).strip()
    return GREEDY if _ROUNDS.fullmatch(text) else text if text in _FIXED_FAMILIES else ""


def expand_family(family: str, whole: Subset) -> list[Subset]:
    """List a family's subsets of the blocks that a method reads, in the order in which they are shown.

    Parameters
    ----------
    family
        One of `FAMILIES` but `GREEDY`, whose subsets training finds.
    whole
        The method's blocks.

    Raises
    ------
    ConfigError
        If one of the subsets would be empty.
    """
    subsets = _FIXED_FAMILIES[family](whole)
    if () in subsets:
        raise ConfigError(
            f"{family!r} of block {whole[0]} alone leaves no block to read; ablate a method that reads more"
        )
    return subsets


def greedy_rounds(expression: BlocksExpression, whole: Subset) -> int:
    """Return in how many rounds ``greedy`` or ``greedy:N`` chooses among a method's blocks.

    Raises
    ------
    ConfigError
        If N is larger than their number.
    """
    count = _greedy_count(expression)
    if count is not None and count > len(whole):
        raise ConfigError(
            f"{expression!r}: {count} is not between 1 and {len(whole)}, the blocks that the method reads"
        )
    return len(whole) if count is None else count


def name_subset(blocks: Subset, block_count: int) -> str:
    """Name a subset so that it can be read, and be part of a method's id: the same subset has the same name.

    ``all``, ``block03``, ``without03``, ``blocks00-05`` or ``blocks03+07+11``.

    Parameters
    ----------
    blocks
        Increasing block numbers, one at least.
    block_count
        K, the number of blocks of the encoder; numbers are written as wide as its largest, two digits at least.
    """
    numbers = [f"{block:0{max(2, len(str(block_count - 1)))}d}" for block in range(block_count)]
    left_out = sorted(set(range(block_count)) - set(blocks))
    if not left_out:
        return "all"
    if len(blocks) == 1:
        return f"block{numbers[blocks[0]]}"
    if len(left_out) == 1:
        return f"without{numbers[left_out[0]]}"
    if blocks[-1] - blocks[0] == len(blocks) - 1:
        return f"blocks{numbers[blocks[0]]}-{numbers[blocks[-1]]}"
    return f"blocks{'+'.join(numbers[block] for block in blocks)}"


def _guess(text: str, words: tuple[str, ...]) -> str:
    return nearest(text.partition(":")[0], words).partition("allowed")[0]


def _greedy_count(expression: BlocksExpression) -> int | None:
    match = _ROUNDS.fullmatch(str(expression).strip())
    assert match, "asked of greedy only"
    return None if match[1] is None else int(match[1])


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
