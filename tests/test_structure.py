"""The house's own rules: who may import whom, and what must not be imported at all."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rine_cache"
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the bottom up. A module may import its own layer and those below it (design: "imports in one direction").
LAYERS = (
    {"errors", "quarantine"},
    {"files", "tables", "provenance", "fingerprints", "progress", "devices", "markdown", "figures", "compiled"}
    | {"sampling_error", "threads"},
    {"specs"},
    {"manifest", "layouts", "containers", "facts", "images", "views", "decoding", "weights", "encoders", "cache"}
    | {"heads", "losses", "metrics", "thresholds", "calibration", "selection", "hamming", "shortcuts", "passes"}
    | {"resampling", "bootstrap", "intervals", "comparison"},
    {"features", "feature_windows", "inventory", "pairing", "readings", "training_plan", "sampler"},
    {
        "sample",
        "extract",
        "extraction_plan",
        "slab_filler",
        "seen_content",
        "packs",
        "train",
        "probes",
        "training_batches",
        "finished_heads",
        "training_stack",
        "score",
        "evaluate",
        "published",
        "ties",
        "published_differences",
        "leaderboard_changes",
        "paper_table",
        "paper_formats",
        "leaderboard_figure",
        "leaderboard",
        "report",
        "predict",
        "image_paths",
        "curves",
        "page",
    }
    | {
        "ablation",
        "ablation_table",
        "ablation_figure",
        "matrix",
        "heatmap",
        "audit",
        "audit_report",
        "duplicates",
        "duplicates_report",
        "metadata_baseline",
    }
    | {"config_edit", "describe", "setting_choice", "importance_figure"},
    {"cli", "__main__"},
)


def layer_of(module: str) -> int:
    name = module.split(".")[1] if "." in module else ""
    (layer,) = [number for number, names in enumerate(LAYERS) if name in names]
    return layer


def imports_of(path: Path) -> set[str]:
    """List every module of the package that a file imports, inside functions and for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rine_cache"):
            found.add(str(node.module))
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("rine_cache")}
    return {module for module in found if "." in module}


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent != PACKAGE or path.name != "__init__.py"])
def test_imports_go_one_way(path: Path) -> None:
    own = ".".join(("rine_cache", *path.relative_to(PACKAGE).with_suffix("").parts))
    for imported in imports_of(path):
        assert layer_of(imported) <= layer_of(own), f"{own} imports {imported}, which stands above it"


def test_modules_of_one_layer_do_not_import_each_other_in_a_circle() -> None:
    graph = {
        path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__"): {
            module.removeprefix("rine_cache.").replace(".", "/") for module in imports_of(path)
        }
        for path in MODULES
    }

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        for imported in graph[name] - {name}:  # a package may import its own modules
            visit(imported, (*trail, name))

    for name in graph:
        visit(name, ())


def test_one_module_knows_hdf5_and_none_knows_snakemake() -> None:
    for path in MODULES:
        roots = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots |= {name.name.split(".")[0] for name in node.names}
            if isinstance(node, ast.ImportFrom):
                roots.add((node.module or "").split(".")[0])
        assert "snakemake" not in roots, path
        assert "h5py" not in roots or path.parts[-2:] == ("cache", "hdf5.py"), path


# Modules of a row are loaded one after the other: what may load more stands further to the right.
@pytest.mark.parametrize(
    ("forbidden", "modules"),
    [
        ("rine_cache.encoders PIL open_clip snakemake", "train probes score features"),
        ("torch h5py PIL polars pydantic numpy sklearn", "cli.main"),
        ("torch h5py PIL matplotlib", "ablation_table page.build"),
        ("torch h5py PIL", "leaderboard evaluate bootstrap report curves"),
        ("numba", "leaderboard"),
        ("torch open_clip", "extract"),
    ],
)
def test_a_stage_does_not_load_what_it_does_not_need(forbidden: str, modules: str) -> None:
    check = f"""
import importlib, sys
for module in {modules.split()!r}:
    importlib.import_module(f"rine_cache.{{module}}")
    print(module, sorted(set({forbidden.split()!r}) & set(sys.modules)))
"""
    finished = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines() == [f"{module} []" for module in modules.split()]


def test_no_module_has_a_name_that_says_nothing() -> None:
    names = {path.stem for path in MODULES}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc", "core"}
