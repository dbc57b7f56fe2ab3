"""A data set's audit for people: Markdown that reads well in a terminal too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from rine_cache.duplicates import EXACT
from rine_cache.duplicates_report import twins_section
from rine_cache.layouts.entry import FAKE, LABEL_NAMES, REAL
from rine_cache.markdown import markdown_table
from rine_cache.shortcuts import FACTS, fact_aucs

if TYPE_CHECKING:
    from rine_cache.audit import Audit
    from rine_cache.duplicates import Duplicates

# From here on a fact is said to tell the classes apart.
_TELLING = 0.75
_NAMED = 3
_OF_SIZE = ("width x height", "width", "height", "short side", "aspect")


def render_audit(audit: Audit, duplicates: Duplicates) -> str:
    """Render an audit.

    Duplicates within the data set are found here too, as its warning of contradictory labels needs them and the page of
    all data sets may be made much later: that takes seconds for a million images, which took hours to encode.

    Parameters
    ----------
    audit
        Of one data set.
    duplicates
        What `rine_cache.duplicates.find_duplicates` finds in it alone.
    """
    images, readable = audit.table, audit.readable
    counts = ", ".join(f"{readable.filter(label=label).height:,} {name}" for label, name in enumerate(LABEL_NAMES))
    lost = images.height - readable.height
    sections = [
        f"# Audit of {audit.dataset}\n",
        f"{images.height:,} images: {counts}, {lost:,} quarantined. From manifest "
        f"{audit.header['manifest_digest'][:12]}, contents {audit.header['content_digest'][:12]}, "
        f"rine-cache {audit.header['code_version']}.\n",
        "## Warnings\n\n" + ("\n".join(f"- {warning}" for warning in _warnings(audit, duplicates)) or "None.") + "\n",
    ]
    if lost:
        sections.append(_quarantine(images))
    if not readable.is_empty():
        sections += [_files(readable), _sizes(readable, audit.header["crop_side"]), _telling(readable)]
    sections.append(f"## Duplicates within the data set\n\n{twins_section(duplicates, 'within')}")
    return "\n".join(sections)


def _warnings(audit: Audit, duplicates: Duplicates) -> list[str]:
    readable = audit.readable
    present = [name for label, name in enumerate(LABEL_NAMES) if label in readable["label"]]
    found = []
    if lost := audit.table.height - readable.height:
        found.append(f"{lost:,} images ({_share(lost, audit.table.height)}) could not be read.")
    if not present:
        return [*found, "No image could be read."]
    exact = duplicates.table.filter(kind=EXACT)
    if not exact.is_empty() and exact["found_conflicts"][0]:
        found.append(f"{exact['found_conflicts'][0]:,} images hold the same bytes as one of the other label.")
    side = audit.header["crop_side"]
    padded = {
        name: _mean_share(readable.filter(label=label), FACTS["short side"] < side)
        for label, name in enumerate(LABEL_NAMES)
        if name in present
    }
    if set(padded.values()) != {"0 %"}:
        shares = " and ".join(f"{share} of the {name} images" for name, share in padded.items())
        found.append(f"{shares} are smaller than {side} pixels, and padded by a centre crop.")
    if len(present) == 1:
        return [*found, f"All images are {present[0]}: nothing can be measured without a test set that has both."]
    aucs = {fact: auc for fact, auc in fact_aucs(readable).items() if auc is not None}
    of_size = max(_OF_SIZE, key=lambda fact: aucs.get(fact, 0))  # the others would say the same again
    for fact, auc in aucs.items():
        if auc >= _TELLING and (fact == of_size or fact not in _OF_SIZE):
            sides = "; ".join(f"{name} {_described(readable, label, fact)}" for label, name in enumerate(LABEL_NAMES))
            found.append(f"{fact[0].upper()}{fact[1:]} alone tells fake from real with AUC {_two(auc)}: {sides}.")
    return found


def _described(images: pl.DataFrame, label: int, fact: str) -> str:
    """Say what values a fact takes in one class."""
    values = images.filter(label=label).select(fact=FACTS[fact])["fact"].drop_nulls()
    if not values.dtype.is_numeric():
        return _commonest(values)
    low, middle, high = (_number(values.quantile(at, "nearest")) for at in (0.05, 0.5, 0.95))
    return low if low == high else f"{middle} (5 to 95 %: {low} to {high})"


def _quarantine(images: pl.DataFrame) -> str:
    reasons = images.filter(pl.col("reason").is_not_null()).group_by("reason").agg("image_id").sort("reason")
    body = [
        [reason.replace("_", " "), f"{len(names):,}", ", ".join(sorted(names)[:_NAMED])]
        for reason, names in reasons.iter_rows()
    ]
    return f"## Quarantined\n\n{markdown_table(['reason', 'images', 'such as'], body)}"


def _groups(readable: pl.DataFrame) -> list[tuple[str, str, pl.DataFrame]]:
    """List all images of each class, then those of each subset."""
    groups = [(name, "all", readable.filter(label=label)) for label, name in enumerate(LABEL_NAMES)]
    for label, name in enumerate(LABEL_NAMES):
        parts = readable.filter(label=label).partition_by("subset", as_dict=True)
        if len(parts) > 1:
            groups += [(name, str(subset), part) for (subset,), part in sorted(parts.items())]
    return [group for group in groups if not group[2].is_empty()]


def _files(readable: pl.DataFrame) -> str:
    header = ["label", "subset", "images", "format", "mode", "EXIF", "JPEG quality", "bytes per pixel"]
    body = [
        [
            label,
            subset,
            f"{part.height:,}",
            _commonest(part["format"]),
            _commonest(part["mode"]),
            _mean_share(part, pl.col("exif")),
            _range(part["jpeg_quality"]),
            _range(part["bytes_per_pixel"]),
        ]
        for label, subset, part in _groups(readable)
    ]
    note = "Formats by content, not by name. Of numbers, the median (smallest to largest)."
    return f"## Files\n\n{note}\n\n{markdown_table(header, body)}"


def _sizes(readable: pl.DataFrame, side: int) -> str:
    header = ["label", "subset", "short side", f"below {side}", "commonest width x height"]
    body = [
        [
            label,
            subset,
            _range(part.select(FACTS["short side"]).to_series()),
            _mean_share(part, FACTS["short side"] < side),
            _commonest(part.select(fact=FACTS["width x height"])["fact"]),
        ]
        for label, subset, part in _groups(readable)
    ]
    return f"## Sizes\n\nIn pixels.\n\n{markdown_table(header, body)}"


def _telling(readable: pl.DataFrame) -> str:
    """Make the table of what each fact alone is worth, for all fakes and for those of each subset."""
    reals, fakes = readable.filter(label=REAL), readable.filter(label=FAKE)
    if reals.is_empty() or fakes.is_empty():
        return ""
    parts = {"all": readable}
    subsets = fakes["subset"].unique().sort()
    for subset in subsets if len(subsets) > 1 else []:
        own = reals.filter(subset=subset)  # a generator with real images of its own is compared with these
        parts[subset] = pl.concat([reals if own.is_empty() else own, fakes.filter(subset=subset)])
    body = [
        [subset, *("-" if auc is None else _two(auc) for auc in fact_aucs(part).values())]
        for subset, part in parts.items()
    ]
    note = (
        "AUC of a single fact, in-sample: .50 is chance, 1.00 tells every image. Categories (the first four) are\n"
        "ranked by their share of fakes, numbers by size in whichever direction serves; JPEG quality compares JPEGs."
    )
    return f"## What tells the classes apart\n\n{note}\n\n{markdown_table(['fakes', *FACTS], body)}"


def _commonest(values: pl.Series) -> str:
    """Name the values that most images have, with their shares."""
    counts = values.cast(pl.String).alias("value").value_counts().sort("count", "value", descending=[True, False])
    named = [f"{value} {_share(count, len(values))}" for value, count in counts.head(_NAMED).iter_rows()]
    if counts.height > _NAMED:
        named.append(f"{counts.height - _NAMED:,} more")
    return ", ".join(named)


def _range(values: pl.Series) -> str:
    known = values.drop_nulls()
    if known.is_empty():
        return "-"
    low, middle, high = known.min(), known.quantile(0.5, "nearest"), known.max()
    return _number(low) if low == high else f"{_number(middle)} ({_number(low)} to {_number(high)})"


def _number(value: Any) -> str:
    return f"{value:.2f}" if value % 1 else f"{value:,.0f}"


def _mean_share(images: pl.DataFrame, condition: pl.Expr) -> str:
    return _share(images.select(condition.sum()).item(), images.height)


def _share(count: int, total: int) -> str:
    """Give a share in percent; only none is 0 %, only all are 100 %."""
    if not total or count in {0, total}:
        return "100 %" if count else "0 %"
    return (
        "<1 %" if 200 * count < total else ">99 %" if 200 * (total - count) < total else f"{100 * count / total:.0f} %"
    )


def _two(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")
