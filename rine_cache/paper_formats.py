"""Tables for papers, written as LaTeX, Markdown, CSV or HTML."""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from itertools import groupby
from typing import TYPE_CHECKING

from rine_cache.markdown import markdown_table
from rine_cache.paper_table import BEST, SECOND, TIED, printed
from rine_cache.report import METRIC_TITLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from rine_cache.paper_table import Cell, Column, Line, PaperTable

_ABSENT = "\N{EN DASH}"
# Columns from which names stand upright, as they fit no page side by side; and how many fit it at all.
_ROTATED_FROM, _MOST_BESIDE = 7, 14

_NOTHING = "\0"
_LATEX_SPECIAL = {
    _NOTHING: "{}",
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MIDDLE DOT}": r"$\cdot$",
    "\N{DEGREE SIGN}": r"$^{\circ}$",
    "\N{MICRO SIGN}": r"$\mu$",
    "\N{MINUS SIGN}": "$-$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{NOT EQUAL TO}": r"$\neq$",
    "\N{ALMOST EQUAL TO}": r"$\approx$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{LEFTWARDS ARROW}": r"$\leftarrow$",
    "\N{UPWARDS ARROW}": r"$\uparrow$",
    "\N{DOWNWARDS ARROW}": r"$\downarrow$",
    "\N{INFINITY}": r"$\infty$",
    "\N{SUPERSCRIPT ONE}": r"$^{1}$",
    "\N{SUPERSCRIPT TWO}": r"$^{2}$",
    "\N{SUPERSCRIPT THREE}": r"$^{3}$",
    "\N{DAGGER}": r"\dag{}",
    "\N{DOUBLE DAGGER}": r"\ddag{}",
    "\N{SECTION SIGN}": r"\S{}",
    "\N{BULLET}": r"\textbullet{}",
    "\N{COPYRIGHT SIGN}": r"\copyright{}",
    "\N{REGISTERED SIGN}": r"\textregistered{}",
    "\N{TRADE MARK SIGN}": r"\texttrademark{}",
    "\N{HYPHEN}": "-",
    "\N{NON-BREAKING HYPHEN}": "-",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    "\N{LEFT SINGLE QUOTATION MARK}": "`",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "\N{NO-BREAK SPACE}": "~",
    "\N{THIN SPACE}": r"\,",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
    "\N{LATIN SMALL LETTER SHARP S}": r"\ss{}",
    "\N{LATIN SMALL LETTER O WITH STROKE}": r"\o{}",
    "\N{LATIN CAPITAL LETTER O WITH STROKE}": r"\O{}",
    "\N{LATIN SMALL LETTER L WITH STROKE}": r"\l{}",
    "\N{LATIN CAPITAL LETTER L WITH STROKE}": r"\L{}",
    "\N{LATIN SMALL LETTER AE}": r"\ae{}",
    "\N{LATIN CAPITAL LETTER AE}": r"\AE{}",
    "\N{LATIN SMALL LIGATURE OE}": r"\oe{}",
    "\N{LATIN CAPITAL LIGATURE OE}": r"\OE{}",
    "\N{LATIN SMALL LETTER DOTLESS I}": r"\i{}",
}
# Accents, by what stands for them in the decomposition of a letter.
_ACCENTS = {
    "\N{COMBINING GRAVE ACCENT}": "`",
    "\N{COMBINING ACUTE ACCENT}": "'",
    "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{COMBINING TILDE}": "~",
    "\N{COMBINING MACRON}": "=",
    "\N{COMBINING BREVE}": "u",
    "\N{COMBINING DOT ABOVE}": ".",
    "\N{COMBINING DIAERESIS}": '"',
    "\N{COMBINING RING ABOVE}": "r",
    "\N{COMBINING DOUBLE ACUTE ACCENT}": "H",
    "\N{COMBINING CARON}": "v",
    "\N{COMBINING CEDILLA}": "c",
    "\N{COMBINING DOT BELOW}": "d",
}
_GREEK_CAPITALS = ("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega")


def write_paper_table(table: PaperTable, form: str) -> str:
    """Write a table in one of `FORMATS`, with a line end at its end."""
    return FORMATS[form](table)


def latex_text(text: str) -> str:
    """Escape text so that LaTeX prints it as it is, whatever its font's encoding.

    A character that LaTeX has no command for stays: `beyond_latex` names them.
    """
    apart = re.sub("-(?=-)", f"-{_NOTHING}", " ".join(text.split()))  # two hyphens in a name are not a dash
    out = "".join(map(_latex_character, apart))
    return f"{{}}{out}" if out.startswith(("[", "*")) else out  # after a line's end they would be read as its options


def beyond_latex(text: str) -> str:
    """List the characters that pdfLaTeX cannot print; LuaLaTeX and XeLaTeX can, with a font that has them."""
    return "".join(dict.fromkeys(character for character in text if _latex_character(character) > "\x7f"))


def _latex_character(character: str) -> str:
    if character in _LATEX_SPECIAL:
        return _LATEX_SPECIAL[character]
    if character <= "\x7f":
        return character
    decomposed = unicodedata.normalize("NFD", character)
    base, marks = decomposed[0], decomposed[1:]
    if base <= "\x7f" and marks and all(mark in _ACCENTS for mark in marks):
        letter = {"i": r"\i", "j": r"\j"}.get(base, base)
        for mark in marks:
            letter = f"\\{_ACCENTS[mark]}{{{letter}}}"
        return letter
    words = unicodedata.name(character, "").split()
    if words[:1] == ["GREEK"] and words[2:3] == ["LETTER"] and len(words) == 4:
        name = words[3].lower().replace("lamda", "lambda")
        if words[1] == "SMALL" and name != "omicron":
            return f"$\\{name}$"
        if name.title() in _GREEK_CAPITALS:
            return f"$\\{name.title()}$"
    return character


def _latex(table: PaperTable) -> str:
    """Write a `table` environment for booktabs, shrunk where it is wider than a line.

    Several metrics stand side by side, or where that is too wide one below the other.
    """
    by_metric = {metric: list(columns) for metric, columns in groupby(table.columns, lambda column: column.metric)}
    beside = len(table.columns) <= _MOST_BESIDE
    parts = [by_metric] if beside else [{metric: columns} for metric, columns in by_metric.items()]
    notes = "; ".join(f"\\textsuperscript{{{mark}}}~{latex_text(text)}" for mark, text in table.notes())
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{latex_text(table.caption)}}}",
            f"\\label{{{table.label}}}",
            r"\small",
            r"\setlength{\tabcolsep}{4pt}",
            "\n\\par\\medskip\n".join(_tabular(table, part, named=len(by_metric) > 1) for part in parts),
            *([f"\\par\\smallskip{{\\footnotesize\\raggedright {notes}.\\par}}"] if notes else []),
            r"\end{table}",
            "",
        ]
    )


def _tabular(table: PaperTable, by_metric: dict[str, list[Column]], *, named: bool) -> str:
    """Write the columns of some metrics, with a head that names the metrics if `named`."""
    columns = [column for part in by_metric.values() for column in part]
    rows = []
    if named:
        spans, rules, first = [], [], 2
        for metric, part in by_metric.items():
            spans.append(f"\\multicolumn{{{len(part)}}}{{c}}{{{latex_text(_title(metric))}}}")
            rules.append(f"\\cmidrule(lr){{{first}-{first + len(part) - 1}}}")
            first += len(part)
        rows += [f" & {' & '.join(spans)} \\\\", " ".join(rules)]
    names = [latex_text(column.test_set) for column in columns]
    if len(names) >= _ROTATED_FROM:
        names = [f"\\rotatebox{{90}}{{{name}}}" for name in names]
    rows.append(f"method & {' & '.join(names)} \\\\")
    for group in table.groups:
        rows.append("\\midrule")
        rows.append(f"\\multicolumn{{{len(columns) + 1}}}{{l}}{{\\emph{{{latex_text(group.title)}}}}} \\\\")
        for line in group.lines:
            cells = [line.cells[column] for column in columns]
            below = table.intervals and any(cell.low is not None for cell in cells)
            end = "\\\\[-3pt]" if below else "\\\\"
            rows.append(f"{_latex_name(table, line)} & {' & '.join(_latex_cell(table, cell) for cell in cells)} {end}")
            if below:
                rows.append(f" & {' & '.join(_latex_interval(table, cell) for cell in cells)} \\\\")
    return "\n".join(
        [
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{l{'c' * len(columns)}}}",
            r"\toprule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
        ]
    )


def _latex_name(table: PaperTable, line: Line) -> str:
    marks = table.marks_of(line)
    return latex_text(line.method) + (f"\\textsuperscript{{{marks}}}" if marks else "")


def _latex_cell(table: PaperTable, cell: Cell) -> str:
    if cell.value is None:
        return "--"
    around = {BEST: "\\textbf{{{}}}", SECOND: "\\underline{{{}}}", 0: "{}"}
    tied = r"\rlap{\textsuperscript{\dag}}" if cell.tied else ""  # takes no room: digits stay aligned
    return around[cell.place].format(printed(cell.value, table.decimals)) + tied


def _latex_interval(table: PaperTable, cell: Cell) -> str:
    return f"{{\\tiny{{}}{_interval(table, cell)}}}" if cell.low is not None else ""


def _interval(table: PaperTable, cell: Cell) -> str:
    if cell.low is None or cell.high is None:
        return ""
    return f"[{printed(cell.low, table.decimals)}, {printed(cell.high, table.decimals)}]"


def _markdown(table: PaperTable) -> str:
    around = {BEST: "**{}**", SECOND: "<u>{}</u>", 0: "{}"}
    body = []
    for group in table.groups:
        body.append([f"*{group.title}*", *([""] * len(table.columns))])
        body += [[_plain_name(line), *_plain_cells(table, line, around)] for line in group.lines]
    sources = "".join(f"({mark}) {source}\n" for mark, source in table.sources.items())
    header = ["method", *(_column_name(table, column) for column in table.columns)]
    return f"{table.caption}\n\n{markdown_table(header, body)}" + (f"\n{sources}" if sources else "")


def _plain_name(line: Line) -> str:
    mark, remark = (f" ({text})" if text else "" for text in (line.mark, line.remark))
    return f"{line.method}{mark}{remark}"


def _plain_cells(table: PaperTable, line: Line, around: dict[int, str]) -> list[str]:
    cells = []
    for column in table.columns:
        cell = line.cells[column]
        value = around[cell.place].format(_ABSENT if cell.value is None else printed(cell.value, table.decimals))
        value += TIED if cell.tied else ""
        interval = f" {_interval(table, cell)}" if table.intervals and cell.low is not None else ""
        cells.append(f"{value}{interval}")
    return cells


def _column_name(table: PaperTable, column: Column) -> str:
    """Name a column by its test set, and by its metric where there are several."""
    several = len({column.metric for column in table.columns}) > 1
    return f"{column.test_set}, {_title(column.metric)}" if several else column.test_set


def _title(metric: str) -> str:
    return METRIC_TITLES.get(metric, metric)


def _csv(table: PaperTable) -> str:
    """Write every number in full, not rounded, with its place in words."""
    header = ["group", "method", "training_set", "kind", "source", "remark"]
    for column in table.columns:
        name = f"{column.metric}:{column.test_set}"
        header += [
            name,
            f"{name}:place",
            f"{name}:tied_with_best",
            *([f"{name}:low", f"{name}:high"] if table.intervals else []),
        ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    words = {BEST: "best", SECOND: "second", 0: ""}
    for group in table.groups:
        for line in group.lines:
            row: list[object] = [
                group.title,
                line.method,
                line.training_set,
                line.kind,
                table.sources.get(line.mark),
                line.remark,
            ]
            for column in table.columns:
                cell = line.cells[column]
                row += [
                    cell.value,
                    words[cell.place],
                    TIED if cell.tied else None,
                    *([cell.low, cell.high] if table.intervals else []),
                ]
            writer.writerow(row)
    return text.getvalue()


_STYLE = """body { font-family: system-ui, sans-serif; margin: 2rem; }
table { border-collapse: collapse; border-block: 2px solid; font-variant-numeric: tabular-nums; }
caption { text-align: left; max-width: 60rem; margin-block-end: .8rem; }
th, td { padding: .15rem .6rem; text-align: right; white-space: nowrap; }
th[scope=row], th.method, th.group { text-align: left; font-weight: normal; }
thead { border-block-end: 1px solid; }
th.group { font-style: italic; border-block-start: 1px solid; }
small { display: block; opacity: .7; }
th small { max-width: 16rem; white-space: normal; }
sup { line-height: 0; }"""


def _html(table: PaperTable) -> str:
    """Write a page of its own that holds the table and nothing else; the table can be cut out of it."""
    around = {BEST: "<strong>{}</strong>", SECOND: "<u>{}</u>", 0: "{}"}
    metrics = [(metric, len(list(columns))) for metric, columns in groupby(table.columns, lambda c: c.metric)]
    lines = ["<thead>"]
    if len(metrics) > 1:
        spans = "".join(f'<th colspan="{count}">{html.escape(_title(metric))}</th>' for metric, count in metrics)
        lines.append(f"<tr><td></td>{spans}</tr>")
    names = "".join(f'<th scope="col">{html.escape(column.test_set)}</th>' for column in table.columns)
    lines += [f'<tr><th scope="col" class="method">method</th>{names}</tr>', "</thead>"]
    for group in table.groups:
        title = html.escape(group.title)
        lines.append(
            f'<tbody>\n<tr><th scope="rowgroup" class="group" colspan="{len(table.columns) + 1}">{title}</th></tr>'
        )
        for line in group.lines:
            mark = f"<sup>{line.mark}</sup>" if line.mark else ""
            remark = f" <small>({html.escape(line.remark)})</small>" if line.remark else ""
            cells = []
            for column in table.columns:
                cell = line.cells[column]
                value = _ABSENT if cell.value is None else printed(cell.value, table.decimals)
                interval = (
                    f"<small>{_interval(table, cell)}</small>" if table.intervals and cell.low is not None else ""
                )
                tied = f"<sup>{TIED}</sup>" if cell.tied else ""
                cells.append(f"<td>{around[cell.place].format(value)}{tied}{interval}</td>")
            lines.append(f'<tr><th scope="row">{html.escape(line.method)}{mark}{remark}</th>{"".join(cells)}</tr>')
        lines.append("</tbody>")
    sources = "".join(f"<p><sup>{mark}</sup> {html.escape(source)}</p>\n" for mark, source in table.sources.items())
    body = "\n".join(lines)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{html.escape(table.label)}</title>\n'
        f"<style>\n{_STYLE}\n</style>\n<table>\n<caption>{html.escape(table.caption)}</caption>\n{body}\n</table>\n"
        f"{sources}</html>\n"
    )


FORMATS: dict[str, Callable[[PaperTable], str]] = {
    "latex": _latex,
    "markdown": _markdown,
    "csv": _csv,
    "html": _html,
}
