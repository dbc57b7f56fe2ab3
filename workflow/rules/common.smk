# What the stages share: the validated configuration, and which files and options follow from it.
import re
import shlex
import sys
from pathlib import Path

from rine_cache.cli.listing import as_text
from rine_cache.errors import RineCacheError
from rine_cache.inventory import missing_for_training, missing_table, take_inventory
from rine_cache.provenance import canonical_json
from rine_cache.readings import Readings
from rine_cache.specs.config import config_from, load_benchmarks
from rine_cache.specs.extraction import CacheSpec
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

try:
    CONFIG = config_from(config)
    BENCHMARKS = load_benchmarks(CONFIG, Path())
except RineCacheError as error:
    raise WorkflowError(str(error)) from None

# The same with every default filled in, for Snakemake's lookup().
SETTINGS = CONFIG.model_dump(mode="json")

# What is on this machine: results of data that are not stay empty, and everything else runs.
HOLDINGS = take_inventory(CONFIG, BENCHMARKS.values(), Path("results"))
PRESENT = {name for name, holding in HOLDINGS.items() if holding.usable}
LACKING = {
    experiment: missing_for_training(CONFIG, HOLDINGS, experiment)
    for experiment in CONFIG.experiments
}


def say_what_is_missing():
    """Tell what is not on this machine and where to get it, which experiments wait for it, and what has grown."""
    missing = missing_table(CONFIG, HOLDINGS)
    if not missing.is_empty():
        logger.warning(
            f"Not on this machine; what needs it stays empty:\n{as_text(missing.columns, missing.rows())}"
        )
    for experiment, lacking in LACKING.items():
        if lacking:
            logger.warning(f"Experiment {experiment} waits for {', '.join(lacking)}")
    for ablation, spec in CONFIG.ablations.items():
        if LACKING[spec.experiment]:
            logger.warning(
                f"Ablation {ablation} waits with experiment {spec.experiment}"
            )
    for name, holding in HOLDINGS.items():
        if holding.unlisted:
            logger.warning(
                f"Data set {name} has grown by {', '.join(holding.unlisted)}, which is not listed yet; to list it "
                f"again, add --forcerun results/manifests/{name}.parquet"
            )


say_what_is_missing()

# What is scored: the pairs of a view and a data set that some protocol asks for and that are here.
SCORED = sorted(
    {
        pair
        for benchmark in BENCHMARKS.values()
        for pair in benchmark.sources()
        if pair[1] in PRESENT
    }
)


def experiment_of(name):
    """Return an experiment, or the one that an ablation names."""
    ablation = CONFIG.ablations.get(name)
    return CONFIG.experiments[ablation.experiment if ablation else name]


def training_set_of(name):
    """Return the training set that an experiment names."""
    return CONFIG.training_sets[experiment_of(name).training_set]


OFFICIAL = [name for name, spec in CONFIG.experiments.items() if spec.official_files]


def caches_by_dataset():
    """List for each data set the caches that hold it, as (experiment, view): first those that heads need.

    A tested data set has one even where no head can be trained yet: its audit and its baseline need none.
    """
    found = {}
    for experiment in CONFIG.experiments:
        training_set = training_set_of(experiment)
        trains = not LACKING[experiment] and experiment not in OFFICIAL
        parts = (*training_set.train, *training_set.validation) if trains else ()
        pairs = [(part.view, part.dataset) for part in parts] + SCORED
        for view, dataset in pairs:
            found.setdefault(dataset, []).append((experiment, view))
    for caches in found.values():
        caches.sort(
            key=lambda cache: (bool(LACKING[cache[0]]), cache[1] != "center224")
        )
    return found


CACHES = caches_by_dataset()

# Rules call the `rine-cache` beside this Python, whether or not its environment is activated, and also inside the
# environment of a conda directive, which names the dependencies.
shell.prefix(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")


def one_of(names):
    """Constrain a wildcard to the names that the configuration defines."""
    return "|".join(re.escape(name) for name in sorted(names)) or "none"


wildcard_constraints:
    dataset=one_of(CONFIG.datasets),
    encoder=one_of(CONFIG.encoders),
    ablation=one_of(CONFIG.ablations),
    experiment=one_of(CONFIG.experiments),
    matrix=one_of(CONFIG.matrices),
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


def listing_options(wildcards):
    """Return the options that say how a data set's images lie and which of them to list."""
    spec = CONFIG.datasets[wildcards.dataset]
    options = {
        "--layout": [spec.layout],
        "--label": [spec.label] if spec.label else [],
        "--subset": spec.subsets,
        "--split": spec.splits,
        "--group-pattern": [spec.group_pattern] if spec.group_pattern else [],
    }
    return " ".join(
        repeated(option, ([value] for value in values))
        for option, values in options.items()
        if values
    )


# features.smk


def features_of(experiment, dataset, view):
    """Name the cache of a data set through a view, as an experiment's encoder and tap make it."""
    spec = experiment_of(experiment)
    return f"results/features/{spec.encoder}/{spec.tap}/{view}/{dataset}.h5"


# What the experiments read; a rule may be asked for other caches too.
WANTED = {
    Path(features_of(experiment, dataset, view))
    for dataset, caches in CACHES.items()
    for experiment, view in caches
}

# Filled while Snakemake builds its graph, by the input function of `join`; written down when it starts.
READINGS = {
    dataset: Readings(Path("results/features/readings", dataset))
    for dataset in CONFIG.datasets
}


def save_readings():
    """Write down which caches come from which reading: jobs on other machines look there."""
    try:
        for readings in READINGS.values():
            readings.save()
    except RineCacheError as error:
        raise WorkflowError(str(error)) from None


def shards_of(wildcards):
    """Return how many jobs extract a data set."""
    return CONFIG.datasets[wildcards.dataset].shards


def extracted(wildcards):
    """Name the marks of the reading that a cache comes from, one for each shard."""
    cache = CacheSpec(
        out=f"results/features/{wildcards.encoder}/{wildcards.tap}/{wildcards.view}/{wildcards.dataset}.h5",
        encoder=CONFIG.encoders[wildcards.encoder],
        tap=wildcards.tap,
        view=CONFIG.all_views[wildcards.view],
    )
    reading = READINGS[wildcards.dataset].number_of(cache)
    shards = shards_of(wildcards)
    return [
        f"results/features/readings/{wildcards.dataset}/{reading}.{number}-of-{shards}.done"
        for number in range(1, shards + 1)
    ]


def caches_of(wildcards):
    """List the caches that a reading makes."""
    return READINGS[wildcards.dataset].caches_of(int(wildcards.reading), WANTED)


# Snakemake does not remember parameters that ask for `output`: a reading is not done again because one of its caches is
# made by a later one, or is not wanted any more. It asks for them when its graph is whole, and so are the readings.
def cache_options(wildcards, output):
    """Return the options that describe the caches of a reading."""
    first, *others = caches_of(wildcards)
    encoder = first.encoder
    words = ["--out", str(first.out), "--tap", first.tap, "--view", as_json(first.view)]
    words += ["--architecture", encoder.architecture, "--weights", encoder.weights]
    words += ["--precision", encoder.precision, "--batch-size", str(encoder.batch_size)]
    words += ["--compile"] if encoder.compile else []
    words += [word for other in others for word in ("--also", as_json(other))]
    return shlex.join(words)


def named_views(wildcards, output):
    """Say for people through what a reading takes its data set."""
    views = {}
    for cache in caches_of(wildcards):
        encoder, tap, view = cache.out.parts[-4:-1]
        views.setdefault(f"{encoder} ({tap})", []).append(view)
    return "; ".join(
        f"{', '.join(names)} with {encoder}" for encoder, names in views.items()
    )


# audits.smk


def audited_features(wildcards):
    """Name the first cache that holds a data set: all say the same of its files."""
    experiment, view = CACHES[wildcards.dataset][0]
    return features_of(experiment, wildcards.dataset, view)


def audited_training_sets(wildcards):
    """Return the options that name the training sets whose data are audited: they are looked for in test sets."""
    sets = {
        spec.training_set: CONFIG.training_sets[spec.training_set]
        for spec in CONFIG.experiments.values()
    }
    whole = {
        name: spec
        for name, spec in sorted(sets.items())
        if all(part.dataset in CACHES for part in (*spec.train, *spec.validation))
    }
    return repeated(
        "--training-set", ([f"{name}={as_json(spec)}"] for name, spec in whole.items())
    )


# heads.smk


def experiment_json(wildcards):
    """Return an experiment's specification."""
    return as_json(CONFIG.experiments[wildcards.experiment])


def training_set_json(wildcards):
    """Return an experiment's training set."""
    return as_json(training_set_of(trained_by(wildcards)))


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


def official_files(wildcards):
    """Name the authors' files that an experiment imports."""
    return list(CONFIG.experiments[wildcards.experiment].official_files.values())


def import_commands(wildcards, output):
    """Return the commands that import an experiment's official heads, one after the other."""
    spec = CONFIG.experiments[wildcards.experiment]
    architecture = CONFIG.encoders[spec.encoder].architecture
    commands = []
    for method, file in spec.official_files.items():
        words = ["rine-cache", "head", "import", file, "--method", method]
        words += ["--out", f"{output.heads}/{method}/seed0.safetensors"]
        words += ["--training-set", spec.training_set, "--architecture", architecture]
        words += ["--log", f"results/logs/import/{wildcards.experiment}.log"]
        commands.append(shlex.join(words))
    return " && ".join(commands)


def trained_by(wildcards):
    """Return the experiment or ablation that a job is of."""
    return wildcards.get("ablation") or wildcards.experiment


def train_files(wildcards):
    """Name what heads are trained on."""
    name = trained_by(wildcards)
    return files_of(name, training_set_of(name).train)


def validation_files(wildcards):
    """Name what epochs are chosen on."""
    name = trained_by(wildcards)
    return files_of(name, training_set_of(name).validation)


def train_options(wildcards, input):
    """Return the options that name the caches and manifests, pair by pair."""
    roles = {"--train": input.train, "--validation": input.validation}
    return " ".join(
        repeated(option, zip(files[::2], files[1::2]))
        for option, files in roles.items()
    )


def heads_of(wildcards):
    """Name what says which heads are scored: the index of trained ones, the folder of imported ones."""
    folder = f"results/heads/{wildcards.experiment}"
    return folder if wildcards.experiment in OFFICIAL else f"{folder}/heads.json"


def scored_features(wildcards):
    """Name the cache that is scored."""
    return features_of(wildcards.experiment, wildcards.dataset, wildcards.view)


# results.smk


def score_files(wildcards):
    """Name the scores that an experiment's metrics come from: none where what it is trained on is not here."""
    if LACKING[wildcards.experiment]:
        return []
    return [
        f"results/scores/{wildcards.experiment}/{view}/{dataset}.parquet"
        for view, dataset in SCORED
    ]


def own_benchmarks(wildcards):
    """Return the options that describe the benchmarks which no file does, of data sets that nothing else names."""
    # A benchmark file names its benchmark as it likes; those made from a data set bear its name and are last.
    made = list(BENCHMARKS.values())[len(CONFIG.benchmarks) :]
    return repeated("--benchmark", ([as_json(benchmark)] for benchmark in made))


def encoder_json(wildcards):
    """Return the specification of an experiment's encoder."""
    return as_json(CONFIG.encoders[experiment_of(trained_by(wildcards)).encoder])


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


def matrices():
    """Name the matrices that the configuration asks for."""
    return expand("results/matrices/{matrix}.parquet", matrix=CONFIG.matrices)


def matrix_json(wildcards):
    """Return a matrix's specification."""
    return as_json(CONFIG.matrices[wildcards.matrix])


def matrix_benchmark_json(wildcards):
    """Return the specification of the benchmark whose test sets a matrix's columns are."""
    return as_json(BENCHMARKS[CONFIG.matrices[wildcards.matrix].benchmark])


def curves():
    """Name the curves that the page shows: of the experiments that have heads."""
    return expand(
        "results/curves/{experiment}.parquet",
        experiment=[name for name in CONFIG.experiments if not LACKING[name]],
    )


def page_options(wildcards, input):
    """Return the options that name what stands on the page beside the leaderboard."""
    tested = {
        benchmark.view_of(protocol)
        for benchmark in BENCHMARKS.values()
        for protocol in benchmark.protocols
    }
    specs = {"--ablation": CONFIG.ablations, "--matrix": CONFIG.matrices}
    files = {"--ablation": input.ablations, "--matrix": input.matrices}
    options = [repeated("--curves", ([path] for path in input.curves))]
    options += [
        repeated(
            option, ([as_json(specs[option][Path(path).stem]), path] for path in paths)
        )
        for option, paths in files.items()
    ]
    options.append(
        repeated(
            "--view",
            (
                [name, as_json(view)]
                for name, view in CONFIG.views.items()
                if name in tested
            ),
        )
    )
    return " ".join(filter(None, options))


def figure_options(wildcards, output):
    """Return the options that name the figures of a matrix or an ablation."""
    return repeated("--figure", ([figure] for figure in output.figures))


# ablations.smk


def ablations():
    """Name the ablations that can be made: those whose experiment has what it is trained on."""
    return expand(
        "results/ablations/{ablation}.parquet",
        ablation=[
            name
            for name, spec in CONFIG.ablations.items()
            if not LACKING[spec.experiment]
        ],
    )


def ablated_experiment_json(wildcards):
    """Return an ablation's experiment with the ablated method alone: what is trained depends on no other."""
    spec = CONFIG.ablations[wildcards.ablation]
    methods = {spec.method: CONFIG.experiments[spec.experiment].methods[spec.method]}
    return as_json(
        CONFIG.experiments[spec.experiment].model_copy(update={"methods": methods})
    )


def ablated_method(wildcards):
    """Return the method that an ablation names."""
    return CONFIG.ablations[wildcards.ablation].method


def subset_options(wildcards):
    """Return the options that name an ablation's subsets of blocks."""
    subsets = CONFIG.ablations[wildcards.ablation].subsets
    # A list of blocks, a tuple here, is written as one.
    return repeated(
        "--subsets",
        (
            [str(list(subset) if isinstance(subset, tuple) else subset)]
            for subset in subsets
        ),
    )


def ablation_scores(wildcards):
    """Name the scores of what an ablation's protocol tests and is here."""
    spec = CONFIG.ablations[wildcards.ablation]
    return [
        f"results/scores/{wildcards.ablation}/{view}/{dataset}.parquet"
        for view, dataset in sorted(BENCHMARKS[spec.benchmark].sources(spec.protocol))
        if dataset in PRESENT
    ]


def drawn_heads(wildcards, input):
    """Name the folder of an ablation's heads."""
    return str(Path(input.subsets).parent)


def ablation_json(wildcards):
    """Return an ablation's specification."""
    return as_json(CONFIG.ablations[wildcards.ablation])


def ablation_benchmark_json(wildcards):
    """Return the specification of the benchmark whose test sets an ablation shows."""
    return as_json(BENCHMARKS[CONFIG.ablations[wildcards.ablation].benchmark])
