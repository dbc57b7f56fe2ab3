from __future__ import annotations

import functools
import itertools
import json
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score

from rine_cache.ablation import EXPERIMENT, ROUNDS, SUBSETS, forward_selection, train_ablation
from rine_cache.ablation_figure import draw_ablation
from rine_cache.ablation_table import build_ablation_table, render_ablation, spelt
from rine_cache.errors import ConfigError, ResultsError
from rine_cache.evaluate import SCHEMA, write_metrics
from rine_cache.features import FeatureSet, open_part
from rine_cache.heads.head import load_head, load_heads
from rine_cache.specs.ablation import AblationSpec, check_method, parse_subsets
from rine_cache.specs.base import parse, parse_argument
from rine_cache.specs.benchmark import BenchmarkSpec
from rine_cache.specs.blocks import expand_family, resolve_blocks
from rine_cache.specs.config import config_from, load_benchmarks
from rine_cache.specs.training import ExperimentSpec
from rine_cache.train import train_experiment
from tests.conftest import Encoded, StandInEncoder, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rine_cache.specs.blocks import BlocksExpression, Subset
    from tests.conftest import Answer, MadeCache

BLOCKS = 4
EXPERIMENT_SPEC: dict[str, Any] = {
    "encoder": "stand-in",
    "training_set": "mine",
    "seeds": [0, 1],
    "training": {"epochs": 3, "batch_size": 8, "learning_rate": 0.01, "learning_rate_drops": []},
    "methods": {
        "RINE": {"head": {"kind": "rine", "width": 8, "layers": 1}},
        "upper": {"head": {"kind": "rine", "width": 8, "layers": 1, "blocks": "last:2"}},
        "linear": {"head": {"kind": "linear"}, "training": {"xi": 0}},
    },
}
BENCHMARK: dict[str, Any] = {
    "name": "mine",
    "title": "Mine",
    "note": "only a test",
    "test_sets": {
        name: {"real": {"dataset": "test"}, "fake": {"dataset": "test", "subsets": [name]}}
        for name in ("gen-a", "gen-b")
    },
    "protocols": {"mine-2": {"test_sets": ["gen-b", "gen-a"]}, "mine-1": {"test_sets": ["gen-a"]}},
}
ABLATION: dict[str, Any] = {
    "title": "Which blocks tell",
    "experiment": "first",
    "method": "RINE",
    "subsets": ["each", "all"],
    "benchmark": "mine",
    "protocol": "mine-2",
}


class TellingEncoder(StandInEncoder):
    """Only block 2 of four tells how bright an image is, and so real from fake; block 0 says it faintly."""

    def __init__(self) -> None:
        super().__init__(blocks=BLOCKS)

    def encode(self, crops: np.ndarray) -> Encoded:
        encoded = super().encode(crops)
        tokens = encoded.tokens["ln_2"].astype(np.float32)  # (K, B, D)
        brightness = crops.reshape(len(crops), -1).mean(axis=1) / 255 - 0.45  # (B,)
        tokens -= tokens.mean(axis=2, keepdims=True)
        tokens = 0.3 * np.sign(tokens) * (np.arange(BLOCKS) != 2)[:, None, None]  # noise
        tokens[2] += 30 * brightness[:, None]
        tokens[0] += 2 * brightness[:, None]
        return Encoded({"ln_2": tokens.astype(np.float16), "block": tokens.astype(np.float16)}, encoded.embedding)


def experiment(**changes: Any) -> ExperimentSpec:
    return parse(ExperimentSpec, {**EXPERIMENT_SPEC, **changes}, "test")


def ablation(**changes: Any) -> AblationSpec:
    return parse(AblationSpec, {**ABLATION, **changes}, "test")


@pytest.fixture
def data(make_cache: Callable[..., MadeCache]) -> tuple[FeatureSet, FeatureSet]:
    train = make_cache("train", per_class=6, encoder=TellingEncoder())
    validation = make_cache("validation", per_class=4, seed=1, encoder=TellingEncoder())
    return FeatureSet([open_part(*train[:2])]), FeatureSet([open_part(*validation[:2])])


def validation_loss(spec: ExperimentSpec, data: tuple[FeatureSet, FeatureSet], folder: Path) -> float:
    """Train the only head of an experiment by itself."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as alone:
        train_experiment(spec, *data, Path(alone), "cpu")
        (head,) = load_heads(Path(alone))
    loss = head.card.validation["loss"]
    assert loss is not None
    return loss


def naive_selection(whole: Subset, loss_of: Callable[[Subset], float]) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < len(whole):
        best, best_loss = None, float("inf")
        for block in sorted(set(whole) - set(chosen)):
            loss = loss_of(tuple(sorted([*chosen, block])))
            if loss < best_loss:
                best, best_loss = block, loss
        assert best is not None
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("seed", range(20))
def test_forward_selection_equals_a_plain_loop_ties_and_all(seed: int) -> None:
    draw = random.Random(seed)
    whole = tuple(sorted(draw.sample(range(24), 6)))
    subsets = [s for size in range(1, 7) for s in itertools.combinations(whole, size)]
    losses = {subset: float(draw.randint(0, 3)) for subset in subsets}  # few values, hence many ties
    asked: list[Sequence[Subset]] = []

    def losses_of(candidates: Sequence[Subset]) -> dict[Subset, float]:
        asked.append(candidates)
        return losses

    path = forward_selection(whole, 6, losses_of)
    assert [step.chosen for step in path] == naive_selection(whole, losses.__getitem__)
    assert [len(candidates) for candidates in asked] == [6, 5, 4, 3, 2, 1]
    assert forward_selection(whole, 2, losses_of) == path[:2]


def test_a_forward_selection_on_features_finds_the_block_that_tells_and_equals_one_head_at_a_time(
    data: tuple[FeatureSet, FeatureSet], tmp_path: Path
) -> None:
    spec = experiment()
    train_ablation(spec, "RINE", ["greedy"], *data, tmp_path / "heads", "cpu")
    rounds = pl.read_parquet(tmp_path / "heads" / ROUNDS)
    path = rounds.filter("chosen")["block"].to_list()

    @functools.cache
    def loss_of(subset: Subset) -> float:
        head = {"kind": "rine", "width": 8, "layers": 1, "blocks": subset}
        alone = [experiment(seeds=[seed], methods={"x": {"head": head}}) for seed in (0, 1)]
        return float(np.mean([validation_loss(one, data, tmp_path / "alone") for one in alone]))

    assert path == naive_selection(tuple(range(BLOCKS)), loss_of)
    assert path[0] == 2
    assert rounds["round"].to_list() == [1, 1, 1, 1, 2, 2, 2, 3, 3, 4]
    for row in rounds.iter_rows(named=True):
        subset = tuple(sorted([*path[: row["round"] - 1], row["block"]]))
        assert row["validation_loss"] == pytest.approx(loss_of(subset), rel=1e-4)
    # What was not chosen leaves no head behind.
    names = ["RINE-block02", *sorted(pl.read_parquet(tmp_path / "heads" / SUBSETS)["method"].to_list()[1:])]
    assert sorted(path.name for path in (tmp_path / "heads").iterdir() if path.is_dir()) == sorted(names)
    subsets = pl.read_parquet(tmp_path / "heads" / SUBSETS)
    assert subsets["blocks"].to_list() == [sorted(path[: count + 1]) for count in range(BLOCKS)]
    assert subsets["block"].to_list() == path


def test_each_subset_is_trained_once_whatever_the_families_and_reads_its_blocks(
    data: tuple[FeatureSet, FeatureSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    calls = []

    def counting(spec: ExperimentSpec, *arguments: Any) -> Any:
        trained.extend(spec.methods)
        calls.append(len(spec.methods))
        return real(spec, *arguments)

    from rine_cache import ablation as module

    real = module.complete_heads
    monkeypatch.setattr(module, "complete_heads", counting)
    subsets: list[BlocksExpression] = ["each", "leave-one-out", "prefixes", "suffixes", "greedy:2", "all", (0, 2)]
    train_ablation(experiment(), "RINE", subsets, *data, tmp_path / "heads", "cpu")
    assert len(trained) == len(set(trained))
    # 4 single blocks, 4 of three, first:2, last:2, all and [0, 2]; of the second round what is left of 3 pairs.
    assert calls[0] == 12
    assert len(calls) <= 2

    table = pl.read_parquet(tmp_path / "heads" / SUBSETS)
    whole = tuple(range(BLOCKS))
    for family in ("each", "leave-one-out", "prefixes", "suffixes"):
        found = table.filter(family=family)
        assert [tuple(blocks) for blocks in found["blocks"]] == expand_family(family, whole)
    assert table.filter(family="each")["block"].to_list() == [0, 1, 2, 3]
    assert table.filter(family="leave-one-out")["method"].to_list() == [f"RINE-without0{block}" for block in whole]
    assert table.filter(family="suffixes")["block"].to_list() == [3, 2, 1, 0]
    assert table.filter(family="0,2").select("block", "method").row(0) == (None, "RINE-blocks00+02")
    for method, blocks, loss in table.select("method", "blocks", "validation_loss").iter_rows():
        cards = [load_head(path).card for path in sorted((tmp_path / "heads" / method).glob("*.safetensors"))]
        assert [(card.method, card.seed, list(card.blocks)) for card in cards] == [(method, s, blocks) for s in (0, 1)]
        assert loss == pytest.approx(np.mean([card.validation["loss"] or 0 for card in cards]))
    # What is evaluated is what is there.
    spec = parse_argument(ExperimentSpec, str(tmp_path / "heads" / EXPERIMENT))
    heads = {(head.card.method, head.card.seed) for head in load_heads(tmp_path / "heads")}
    assert heads == {(method, seed) for method in spec.methods for seed in spec.seeds}
    assert set(spec.methods) == set(table["method"])


def test_a_head_of_an_ablation_is_the_one_that_an_experiment_trains(
    data: tuple[FeatureSet, FeatureSet], tmp_path: Path
) -> None:
    train_ablation(experiment(), "RINE", ["all"], *data, tmp_path / "heads", "cpu")
    own = load_head(tmp_path / "heads" / "RINE-all" / "seed1.safetensors")
    alone = experiment(seeds=[1], methods={"RINE": EXPERIMENT_SPEC["methods"]["RINE"]})
    assert own.card.validation["loss"] == pytest.approx(validation_loss(alone, data, tmp_path / "x"), rel=1e-4)


def test_families_are_of_the_blocks_that_the_method_reads(data: tuple[FeatureSet, FeatureSet], tmp_path: Path) -> None:
    train_ablation(experiment(seeds=[0]), "upper", ["prefixes", "last"], *data, tmp_path / "heads", "cpu")
    table = pl.read_parquet(tmp_path / "heads" / SUBSETS)
    assert table.select("family", "block", "method").rows() == [
        ("prefixes", 2, "upper-block02"),
        ("prefixes", 3, "upper-blocks02-03"),
        ("last", None, "upper-block03"),
    ]
    train_ablation(experiment(seeds=[0]), "upper", ["last", "greedy:1", "each"], *data, tmp_path / "order", "cpu")
    families = pl.read_parquet(tmp_path / "order" / SUBSETS)["family"].to_list()
    assert families == ["last", "greedy", "each", "each"]  # as they are asked for
    # Trained again, with fewer subsets: nothing of the earlier run counts.
    train_ablation(experiment(seeds=[0]), "upper", [2], *data, tmp_path / "heads", "cpu")
    assert [head.card.method for head in load_heads(tmp_path / "heads")] == ["upper-block02"]
    with pytest.raises(ConfigError, match="name block 4, but the encoder has blocks 0 to 3"):
        train_ablation(experiment(), "RINE", [4], *data, tmp_path / "heads", "cpu")
    with pytest.raises(ConfigError, match="'greedy:3': 3 is not between 1 and 2"):
        train_ablation(experiment(), "upper", ["greedy:3"], *data, tmp_path / "heads", "cpu")
    assert [head.card.method for head in load_heads(tmp_path / "heads")] == ["upper-block02"]


def test_heads_of_something_else_are_not_replaced(data: tuple[FeatureSet, FeatureSet], tmp_path: Path) -> None:
    other = tmp_path / "heads" / "RINE" / "seed0.safetensors"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    train_ablation(experiment(), "RINE", [0], *data, tmp_path / "heads", "cpu")
    assert other.read_bytes() == b"mine"
    assert {head.card.method for head in load_heads(tmp_path / "heads")} == {"RINE-block00"}


# The bytes that a subset costs.

MANY = 24


class CountedRows:
    """Cached features that count the bytes asked for, by block."""

    def __init__(self, rows: Any) -> None:
        self._rows, self.shape, self.dtype = rows, rows.shape, rows.dtype
        self.read = np.zeros(rows.shape[0], np.int64)  # (K,)

    def __getitem__(self, index: Any) -> np.ndarray:
        found: np.ndarray = self._rows[index]
        blocks = np.atleast_1d(np.arange(self.shape[0])[index[0] if isinstance(index, tuple) else index])
        self.read[blocks] += found.nbytes // len(blocks)
        return found


def train_on(blocks: str, opened: FeatureSet, validation: MadeCache) -> None:
    head = {"kind": "rine", "width": 2, "layers": 1, "blocks": blocks}
    spec = experiment(methods={"RINE": {"head": head}}, seeds=[0], training={"epochs": 1, "batch_size": 8})
    with tempfile.TemporaryDirectory() as folder:
        train_experiment(spec, opened, FeatureSet([open_part(*validation[:2])]), Path(folder), "cpu")


def test_training_reads_its_blocks_and_asks_for_no_byte_of_another(make_cache: Callable[..., MadeCache]) -> None:
    train = make_cache("train", per_class=4, encoder=StandInEncoder(blocks=MANY))
    validation = make_cache("validation", per_class=1, seed=1, encoder=StandInEncoder(blocks=MANY))
    total = {}
    for expression in ("all", "every:4", "first:6", "last:6", "3", "2-4"):
        opened = FeatureSet([open_part(*train[:2])])
        counted = CountedRows(opened.caches[0].features)
        opened.caches[0].features = counted
        train_on(expression, opened, validation)
        assert np.flatnonzero(counted.read).tolist() == list(resolve_blocks(expression, MANY))
        total[expression] = int(counted.read.sum())
    assert total["all"] == MANY * 12 * 8 * 2  # images, width, bytes of a float16
    for expression in ("every:4", "first:6", "last:6"):
        assert MANY * total[expression] == 6 * total["all"]


# The configuration.


def config(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    (tmp_path / "mine.json").write_text(json.dumps(BENCHMARK))
    part = {"dataset": "train", "view": "center224"}
    return {
        "encoders": {"stand-in": {"architecture": "ViT-B-16-quickgelu", "weights": "wheel"}},
        "datasets": {name: {"root": f"data/{name}"} for name in ("train", "validation", "test", "alone")},
        "training_sets": {"mine": {"train": [part], "validation": [{**part, "dataset": "validation"}]}},
        "experiments": {"first": EXPERIMENT_SPEC},
        "benchmarks": [str(tmp_path / "mine.json")],
        "ablations": {"blocks": {**ABLATION, **changes}},
    }


def test_a_configuration_may_hold_ablations(tmp_path: Path) -> None:
    subsets = ["each", "greedy:2", "0-1", 3, [0, 3]]
    valid = config_from(config(tmp_path, subsets=subsets, metrics=["auc"]))
    load_benchmarks(valid, tmp_path)
    assert valid.ablations["blocks"].subsets == ("each", "greedy:2", "0-1", 3, (0, 3))
    assert ablation().metrics == ("acc", "ap", "auc")
    assert ablation(subsets="each").subsets == ("each",)
    # A data set that nothing else names is a benchmark of its own.
    own = config_from(config(tmp_path, benchmark="alone", protocol="alone"))
    assert "alone" in load_benchmarks(own, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiment": "frist"}, "ablations.blocks.experiment names 'frist'.*did you mean 'first'"),
        ({"method": "RIN"}, "ablations.blocks.method names 'RIN'.*did you mean 'RINE'"),
        ({"method": "linear"}, "whose head is of kind 'linear' on the embedding: it reads no blocks of one's choice"),
        ({"subsets": ["eech"]}, r"ablations.blocks.subsets: subsets 'eech' are not understood; did you mean 'each'"),
        ({"subsets": []}, "ablations.blocks.subsets: .*at least 1 item"),
        ({"subsets": ["each", "each"]}, "subsets name 'each' twice"),
        ({"metrics": ["acc", "acc"]}, "metrics name 'acc' twice"),
        ({"metrics": ["accuracy"]}, "ablations.blocks.metrics"),
        ({"subset": ["each"]}, "unknown key 'subset'; did you mean 'subsets'"),
        ({"benchmark": "mien"}, "ablations.blocks.benchmark names 'mien'.*did you mean 'mine'"),
        ({"protocol": "mine-3"}, "ablations.blocks.protocol names 'mine-3'.*did you mean 'mine-"),
    ],
)
def test_a_wrong_ablation_is_refused_with_the_key_and_the_nearest(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_benchmarks(config_from(config(tmp_path, **changes)), tmp_path)


@pytest.mark.parametrize("name", ["first", "metadata-only"])
def test_an_ablation_may_not_be_named_like_an_experiment(tmp_path: Path, name: str) -> None:
    settings = config(tmp_path)
    settings["ablations"] = {name: ABLATION}
    with pytest.raises(ConfigError, match=f"ablations.{name} has the name of an experiment"):
        config_from(settings)


def test_subsets_are_read_from_a_command_line() -> None:
    assert parse_subsets(["each", "0-11", "[3, 7,11]"]) == ("each", "0-11", (3, 7, 11))
    for words, message in ((["eech"], "did you mean 'each'"), (["each", "each"], "twice"), (["[3, x]"], "understood")):
        with pytest.raises(ConfigError, match=f"--subsets: .*{message}"):
            parse_subsets(words)
    check_method("upper", experiment(), "--method")


# The table and the figure.


def metrics_of(values: dict[tuple[str, str, int], float | None], methods: list[str]) -> pl.DataFrame:
    """Make metrics by method, test set and seed; a protocol's mean is the mean of its test sets."""
    shared = {
        "experiment": "blocks",
        "benchmark": "mine",
        "protocol": "mine-2",
        "training_set": "mine",
        "covered": 2,
        "test_sets": 2,
        "n_real": 5,
        "n_fake": 7,
        "n_quarantined": 1,
        "note": "only a test",
        "oracle": False,
        "weights": "openai",
    }
    rows = []
    for method, seed in itertools.product(methods, (0, 1)):
        cells = {name: values[method, name, seed] for name in ("gen-a", "gen-b")}
        known = [value for value in cells.values() if value is not None]
        cells["mean"] = sum(known) / 2 if len(known) == 2 else None
        rows += [
            {**shared, "method": method, "seed": seed, "test_set": name, "metric": metric, "value": value}
            for name, value in cells.items()
            for metric in ("acc", "ap", "auc")
        ]
    return pl.DataFrame(rows, schema=SCHEMA)


MEMBERS = [
    ("each", 0, "RINE-block00", [0], 0.5),
    ("each", 1, "RINE-block01", [1], 0.25),
    ("greedy", 1, "RINE-block01", [1], 0.25),
    ("greedy", 0, "RINE-all", [0, 1], 0.125),
    ("all", None, "RINE-all", [0, 1], 0.125),
]


def built(folder: Path, *missing: str, subsets: list[tuple[Any, ...]] = MEMBERS) -> pl.DataFrame:
    names = ["family", "block", "method", "blocks", "validation_loss"]
    pl.DataFrame(subsets, schema=names, orient="row", strict=False).write_parquet(folder / "subsets.parquet")
    methods = sorted({member[2] for member in MEMBERS})
    draw = random.Random(0)
    values: dict[tuple[str, str, int], float | None] = {
        (method, name, seed): None if name in missing else draw.random()
        for method in methods
        for name in ("gen-a", "gen-b")
        for seed in (0, 1)
    }
    write_metrics(metrics_of(values, methods), folder / "metrics.parquet")
    benchmark = BenchmarkSpec.model_validate(BENCHMARK)
    table = build_ablation_table(folder / "metrics.parquet", folder / "subsets.parquet", ablation(), benchmark)
    for row in table.iter_rows(named=True):
        own = [values[row["method"], name, seed] for name in ("gen-a", "gen-b") for seed in (0, 1)]
        if row["test_set"] != "mean":
            own = [values[row["method"], row["test_set"], seed] for seed in (0, 1)]
        elif None not in own:
            own = [(own[seed] + own[2 + seed]) / 2 for seed in (0, 1)]  # type: ignore[operator]
        if None in own:
            assert row["value"] is None
        else:
            numbers = np.array(own, float)
            assert row["value"] == pytest.approx(100 * numbers.mean())
            assert row["std"] == pytest.approx(100 * numbers.std(ddof=1))
    return table


def test_the_table_holds_means_and_spread_by_subset_in_order(tmp_path: Path) -> None:
    table = built(tmp_path)
    lines = table.filter(metric="auc", test_set="mean").select("family", "block", "method", "blocks")
    assert lines.rows() == [member[:4] for member in MEMBERS]
    assert table["test_set"].unique(maintain_order=True).to_list() == ["gen-b", "gen-a", "mean"]
    text = render_ablation(table, ablation())
    assert "Blocks are counted from 0 here, from 1 in the figure." in text.replace("\n", " ")
    assert "Means over 2 seeds ± their standard deviation. Note: only a test." in text.replace("\n", " ")
    sections = text.split("\n## ")
    assert [section.splitlines()[0] for section in sections[1:]] == [
        "Each block alone",
        "Forward selection on the validation loss",
        "Single subsets",
    ]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in sections[1].splitlines() if "|" in line]
    assert rows[0] == ["block", "validation loss", "gen-b", "gen-a", "mean"]
    assert [row[0] for row in rows[2:5]] == ["0", "**1**", "real + fake images"]
    assert rows[4][2:] == ["5 + 7 (1 quarantined)"] * 3
    (cell,) = table.filter(family="each", block=1, metric="acc", test_set="gen-b").to_dicts()
    assert rows[3][2] == f"{cell['value']:.2f} ± {cell['std']:.2f}"
    assert "| **+ 0** " in sections[2]
    assert "| all (0-1) " in sections[3]
    only_auc = render_ablation(table, ablation(metrics=["auc"]))
    assert "Accuracy" not in only_auc
    assert "AUC:" in only_auc


def test_what_was_not_measured_is_a_dash_and_so_is_its_mean(tmp_path: Path) -> None:
    table = built(tmp_path, "gen-a")
    assert table.filter(test_set="mean")["value"].null_count() == table.filter(test_set="mean").height
    assert table.filter(test_set="gen-b")["value"].null_count() == 0
    text = render_ablation(table, ablation())
    (line, *_) = [line for line in text.splitlines() if line.startswith("| 0 ")]
    assert [cell.strip() for cell in line.strip("|").split("|")][3:] == ["-", "-"]
    draw_ablation(table, ablation(), [tmp_path / "a.png"])
    nothing = built(tmp_path, "gen-a", "gen-b")
    draw_ablation(nothing, ablation(), [tmp_path / "b.svg"])
    assert "not measured" in (tmp_path / "b.svg").read_text()


def test_metrics_of_other_heads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="disagree on RINE-block09; score and evaluate the ablation's heads again"):
        built(tmp_path, subsets=[*MEMBERS, ("each", 9, "RINE-block09", [9], 0.1)])
    with pytest.raises(ResultsError, match="disagree on RINE-all"):
        built(tmp_path, subsets=MEMBERS[:3])


@pytest.mark.parametrize("subsets", [MEMBERS, MEMBERS[:2] + MEMBERS[4:], [MEMBERS[0], MEMBERS[1], MEMBERS[4]]])
def test_a_figure_shows_every_name_within_its_edges(tmp_path: Path, subsets: list[tuple[Any, ...]]) -> None:
    table = built(tmp_path, subsets=subsets)
    spec = ablation(title="Costs $5 and <more>, " * 9)
    draw_ablation(table, spec, [tmp_path / "a.png", tmp_path / "a.svg", tmp_path / "b.svg"])
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB"))  # (height, width, 3)
    for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
        assert (edge == 255).all(), "something runs over the edge"
    text = (tmp_path / "a.svg").read_text()
    for name in (
        "gen-a",
        "gen-b",
        "mean of the test sets",
        "counted from 1",
        "only a test",
        "the one block read",
        "all",
    ):
        assert name in text
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_numbers_are_spelt_out_as_runs() -> None:
    assert spelt([0, 1, 2, 7]) == "0-2, 7"
    assert spelt([0, 1, 2, 7], first=1) == "1-3, 8"
    assert spelt([4]) == "4"


# The command line.


@pytest.fixture
def here(rine_cache: Callable[..., Answer], make_cache: Callable[..., MadeCache]) -> Callable[..., Answer]:
    """The command line in a folder with caches and a configuration."""
    for seed, name in enumerate(("train", "validation", "test")):
        made = make_cache(name, per_class=5, seed=seed, encoder=TellingEncoder())
        for source, target in (
            (made.features, Path("results/features/stand-in/ln_2/center224") / f"{name}.h5"),
            (made.manifest_path, Path("results/manifests") / f"{name}.parquet"),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
    settings = config(Path(), subsets=["each", "greedy:2"])
    Path("mine.yaml").write_text(yaml.safe_dump(settings))
    return rine_cache


def test_one_command_goes_from_caches_to_a_table_and_figures(here: Callable[..., Answer]) -> None:
    answer = here("ablate", "run", "blocks", "--config", "mine.yaml", "--device", "cpu")
    assert answer.status == 0, answer.err
    made = Path("results/ablations")
    assert sorted(path.name for path in made.iterdir()) == [
        f"blocks.{kind}" for kind in ("md", "parquet", "png", "svg")
    ]
    table = pl.read_parquet(made / "blocks.parquet")
    # A number against one made by hand from the head and the features.
    part = open_part(
        Path("results/features/stand-in/ln_2/center224/test.h5"),
        Path("results/manifests/test.parquet"),
        ["real", "gen-a"],
    )
    features = FeatureSet([part])
    aucs = []
    for seed in (0, 1):
        head = load_head(Path(f"results/heads/blocks/RINE-block02/seed{seed}.safetensors"))
        logits = head.network(features.tokens(np.arange(len(features)), [2], 0)).logit.detach().numpy()
        aucs.append(roc_auc_score(features.labels, logits))
    (row,) = table.filter(family="each", block=2, test_set="gen-a", metric="auc").to_dicts()
    assert row["value"] == pytest.approx(100 * np.mean(aucs))
    assert (row["seed_count"], row["n_real"], row["n_fake"]) == (2, 5, 5)
    assert table.filter(family="greedy")["block"][0] == 2


def test_one_command_leaves_empty_what_is_not_here(here: Callable[..., Answer]) -> None:
    Path("results/features/stand-in/ln_2/center224/test.h5").unlink()
    answer = here("ablate", "run", "blocks", "--config", "mine.yaml", "--device", "cpu")
    assert answer.status == 0
    assert (
        "no cache at results/features/stand-in/ln_2/center224/test.h5: what is tested on it stays empty" in answer.err
    )
    assert pl.read_parquet("results/ablations/blocks.parquet")["value"].drop_nulls().is_empty()


def test_a_name_that_is_no_ablation_is_refused(here: Callable[..., Answer]) -> None:
    message = refused(here("ablate", "run", "block", "--config", "mine.yaml"))
    assert "mine.yaml has no ablation 'block'; did you mean 'blocks'?" in message
