"""The whole configuration: validated, cross-references and all, before any graph is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from rine_cache.errors import ConfigError, nearest
from rine_cache.specs.base import Name, Spec, parse, read_yaml
from rine_cache.specs.benchmark import BenchmarkSpec
from rine_cache.specs.data import DatasetPart, DatasetSpec, SampleSpec, TrainingSetSpec
from rine_cache.specs.encoding import BUILTIN_VIEWS, Device, EncoderSpec, ViewSpec
from rine_cache.specs.training import ExperimentSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


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
        By name. `views` adds to, or replaces, the built-in ones.
    benchmarks
        Paths of benchmark files.
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
    published: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Config:
        for name, experiment in self.experiments.items():
            _known(experiment.encoder, self.encoders, f"experiments.{name}.encoder")
            _known(experiment.training_set, self.training_sets, f"experiments.{name}.training_set")
        self._check_methods()
        for name, training_set in self.training_sets.items():
            for role, parts in (("train", training_set.train), ("validation", training_set.validation)):
                for part in parts:
                    self._check_part(part, f"training_sets.{name}.{role}")
        return self

    def _check_methods(self) -> None:
        owners: dict[tuple[str, str], str] = {}
        for name, experiment in self.experiments.items():
            for method in experiment.methods:
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

    Raises
    ------
    ConfigError
        If one cannot be read or is not valid, names an unknown view, or two share an id.
    """
    benchmarks: dict[str, BenchmarkSpec] = {}
    for path in config.benchmarks:
        benchmark = parse(BenchmarkSpec, read_yaml(root / path), path)
        if benchmark.view not in config.all_views:
            raise ConfigError(
                f"{path}: view {benchmark.view!r} is not defined; {nearest(benchmark.view, config.all_views)}"
            )
        if benchmark.name in benchmarks:
            raise ConfigError(f"{path}: benchmark {benchmark.name!r} is defined by an earlier file too")
        benchmarks[benchmark.name] = benchmark
    return benchmarks
