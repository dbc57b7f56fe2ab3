"""The whole configuration: validated, cross-references and all, before any graph is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import field_validator, model_validator

from rine_cache.errors import ConfigError, nearest
from rine_cache.specs.ablation import AblationSpec, check_method
from rine_cache.specs.base import Name, Spec, parse, read_yaml
from rine_cache.specs.benchmark import BenchmarkSpec
from rine_cache.specs.data import DatasetPart, DatasetSpec, SampleSpec, TrainingSetSpec
from rine_cache.specs.encoding import BUILTIN_VIEWS, Device, EncoderSpec, ViewSpec
from rine_cache.specs.matrix import MatrixSpec
from rine_cache.specs.training import ExperimentSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The method, and so the experiment, that cross-validates a classifier without pixels on every test set.
METADATA_ONLY = "metadata-only"


class Config(Spec):
    """Everything `config/config.yaml` may say. The default file explains each key.

    Attributes
    ----------
    device
        Where the encoder runs: ``auto`` takes CUDA, then MPS, then the CPU.
    gpu
        Whether extraction and training jobs ask Snakemake for ``gpu: 1``.
    sample
        The sample to make on this machine, if any.
    encoders, views, datasets, training_sets, experiments
        By name. `views` adds to, or replaces, the built-in ones. A data set that no benchmark and no training set
        names is tested on its own, as a benchmark of its name: all its fakes against all its real images.
    benchmarks
        Paths of benchmark files.
    ablations
        Comparisons of subsets of blocks, by name: names of their own, as heads and scores go by them.
    matrices
        Cross-generator matrices to draw from the leaderboard, by name.
    published
        Paths of CSV files of published numbers.
    """

    device: Device = "auto"
    gpu: bool = False
    sample: SampleSpec | None = None
    encoders: dict[Name, EncoderSpec]
    views: dict[Name, ViewSpec] = {}
    datasets: dict[Name, DatasetSpec] = {}
    training_sets: dict[Name, TrainingSetSpec]
    experiments: dict[Name, ExperimentSpec]
    benchmarks: tuple[str, ...] = ()
    ablations: dict[Name, AblationSpec] = {}
    matrices: dict[Name, MatrixSpec] = {}
    published: tuple[str, ...] = ()

    @field_validator("views", "datasets", "ablations", "matrices", "training_sets", "experiments", mode="before")
    @classmethod
    def _a_section_may_be_left_empty(cls, section: Any) -> Any:
        return {} if section is None else section

    @model_validator(mode="after")
    def _names_exist(self) -> Config:
        if METADATA_ONLY in self.experiments:
            raise ValueError(f"experiments.{METADATA_ONLY} has the name of the built-in baseline; give it another")
        for name, experiment in self.experiments.items():
            _known(experiment.encoder, self.encoders, f"experiments.{name}.encoder")
            _known(experiment.training_set, self.training_sets, f"experiments.{name}.training_set")
        self._check_methods()
        for name, training_set in self.training_sets.items():
            for role, parts in (("train", training_set.train), ("validation", training_set.validation)):
                for part in parts:
                    self._check_part(part, f"training_sets.{name}.{role}")
        for name, ablation in self.ablations.items():
            self._check_ablation(ablation, f"ablations.{name}", name)
        for name, matrix in self.matrices.items():
            for row in matrix.rows:
                _known(row.training_set, self.training_sets, f"matrices.{name}.rows.training_set")
                experiments = [spec for spec in self.experiments.values() if spec.training_set == row.training_set]
                methods = {method: spec for spec in experiments for method in spec.method_ids}
                _known(matrix.method, methods, f"matrices.{name}.method, of heads trained on {row.training_set},")
        return self

    def _check_ablation(self, ablation: AblationSpec, where: str, name: str) -> None:
        if name in self.experiments or name == METADATA_ONLY:
            raise ValueError(f"{where} has the name of an experiment; give it another, as its heads go by its name")
        _known(ablation.experiment, self.experiments, f"{where}.experiment")
        try:
            check_method(ablation.method, self.experiments[ablation.experiment], f"{where}.method")
        except ConfigError as error:
            raise ValueError(str(error)) from None

    def _check_methods(self) -> None:
        owners: dict[tuple[str, str], str] = {}
        for name, experiment in self.experiments.items():
            for method in experiment.method_ids:
                owner = owners.setdefault((experiment.training_set, method), name)
                if owner != name:
                    raise ValueError(
                        f"experiments.{name}.methods.{method} has the id and training set of one in experiment "
                        f"{owner!r}; the leaderboard could not tell them apart: give it another id"
                    )

    def _check_part(self, part: DatasetPart, where: str) -> None:
        _known(part.dataset, self.datasets, f"{where}.dataset")
        _known(part.view, self.all_views, f"{where}.view")

    @property
    def all_views(self) -> dict[Name, ViewSpec]:
        """The built-in views and the config's own; the config wins."""
        return {**BUILTIN_VIEWS, **self.views}


def _known(name: str, table: Mapping[str, Any], where: str) -> None:
    if name not in table:
        raise ValueError(f"{where} names {name!r}, which is not defined; {nearest(name, table)}")


def config_from(data: Any) -> Config:
    """Validate the configuration that Snakemake has read and merged.

    Raises
    ------
    ConfigError
        If a key, value or reference in it is wrong.
    """
    return parse(Config, data, "the configuration")


def load_config(path: Path) -> Config:
    """Read and validate a configuration file.

    Raises
    ------
    ConfigError
        If it cannot be read, or a key, value or reference in it is wrong.
    """
    return parse(Config, read_yaml(path), str(path))


def load_benchmarks(config: Config, root: Path) -> dict[str, BenchmarkSpec]:
    """Read the benchmark files that a config names, relative to `root`, by benchmark id.

    A benchmark is added for each data set that is otherwise named by nothing; see `Config`.

    Raises
    ------
    ConfigError
        If one cannot be read or is not valid, names an unknown view, or two share an id.
    """
    benchmarks: dict[str, BenchmarkSpec] = {}
    for path in config.benchmarks:
        benchmark = parse(BenchmarkSpec, read_yaml(root / path), path)
        for view in (benchmark.view, *map(benchmark.view_of, benchmark.protocols)):
            if view not in config.all_views:
                raise ConfigError(f"{path}: view {view!r} is not defined; {nearest(view, config.all_views)}")
        if benchmark.name in benchmarks:
            raise ConfigError(f"{path}: benchmark {benchmark.name!r} is defined by an earlier file too")
        benchmarks[benchmark.name] = benchmark
    _check_shown(config.matrices, "matrices", benchmarks)
    for name in sorted(config.datasets.keys() - _named_datasets(config, benchmarks)):
        if name in benchmarks:
            raise ConfigError(
                f"datasets.{name} is tested by no benchmark, and would be by one of its own, but a benchmark has that "
                f"name; rename the data set, or name it in a benchmark file or a training set"
            )
        benchmarks[name] = _own_benchmark(name)
    _check_shown(config.ablations, "ablations", benchmarks)
    return benchmarks


def _check_shown(
    shown: Mapping[str, MatrixSpec | AblationSpec], section: str, benchmarks: Mapping[str, BenchmarkSpec]
) -> None:
    """Check what tables show of benchmarks."""
    for name, spec in shown.items():
        if spec.benchmark not in benchmarks:
            raise ConfigError(
                f"{section}.{name}.benchmark names {spec.benchmark!r}, which no file of `benchmarks` defines; "
                f"{nearest(spec.benchmark, benchmarks)}"
            )
        spec.check_against(benchmarks[spec.benchmark], f"{section}.{name}")


def _named_datasets(config: Config, benchmarks: Mapping[str, BenchmarkSpec]) -> set[str]:
    tested = {dataset for benchmark in benchmarks.values() for _, dataset in benchmark.sources()}
    return tested | {
        part.dataset
        for training_set in config.training_sets.values()
        for part in (*training_set.train, *training_set.validation)
    }


def _own_benchmark(dataset: str) -> BenchmarkSpec:
    """Make the benchmark of a data set that nothing else names."""
    described = {
        "name": dataset,
        "title": dataset,
        "about": "All fake images of this data set against all its real ones.",
        "test_sets": {dataset: {"dataset": dataset}},
        "protocols": {dataset: {"test_sets": [dataset], "headline": ["acc", "ap", "auc"]}},
    }
    return parse(BenchmarkSpec, described, f"the benchmark of its own that datasets.{dataset} would get")
