"""The leaderboard as one self-contained HTML file: markup, styles, program, Vega and data, all in it."""

from __future__ import annotations

import base64
import json
import re
import zlib
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
import polars as pl
import vl_convert
from markupsafe import Markup, escape

from rine_cache.curves import SCHEMA as CURVES_SCHEMA
from rine_cache.files import written_whole
from rine_cache.page.charts import chart_specifications
from rine_cache.page.kept_curves import GRIDS, kept_curves
from rine_cache.page.palette import SCALE
from rine_cache.page.payload import benchmark_payloads, metric_title
from rine_cache.page.plots import ablation_payload, block_weights, matrix_payload, robustness
from rine_cache.page.wording import how_intervals_are_made

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from rine_cache.passes import EncoderPasses
    from rine_cache.specs.ablation import AblationSpec
    from rine_cache.specs.benchmark import BenchmarkSpec
    from rine_cache.specs.encoding import ViewSpec
    from rine_cache.specs.matrix import MatrixSpec

# The browser's program, in parts of one job each; a part uses those before it.
_PROGRAM = (
    "dom.js",
    "numbers.js",
    "table.js",
    "details.js",
    "plots.js",
    "board_plots.js",
    "navigation.js",
    "board.js",
    "blocks.js",
    "page.js",
)


class Extras(NamedTuple):
    """What may stand beside the leaderboard; each part is left out of the page where it is empty.

    Attributes
    ----------
    curves
        Of experiments, from `rine_cache.curves`.
    ablations, matrices
        Their tables with what they are of.
    views
        The configuration's own views, beside the built-in ones: they say which protocols are steps of a sweep.
    passes
        What was read from caches for the leaderboard.
    """

    curves: Sequence[pl.DataFrame] = ()
    ablations: Sequence[tuple[AblationSpec, pl.DataFrame]] = ()
    matrices: Sequence[tuple[MatrixSpec, pl.DataFrame]] = ()
    views: Mapping[str, ViewSpec] = {}
    passes: EncoderPasses | None = None


def build_page(
    leaderboard: pl.DataFrame,
    benchmarks: Sequence[BenchmarkSpec],
    made: datetime,
    version: str,
    extras: Extras = Extras(),  # noqa: B008 - immutable
) -> str:
    """Make the page.

    Parameters
    ----------
    leaderboard
        Rows of `rine_cache.leaderboard.SCHEMA`.
    benchmarks
        The configuration's, in the order of the tabs.
    made
        When the leaderboard was, in UTC.
    version
        Of the code that makes the page.
    extras
        What the plots show.

    Returns
    -------
    HTML. Whatever text users wrote, names of methods and notes, is escaped.
    """
    payloads = benchmark_payloads(leaderboard, benchmarks)
    curves = pl.concat([pl.DataFrame(schema=CURVES_SCHEMA), *extras.curves])
    kept = kept_curves(curves)
    sweeps = robustness(benchmarks, extras.views)
    for payload in payloads:
        payload["robustness"] = sweeps.get(payload["id"], [])
        for protocol in payload["protocols"]:
            protocol["curves"] = kept.get((payload["id"], protocol["id"]), {})
    blocks = {
        "ablations": [ablation_payload(table, spec) for spec, table in extras.ablations],
        "weights": block_weights(curves),
    }
    matrices = [matrix_payload(matrix, spec) for spec, matrix in extras.matrices]
    for matrix in matrices:
        matrix["metric_title"] = metric_title(matrix["metric"])
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["script_json"] = _script_json
    environment.filters["packed"] = _packed
    environment.filters["prose"] = _prose
    return environment.from_string(_template("page.html.j2")).render(
        style=_template("page.css"),
        scale=SCALE,
        program="\n".join(map(_template, _PROGRAM)),
        vega=_within_script(vl_convert.javascript_bundle()),  # type: ignore[call-arg] # its stub is wrong
        benchmarks=payloads,
        blocks=blocks,
        matrices=matrices,
        charts=chart_specifications(),
        grids=GRIDS,
        step_of=_step_of,
        facts=_facts(leaderboard, made, version, extras.passes),
    )


def write_page(page: str, path: Path) -> None:
    """Write the page."""
    with written_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _facts(leaderboard: pl.DataFrame, made: datetime, version: str, passes: EncoderPasses | None) -> dict[str, Any]:
    """Collect what a reader must know of all numbers together."""
    measured = leaderboard.filter(pl.col("kind") == "measured", pl.col("value").is_not_null())
    published = leaderboard.filter(pl.col("kind") == "published")
    stated = leaderboard["ci_method"].drop_nulls().unique().sort().to_list()
    return {
        "made": made.strftime("%-d %B %Y, %H:%M UTC"),
        "made_iso": made.isoformat(),
        "version": version,
        "versions": sorted(measured["code_version"].drop_nulls().unique()),
        "measured_methods": measured.n_unique(["method", "training_set"]) if not measured.is_empty() else 0,
        "published_methods": published["method"].n_unique(),
        "sources": published["source"].n_unique(),
        "intervals": how_intervals_are_made(stated),
        "compared": leaderboard["tied_with_best"].is_not_null().any(),
        "beside": leaderboard["measured_value"].is_not_null().any(),
        "passes": passes if passes is not None and passes.crops_read else None,
    }


def _step_of(value: float, lowest: float) -> int:
    """Return the step of the colour scale for a percentage, on a scale from `lowest` to 100."""
    share = (value - lowest) / (100 - lowest)
    return min(max(int(share * len(SCALE)), 0), len(SCALE) - 1)


def _template(name: str) -> str:
    return resources.files("rine_cache.page").joinpath("templates", name).read_text(encoding="utf-8")


def _script_json(value: Any) -> Markup:
    """Serialise for a script element: no text in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def _packed(value: Any) -> Markup:
    """Serialise for a script element in a third to an eighth of JSON's room: deflated, and in base 64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(base64.b64encode(zlib.compress(text.encode())).decode())  # noqa: S704 - letters, digits, +, / and =


def _prose(text: str) -> Markup:
    """Escape a sentence of a benchmark file, and set what stands in backticks as code."""
    escaped = str(escape(text))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))  # noqa: S704 - escaped


def _within_script(program: str) -> str:
    """Keep a library's own text from ending the script element that it stands in."""
    return program.replace("</script", r"<\/script").replace("<!--", r"<\!--")
