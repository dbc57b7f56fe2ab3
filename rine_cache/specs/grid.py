"""Grids of settings: one method of a configuration that stands for a head trained with every combination of some.

``grid: {xi: [.1, .2], width: [128, 256]}`` makes four methods of one, named by their settings: ``RINE-xi0.1-p128`` and
so on. The method's own name then stands for the one of them that validation data choose.
"""

from __future__ import annotations

import itertools
from typing import Any

from rine_cache.errors import nearest

# What may be varied: where it belongs in a method, and how it is written in the name of one. Names follow this order.
AXES = {
    "xi": ("training", "xi"),
    "layers": ("head", "q"),
    "width": ("head", "p"),
    "epochs": ("training", "epochs"),
    "learning_rate": ("training", "lr"),
    "batch_size": ("training", "b"),
    "temperature": ("training", "t"),
}


def expand_grid(name: str, method: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Turn a method with a grid into one method for each combination of its values, by name.

    Parameters
    ----------
    name
        Of the method; those of its settings begin with it.
    method
        As YAML gives it, with a key ``grid`` that maps names of `AXES` to lists of values.

    Raises
    ------
    ValueError
        If the grid is no such table.
    """
    axes = _checked_axes(name, method["grid"])
    rest = {key: value for key, value in method.items() if key != "grid"}
    expanded = {}
    for values in itertools.product(*axes.values()):
        setting = dict(zip(axes, values, strict=True))
        label = "-".join([name, *(f"{AXES[axis][1]}{value:g}" for axis, value in setting.items())])
        expanded[label] = {
            **rest,
            **{
                part: {**(rest.get(part) or {}), **{axis: setting[axis] for axis in axes if AXES[axis][0] == part}}
                for part in ("head", "training")
            },
        }
    return expanded


def _checked_axes(name: str, grid: Any) -> dict[str, list[float]]:
    where = f"methods.{name}.grid"
    if not isinstance(grid, dict) or not grid:
        raise ValueError(f"{where} is {grid!r}; it must map settings to lists of values, such as xi: [0.1, 0.2]")
    for axis, values in grid.items():
        if axis not in AXES:
            raise ValueError(f"{where}: {axis!r} cannot be varied; {nearest(str(axis), AXES)}")
        numbers = isinstance(values, list | tuple) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        if not numbers or not values or len(set(values)) != len(values):
            raise ValueError(f"{where}.{axis} is {values!r}; it must be a list of numbers, each once")
    return {axis: list(grid[axis]) for axis in AXES if axis in grid}
