"""The base of every specification: frozen, unknown keys refused with the nearest match."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator
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


def parse(model: type[S], data: Any, where: str) -> S:
    """Validate `data` against a specification.

    Parameters
    ----------
    model
        The specification's class.
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
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(fault) for fault in error.errors()]
        raise ConfigError(f"{where} is not valid:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _explain(fault: Any) -> str:
    # Pydantic names the branch of a union it tried, such as tuple[int, ...]: no key of the user's.
    path = ".".join(str(part) for part in fault["loc"] if "[" not in str(part)) or "(top level)"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] in {"unknown_key", "value_error", "missing"}:
        return f"{path}: {message}"
    return f"{path}: {message}; found {fault['input']!r}"


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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None


def parse_argument(model: type[S], argument: str) -> S:
    """Validate a command-line argument that is either inline JSON or the path of a YAML file.

    Snakemake's rules pass the JSON, which makes `params` the whole truth of what ran; people pass a path.
    """
    if argument.lstrip().startswith("{"):
        try:
            return parse(model, json.loads(argument), "the JSON argument")
        except json.JSONDecodeError as error:
            raise ConfigError(f"the JSON argument does not parse: {error}") from None
    return parse(model, read_yaml(Path(argument)), argument)
