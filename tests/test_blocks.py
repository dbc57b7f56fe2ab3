from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rine_cache.errors import ConfigError
from rine_cache.specs.blocks import (
    FAMILIES,
    BlocksExpression,
    Subset,
    check_blocks,
    check_subsets,
    expand_family,
    family_of,
    greedy_rounds,
    name_subset,
    resolve_blocks,
)

COUNTS = (1, 2, 3, 12, 24)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("all", tuple(range(12))),
        ("last", (11,)),
        ("first:3", (0, 1, 2)),
        ("last:3", (9, 10, 11)),
        ("every:1", tuple(range(12))),
        ("every:2", (1, 3, 5, 7, 9, 11)),
        ("every:5", (4, 9)),
        ("every:12", (11,)),
        ("0", (0,)),
        ("11", (11,)),
        (7, (7,)),
        (0, (0,)),
        ("2-4", (2, 3, 4)),
        ("5-5", (5,)),
        ("0-11", tuple(range(12))),
        ((3, 7, 11), (3, 7, 11)),
        ((11, 3, 7), (3, 7, 11)),
        (" first:2 ", (0, 1)),
    ],
)
def test_each_sentence_of_the_grammar_of_twelve_blocks(
    expression: str | int | tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert resolve_blocks(expression, 12) == expected


@pytest.mark.parametrize("count", COUNTS)
def test_counted_words_agree_with_counting_by_hand(count: int) -> None:
    blocks = list(range(count))
    for number in range(1, count + 1):
        assert resolve_blocks(f"first:{number}", count) == tuple(blocks[:number])
        assert resolve_blocks(f"last:{number}", count) == tuple(blocks[-number:])
        multiples = [block for block in blocks if (block + 1) % number == 0]
        assert resolve_blocks(f"every:{number}", count) == tuple(multiples)


@pytest.mark.parametrize("count", COUNTS)
def test_ranges_include_both_ends(count: int) -> None:
    for first in range(count):
        for last in range(first, count):
            expected = tuple(block for block in range(count) if first <= block <= last)
            assert resolve_blocks(f"{first}-{last}", count) == expected


@pytest.mark.parametrize("count", COUNTS)
def test_words_for_everything_and_the_end_agree_whatever_the_depth(count: int) -> None:
    everything = tuple(range(count))
    assert {resolve_blocks(text, count) for text in ("all", f"first:{count}", f"last:{count}", "every:1")} == {
        everything
    }
    assert resolve_blocks("last", count) == resolve_blocks("last:1", count) == (count - 1,)


def test_a_list_in_any_order_gives_increasing_numbers() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        chosen = rng.choice(24, size=rng.integers(1, 25), replace=False).tolist()
        assert resolve_blocks(tuple(chosen), 24) == tuple(sorted(chosen))


@pytest.mark.parametrize(
    "text", ["frist:6", "first", "first:", "every:two", "0..11", "0,1", "3-", "-1", "", "ALL", "1.5"]
)
def test_what_is_not_in_the_grammar_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_blocks(text, 12)
    message = str(caught.value)
    assert repr(text) in message
    assert "allowed: all, last, first:N, last:N, every:N, N, N-M, or a list of block numbers from 0" in message


@pytest.mark.parametrize("text", ["first:13", "last:13", "every:13"])
def test_a_count_beyond_the_encoder_is_refused_with_its_bounds(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"{text}.*{text.split(':')[1]} is not between 1 and 12"):
        resolve_blocks(text, 12)


@pytest.mark.parametrize(("expression", "block"), [("12", 12), (12, 12), ("10-13", 12), ((0, 12), 12)])
def test_a_block_that_the_encoder_has_not_is_named(expression: str | int | tuple[int, ...], block: int) -> None:
    with pytest.raises(ConfigError, match=f"name block {block}, but the encoder has blocks 0 to 11; they are counted"):
        resolve_blocks(expression, 12)


@pytest.mark.parametrize("expression", [(), (-1, 0), (3, 3), "5-3", "first:0", "every:0", "frist:2", "2-", "blocks"])
def test_what_no_encoder_could_have_is_refused_before_one_is_known(expression: BlocksExpression) -> None:
    with pytest.raises(ValueError, match="blocks"):
        check_blocks(expression)


@pytest.mark.parametrize("whole", [(0,), (0, 1), tuple(range(12)), (3, 7, 8, 11)])
def test_families_are_what_brute_force_over_all_subsets_finds(whole: Subset) -> None:
    every = [subset for size in range(1, len(whole) + 1) for subset in combinations(whole, size)]
    assert expand_family("each", whole) == [subset for subset in every if len(subset) == 1]
    assert expand_family("prefixes", whole) == [s for s in every if all(b in s for b in whole if b <= max(s))]
    assert expand_family("suffixes", whole) == [s for s in every if all(b in s for b in whole if b >= min(s))]
    if len(whole) > 1:
        missing_one = [subset for subset in every if len(subset) == len(whole) - 1]
        found = expand_family("leave-one-out", whole)
        assert sorted(found) == sorted(missing_one)
        assert [set(whole) - set(subset) for subset in found] == [{block} for block in whole]


def test_a_prefix_is_the_subset_of_the_same_words() -> None:
    for family, word in (("prefixes", "first"), ("suffixes", "last")):
        expected = [resolve_blocks(f"{word}:{count}", 12) for count in range(1, 13)]
        assert expand_family(family, tuple(range(12))) == expected


def test_leaving_out_the_only_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="'leave-one-out' of block 3 alone leaves no block"):
        expand_family("leave-one-out", (3,))


@pytest.mark.parametrize(
    ("expression", "family"),
    [(family, family) for family in FAMILIES]
    + [(" greedy:3 ", "greedy"), ("all", ""), (3, ""), ((3, 7), ""), ("greedy:", ""), ("every:2", ""), ("prefix", "")],
)
def test_a_family_is_told_from_a_subset(expression: BlocksExpression, family: str) -> None:
    assert family_of(expression) == family


def test_greedy_stops_where_it_is_told_and_not_beyond_the_blocks_there_are() -> None:
    assert greedy_rounds("greedy", (1, 2, 5)) == 3
    assert [greedy_rounds(f"greedy:{count}", (1, 2, 5)) for count in (1, 3)] == [1, 3]
    with pytest.raises(ConfigError, match="'greedy:4': 4 is not between 1 and 3, the blocks that the method reads"):
        greedy_rounds("greedy:4", (1, 2, 5))


@pytest.mark.parametrize("expression", [*FAMILIES, "greedy:6", "all", "every:2", "0-11", 3, (3, 7, 11)])
def test_families_and_subsets_may_be_compared(expression: BlocksExpression) -> None:
    check_subsets(expression)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("eech", "did you mean 'each'"),
        ("leave_one_out", "did you mean 'leave-one-out'"),
        ("prefix", "did you mean 'prefixes'"),
        ("gredy:3", "did you mean 'greedy:3'"),
        ("frist:3", "did you mean 'first:3'"),
        (
            "7-",
            "allowed: the families each, leave-one-out, prefixes, suffixes, greedy and greedy:N; or one subset: all,",
        ),
        ("greedy:0", "'greedy:0' chooses no block"),
        ((), "one at least"),
    ],
)
def test_what_is_neither_family_nor_subset_is_refused_with_the_nearest(
    expression: BlocksExpression, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_subsets(expression)


@pytest.mark.parametrize("family", [*FAMILIES, "greedy:3"])
def test_a_head_that_is_told_to_read_a_family_is_sent_to_the_ablations(family: str) -> None:
    with pytest.raises(ConfigError, match=f"'{family}' is a family of subsets, and a head reads one.*`ablations`"):
        resolve_blocks(family, 12)


@pytest.mark.parametrize(
    ("blocks", "name"),
    [
        (tuple(range(12)), "all"),
        ((3,), "block03"),
        ((0, 1, 2), "blocks00-02"),
        ((10, 11), "blocks10-11"),
        ((0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11), "without03"),
        (tuple(range(11)), "without11"),
        ((3, 7, 11), "blocks03+07+11"),
    ],
)
def test_a_subset_has_a_name_that_can_be_read(blocks: Subset, name: str) -> None:
    assert name_subset(blocks, 12) == name


def test_no_two_subsets_share_a_name() -> None:
    for count in (1, 2, 3, 7):
        subsets = [subset for size in range(1, count + 1) for subset in combinations(range(count), size)]
        assert len({name_subset(subset, count) for subset in subsets}) == len(subsets)
    assert name_subset((7,), 120) == "block007"
