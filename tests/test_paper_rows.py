"""The rows that the paper's configurations make, and the authors' own: on the same keys of one leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from rine_cache.evaluate import evaluate, write_metrics
from rine_cache.leaderboard import KEYS, build_leaderboard
from rine_cache.specs.benchmark import MEAN
from rine_cache.specs.config import load_benchmarks
from rine_cache.specs.training import oracle_id
from tests.test_paper import paper_with
from tests.test_pipeline import ROOT

if TYPE_CHECKING:
    from rine_cache.specs.config import Config

    Joined = tuple[str, Config, pl.DataFrame]  # a file's name, the configuration with it, its leaderboard

CONFIGS = ("paper-grid.yaml", "paper-grid-b32.yaml", "paper-studies.yaml")
AUTHORS = "github mever-team/rine results"  # as it stands in files of one suite each; in published.csv with more
SHOWN = ["acc", "ap"]  # what the authors state
# The authors' result files: their suites, each with how many cells (training set, setting, perturbation) and test sets.
CELLS = {
    ("paper-grid.yaml", "grid"): (3 * 48, 20),
    ("paper-grid.yaml", "diffusion"): (2 * 2 * 2 * 3, 9),
    ("paper-grid-b32.yaml", "grid"): (2 * 3 * 48, 20),  # of both encoders
    ("paper-grid-b32.yaml", "diffusion"): (2 * 2 * 2 * 3, 9),
    ("paper-studies.yaml", "ablations"): (3 * 3, 20),
    ("paper-studies.yaml", "epochs"): (3 * 3 * 4, 20),
    ("paper-studies.yaml", "dataset_size"): (3 * 3, 20),  # all of the images: the grid's cell, `RINE` in published.csv
    ("paper-studies.yaml", "perturbations"): (3 * 5, 20),
}


def config_with(more: str) -> Config:
    """Return paper.yaml with one more file; with the second encoder's grid, the first one's too."""
    return paper_with("paper-grid.yaml", more) if more == "paper-grid-b32.yaml" else paper_with(more)


@pytest.fixture(scope="module", params=CONFIGS)
def joined(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Joined:
    """Build the leaderboard of a configuration on a machine without data: our rows are null, and all there."""
    config = config_with(request.param)
    benchmarks = [
        benchmark
        for benchmark in load_benchmarks(config, ROOT).values()
        if benchmark.name in ("universalfakedetect", "rine-perturbed", "synthbuster")
    ]
    folder = tmp_path_factory.mktemp("metrics")
    files = []
    for name, experiment in config.experiments.items():
        metrics = evaluate(name, experiment, config.encoders[experiment.encoder], benchmarks, [])
        files.append(folder / f"{name}.parquet")
        write_metrics(metrics.filter(pl.col("metric").is_in(SHOWN)), files[-1])
    return request.param, config, build_leaderboard(files, [ROOT / path for path in config.published], benchmarks)


def test_every_number_of_the_authors_stands_beside_a_row_of_ours(joined: Joined) -> None:
    _, _, board = joined
    theirs = board.filter(pl.col("kind") == "published", pl.col("source").str.starts_with(AUTHORS))
    assert not theirs.is_empty()
    ours = board.filter(pl.col("kind") == "measured")
    assert not ours.select(*KEYS, "method").is_duplicated().any()
    alone = theirs.join(ours, on=[*KEYS, "method"], how="anti", nulls_equal=True)
    assert alone.select(*KEYS, "method").rows() == []


def test_each_cell_of_the_authors_files_is_stated_once_on_every_test_set(
    joined: Joined,
) -> None:
    more, _, board = joined
    theirs = board.filter(pl.col("kind") == "published", pl.col("source") == AUTHORS)
    cell = ["protocol_as_published", "protocol", "training_set", "method", "metric"]
    assert not theirs.select(*cell, "test_set").is_duplicated().any()
    found = {}
    for (suite,), rows in theirs.group_by("protocol_as_published"):
        sets = rows.group_by(cell).agg(pl.col("test_set").n_unique(), means=(pl.col("test_set") == MEAN).sum())
        assert sets["means"].to_list() == [1] * len(sets)
        (size,) = set(sets["test_set"])
        assert sets["metric"].value_counts()["count"].n_unique() == 1
        found[suite] = (len(sets) // len(SHOWN), size - 1)
    assert found == {suite: cells for (file, suite), cells in CELLS.items() if file == more}


def test_the_authors_means_are_those_of_their_test_sets(joined: Joined) -> None:
    """Values are rounded to two decimals each, so that means of them may differ by half of one in the last place."""
    _, _, board = joined
    theirs = board.filter(pl.col("kind") == "published", pl.col("source") == AUTHORS)
    means = theirs.group_by("protocol_as_published", "protocol", "training_set", "method", "metric").agg(
        stated=pl.col("value").filter(pl.col("test_set") == MEAN).first(),
        computed=pl.col("value").filter(pl.col("test_set") != MEAN).mean(),
    )
    assert means.filter((pl.col("stated") - pl.col("computed")).abs() > 0.0101).rows() == []


def test_what_a_grid_or_a_study_trains_beside_the_authors_numbers_is_named(
    joined: Joined,
) -> None:
    """The other way round: which of our rows on the paper's protocols have no number of theirs."""
    more, config, board = joined
    own = board.filter(
        pl.col("kind") == "measured",
        pl.col("test_set") != MEAN,  # published.csv states none for the latent diffusion training
        pl.col("training_set").str.starts_with("progan") & (pl.col("protocol") == "rine-20")
        | (pl.col("training_set") == "ldm") & (pl.col("protocol") == "synthbuster-9"),
    )
    theirs = board.filter(pl.col("kind") == "published", pl.col("source").str.starts_with(AUTHORS))
    alone = own.join(theirs, on=[*KEYS, "method"], how="anti")
    choices = {name for experiment in config.experiments.values() for name in experiment.choices}
    expected = {*choices, *map(oracle_id, choices), "RINE-official", "UnivFD"}
    if more != "paper-studies.yaml":  # paper.yaml has the 4-class ablations, paper-studies.yaml the authors' numbers
        expected |= {"RINE-no-contrastive", "RINE-no-TIE", "RINE-last-block"}
    assert set(alone["method"]) == expected
