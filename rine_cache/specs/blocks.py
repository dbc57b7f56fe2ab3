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
from typing import TYPE_CHECKING, Any

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

_NUMBER = "[0-9]{1,4}"  # no encoder has more blocks, and a range of more would take memory before it is refused
_COUNTED = re.compile(rf"(first|last|every):({_NUMBER})")
_RANGE = re.compile(rf"({_NUMBER})(?:-({_NUMBER}))?")
_ROUNDS = re.compile(rf"{GREEDY}(?::({_NUMBER}))?")
_LIST = re.compile(rf"\[?({_NUMBER}(?:,{_NUMBER})*)\]?")
_DASHES = re.compile("[\u2010-\u2015\u2212]")  # what word processors make of a hyphen
_WORDS = ("all", "last", "first", "every")
_GRAMMAR = "all, last, first:N, last:N, every:N, N, N-M, or a list of block numbers from 0"


def read_expression(value: Any) -> BlocksExpression:
    """Take an expression as YAML or JSON gives it: text, a number, or a list of numbers; what it says is not looked at.

    Raises
    ------
    ValueError
        If it is anything else, a fraction or a truth value too.
    """
    if isinstance(value, list | tuple):
        for number in value:
            if not _is_number(number):
                raise ValueError(
                    f"blocks {list(value)!r} hold {number!r}; a list is one subset, of block numbers from 0, "
                    f"such as [3, 7, 11]: words and ranges stand alone"
                )
        return tuple(value)
    if not isinstance(value, str) and not _is_number(value):
        raise ValueError(f"blocks {value!r} are neither text, a block number nor a list of them; allowed: {_GRAMMAR}")
    expression: BlocksExpression = value
    return expression


def check_blocks(expression: BlocksExpression) -> None:
    """Refuse what no encoder could have, before the encoder and so its number of blocks is known.

    Raises
    ------
    ValueError
        Saying what is allowed.
    """
    if isinstance(expression, tuple):
        if not expression or min(expression) < 0:
            raise ValueError(f"blocks {list(expression)} must be numbers from 0, one at least")
        if twice := [number for number in expression if expression.count(number) > 1]:
            raise ValueError(f"blocks {list(expression)} name block {twice[0]} twice; name each once")
        return
    text = str(expression).strip()
    if family_of(text):
        raise ValueError(f"{text!r} is a family of subsets, and a head reads one; compare a family under `ablations`")
    if not _is_sentence(text):
        raise ValueError(f"blocks {text!r} are not understood; {_guess(text, _WORDS)}allowed: {_GRAMMAR}")
    if (counted := _COUNTED.fullmatch(text)) and int(counted[2]) == 0:
        raise ValueError(f"blocks {text!r} are none: N of {counted[1]}:N counts from 1")
    if (span := _RANGE.fullmatch(text)) and span[2] and int(span[1]) > int(span[2]):
        raise ValueError(f"blocks {text!r} run backwards; did you mean '{span[2]}-{span[1]}'?")


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
    text = str(expression).strip()
    if isinstance(expression, tuple) or _is_sentence(text):
        check_blocks(expression)
        return
    guess = _guess(text, (*FAMILIES, *_WORDS))
    several = "name several one by one; " if "," in text and not _LIST.fullmatch(text.replace(" ", "")) else ""
    raise ValueError(
        f"subsets {text!r} are not understood; {several}{guess}allowed: the families {', '.join(FAMILIES)} and "
        f"{GREEDY}:N; or one subset: {_GRAMMAR}"
    )


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


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_sentence(text: str) -> bool:
    return text in {"all", "last"} or bool(_COUNTED.fullmatch(text) or _RANGE.fullmatch(text))


def _guess(text: str, words: tuple[str, ...]) -> str:
    """Say what may have been meant, as a sentence that another follows; "" where nothing is near."""
    written = _DASHES.sub("-", "".join(text.lower().split()))
    if _is_sentence(written):
        return f"did you mean {written!r}? "
    if listed := _LIST.fullmatch(written):
        return f"did you mean the list [{listed[1].replace(',', ', ')}]? "
    if re.search("[0-9]{5}", written):
        return "a number has four digits at most; "
    word, _, count = written.partition(":")
    guess = nearest(word, words).partition("allowed")[0]
    if re.fullmatch(_NUMBER, count):
        return re.sub(rf"'(first|last|every|{GREEDY})'", rf"'\1:{count}'", guess)
    return guess


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
    if outside := [number for number in numbers if number >= block_count]:
        written = list(expression) if isinstance(expression, tuple) else expression
        raise ConfigError(
            f"blocks {written!r} name block {outside[0]}, but the encoder has blocks 0 to "
            f"{block_count - 1}; they are counted from 0"
        )
    return tuple(sorted(numbers))


def _expand(text: str, block_count: int) -> tuple[int, ...]:
    if text == "all":
        return tuple(range(block_count))
    if text == "last":
        return (block_count - 1,)
    if match := _COUNTED.fullmatch(text):
        word, count = match[1], int(match[2])
        if count > block_count:
            raise ConfigError(
                f"blocks {text!r}: {count} is not between 1 and {block_count}, the number of the encoder's blocks"
            )
        chosen = {
            "first": range(count),
            "last": range(block_count - count, block_count),
            "every": range(count - 1, block_count, count),
        }
        return tuple(chosen[word])
    first, last = text.split("-") if "-" in text else (text, text)
    return tuple(range(int(first), int(last) + 1))
