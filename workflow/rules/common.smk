# What the stages share: the validated configuration, and which files and options follow from it.
import re
import shlex
import sys
from pathlib import Path

from rine_cache.errors import RineCacheError
from rine_cache.provenance import canonical_json
from rine_cache.specs.config import config_from, load_benchmarks
from rine_cache.specs.encoding import CACHE_SCHEMA_VERSION
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

try:
    CONFIG = config_from(config)
    BENCHMARKS = load_benchmarks(CONFIG, Path())
except RineCacheError as error:
    raise WorkflowError(str(error)) from None

# The same with every default filled in, for Snakemake's lookup().
SETTINGS = CONFIG.model_dump(mode="json")

# A data set is here if its folder is, or was when it was listed (caches outlive images), or if the pipeline makes it.
PRESENT = [
    name
    for name, spec in CONFIG.datasets.items()
    if spec.requires
    or Path(spec.root).is_dir()
    or Path(f"results/manifests/{name}.parquet").exists()
]
TESTED = [
    source.dataset
    for benchmark in BENCHMARKS.values()
    for test_set in benchmark.test_sets.values()
    for source in (test_set.real, test_set.fake)
]
MISSING = sorted({*CONFIG.datasets, *TESTED} - {*PRESENT})
if MISSING:
    logger.warning(
        f"Data sets not on this machine, whose results stay empty: {', '.join(MISSING)}"
    )

# Rules call the `rine-cache` beside this Python, whether or not its environment is activated, and also inside the
# environment of a conda directive, which names the dependencies.
shell.prefix(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")


def one_of(names):
    """Constrain a wildcard to the names that the configuration defines."""
    return "|".join(re.escape(name) for name in sorted(names)) or "none"


wildcard_constraints:
    dataset=one_of(CONFIG.datasets),
    encoder=one_of(CONFIG.encoders),
    experiment=one_of(CONFIG.experiments),
    tap="ln_2|block",
    view=one_of(CONFIG.all_views),


def as_json(spec):
    """Describe a specification on one line: what a rule passes on, and what makes it run again when it changes."""
    return canonical_json(spec.model_dump(mode="json"))


def repeated(option, values):
    """Repeat an option of a command for each of its values, each value a list of words."""
    return shlex.join(word for value in values for word in [option, *value])


# data.smk


def required_by(wildcards):
    """Name the file that must be there before a data set's folder is listed, if any."""
    return CONFIG.datasets[wildcards.dataset].requires or []


def group_options(wildcards):
    """Return the option that says which images share a group, where the data set has one."""
    pattern = CONFIG.datasets[wildcards.dataset].group_pattern
    return repeated("--group-pattern", [[pattern]] if pattern else [])


# features.smk


def checkpoint_of(wildcards):
    """Name the file that an encoder's weights come from, if they do."""
    weights = CONFIG.encoders[wildcards.encoder].weights
    return weights if Path(weights).is_file() else []


def view_json(wildcards):
    """Return a view's specification."""
    return as_json(CONFIG.all_views[wildcards.view])


def features_of(experiment, dataset, view):
    """Name the cache of a data set through a view, as an experiment's encoder and tap make it."""
    spec = CONFIG.experiments[experiment]
    return f"results/features/{spec.encoder}/{spec.tap}/{view}/{dataset}.h5"


# heads.smk


def training_set_of(experiment):
    """Return the training set that an experiment names."""
    return CONFIG.training_sets[CONFIG.experiments[experiment].training_set]


def experiment_json(wildcards):
    """Return an experiment's specification."""
    return as_json(CONFIG.experiments[wildcards.experiment])


def training_set_json(wildcards):
    """Return an experiment's training set."""
    return as_json(training_set_of(wildcards.experiment))


def files_of(experiment, parts):
    """Name, part by part, a cache and its manifest."""
    return [
        path
        for part in parts
        for path in (
            features_of(experiment, part.dataset, part.view),
            f"results/manifests/{part.dataset}.parquet",
        )
    ]


def train_files(wildcards):
    """Name what an experiment is trained on."""
    return files_of(wildcards.experiment, training_set_of(wildcards.experiment).train)


def validation_files(wildcards):
    """Name what an experiment's epochs are chosen on."""
    return files_of(
        wildcards.experiment, training_set_of(wildcards.experiment).validation
    )


def train_options(wildcards, input):
    """Return the options that name the caches and manifests, pair by pair."""
    roles = {"--train": input.train, "--validation": input.validation}
    return " ".join(
        repeated(option, zip(files[::2], files[1::2]))
        for option, files in roles.items()
    )


def scored_features(wildcards):
    """Name the cache that is scored."""
    return features_of(wildcards.experiment, wildcards.dataset, wildcards.view)


# results.smk


def score_files(wildcards):
    """Name the scores that an experiment's metrics come from: none where its training data are not here."""
    training_set = training_set_of(wildcards.experiment)
    if not all(
        part.dataset in PRESENT for part in training_set.train + training_set.validation
    ):
        return []
    tested = {
        (benchmark.view, source.dataset)
        for benchmark in BENCHMARKS.values()
        for test_set in benchmark.test_sets.values()
        for source in (test_set.real, test_set.fake)
        if source.dataset in PRESENT
    }
    return [
        f"results/scores/{wildcards.experiment}/{view}/{dataset}.parquet"
        for view, dataset in sorted(tested)
    ]


def encoder_json(wildcards):
    """Return the specification of an experiment's encoder."""
    return as_json(CONFIG.encoders[CONFIG.experiments[wildcards.experiment].encoder])


def result_options(wildcards, input):
    """Return the options that name whichever of scores, metrics, published numbers and benchmarks a rule reads."""
    options = {
        "--scores": "scores",
        "--metrics": "metrics",
        "--published": "published",
        "--benchmark": "benchmarks",
    }
    return " ".join(
        repeated(option, ([path] for path in input.get(name, [])))
        for option, name in options.items()
    )
