"""The base of every specification: frozen, unknown keys refused with the nearest match."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from rine_cache.errors import ConfigError, nearest

# Names become file names and wildcards, so that they may hold neither a slash nor a space.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


class Spec(BaseModel):
    """A frozen description with no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    message = "unknown key {key}; {hint}"
                    hint = nearest(str(key), cls.model_fields)
                    raise PydanticCustomError("unknown_key", message, {"key": repr(key), "hint": hint})
        return data


S = TypeVar("S", bound=Spec)
# The keys that say which of several specifications a table is; see `HeadSpec`, `ViewSpec` and `PrepareSpec`.
DISCRIMINATORS = ("kind", "op")


def parse(model: type[S] | TypeAdapter[S], data: Any, where: str) -> S:
    """Validate `data` against a specification.

    Parameters
    ----------
    model
        The specification's class, or the adapter of a union of such.
    data
        What YAML, JSON or Snakemake gave: dictionaries, lists and scalars.
    where
        Where `data` came from, named in the error.

    Raises
    ------
    ConfigError
        With one line per fault: the path of the key, what was wrong, and the value found.
    """
    try:
        return model.validate_python(data) if isinstance(model, TypeAdapter) else model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(fault, data) for fault in error.errors()]
        raise ConfigError(f"{where} is not valid:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _explain(fault: Any, data: Any) -> str:
    keys, found, message = _keys(fault["loc"], data), fault["input"], str(fault["msg"]).removeprefix("Value error, ")
    context = fault.get("ctx", {})
    if fault["type"] == "union_tag_not_found":
        key = context["discriminator"].strip("'")
        typo = get_close_matches(key, map(str, found), n=1)
        if typo:
            return f"{_path(keys)}: unknown key {typo[0]!r}; did you mean {key!r}?"
        return f"{_path([*keys, key])}: Field required"
    if fault["type"] == "union_tag_invalid":
        key = context["discriminator"].strip("'")
        keys, found = [*keys, key], found[key]
        message = nearest(str(found), re.findall(r"'([^']*)'", context["expected_tags"]))
    if fault["type"] == "literal_error" and isinstance(found, str):
        message = nearest(found, re.findall(r"'([^']*)'", context["expected"]))
    if fault["type"] in {"unknown_key", "value_error", "missing"}:
        return f"{_path(keys)}: {message}"
    return f"{_path(keys)}: {message}; found {found!r}"


def _path(keys: list[str]) -> str:
    return ".".join(keys) or "(top level)"


def _keys(location: tuple[str | int, ...], data: Any) -> list[str]:
    """List the user's keys that lead to a fault.

    Pydantic also names the branch of a union it tried: a type such as tuple[int, ...], or a discriminator's value.
    """
    keys: list[str] = []
    for part in location:
        if "[" in str(part):
            continue
        if isinstance(data, dict) and part not in data and part in [data.get(key) for key in DISCRIMINATORS]:
            continue
        keys.append(str(part))
        within = data if isinstance(data, dict) else dict(enumerate(data)) if isinstance(data, list) else {}
        data = within.get(part)
    return keys


def read_yaml(path: Path) -> Any:
    """Read a YAML (or JSON) file.

    Raises
    ------
    ConfigError
        If the file is missing or is not YAML; names the line.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # such as a date of no month, a number of thousands of digits
        raise ConfigError(f"{path} is not valid YAML: {error}") from None


def parse_argument(model: type[S] | TypeAdapter[S], argument: str) -> S:
    """Validate a command-line argument that is either inline JSON or the path of a YAML file.

    Snakemake's rules pass the JSON, which makes `params` the whole truth of what ran; people pass a path.
    """
    if argument.lstrip().startswith("{"):
        try:
            data = json.loads(argument)
        except ValueError as error:
            raise ConfigError(f"the JSON argument does not parse: {error}") from None
        return parse(model, data, "the JSON argument")
    return parse(model, read_yaml(Path(argument)), argument)
