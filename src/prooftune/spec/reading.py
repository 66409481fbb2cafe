"""Reads a spec from YAML, applies ``key=value`` overrides and reports every problem at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from prooftune.errors import Problem, SpecError
from prooftune.spec.run import RunSpec
from prooftune.spec.training import Store

PATHS = (
    "data.source",
    "baseline.documents",
    "judge.human_labels",
    "use.prices",
    "general.lm_eval_folder",
    "watch.feedback",
    "watch.traffic",
)
"""Fields with a path or URI."""


def load_spec(path: Path | str, overrides: Sequence[str] = ()) -> RunSpec:
    """Read a YAML spec and apply ``dotted.key=value`` overrides (values are YAML).

    A relative path in the file (``PATHS``) is looked up beside the file, one in an override from the current folder.

    Raises:
        SpecError: with every problem found, each with its dotted field.
    """
    path = Path(path)
    raw = _read_yaml(path)
    for key in PATHS:
        _resolve(raw, key, path.parent.resolve())
    for key, value in _parse_overrides(overrides):
        _set(raw, key, value)
        if key in PATHS:
            _resolve(raw, key, Path.cwd())
    return parse_spec(raw, where=str(path))


def parse_spec(raw: dict[str, object], where: str = "spec") -> RunSpec:
    """Turn a nested mapping into a spec.

    Raises:
        SpecError: with every problem found.
    """
    try:
        return RunSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(f"{where} is not a usable spec:", tuple(_problems(error))) from None


def store_at(uri: str, endpoint_url: str | None = None) -> Store:
    """Return the store block for an address given on the command line.

    Raises:
        SpecError: the address cannot be one.
    """
    try:
        return Store(uri=uri, endpoint_url=endpoint_url)
    except ValidationError as error:
        raise SpecError("the store's address is not usable:", tuple(_problems(error))) from None


def _read_yaml(path: Path) -> dict[str, object]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SpecError(f"no spec at {path}; `prooftune init DIR` writes one to start from") from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a folder; a spec is a YAML file") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SpecError(f"{path} is nested too deeply to be a spec") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # of a scalar that looks like a date or number and is none, such as 2026-13-01
        raise SpecError(f"{path} holds a value that YAML cannot read: {error}; quote it if it is text") from None
    if not isinstance(raw, dict):
        raise SpecError(f"{path} holds {type(raw).__name__}; a spec is a mapping that starts with `name:`")
    return raw


def _resolve(raw: dict[str, object], key: str, folder: Path) -> None:
    """Make a relative path in the field ``key`` absolute."""
    block, _, field = key.partition(".")
    found = raw.get(block)
    if isinstance(found, dict) and isinstance(place := found.get(field), str) and _is_relative_path(place):
        found[field] = str(folder / place)


def _is_relative_path(source: str) -> bool:
    return "://" not in source and not Path(source).is_absolute()


def _parse_overrides(overrides: Iterable[str]) -> Iterable[tuple[str, object]]:
    for text in overrides:
        key, sign, value = text.partition("=")
        if not sign or not re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", key):
            raise SpecError(f"--set {text!r} is not of the form dotted.key=value, such as data.split.seed=3")
        try:
            yield key, yaml.safe_load(value)
        except yaml.YAMLError:
            raise SpecError(f"--set {key}: {value!r} is not a YAML value; quote it if it is text") from None


def _set(raw: dict[str, object], key: str, value: object) -> None:
    *parents, leaf = key.split(".")
    node = raw
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise SpecError(f"--set {key}: {parent} is {child!r} and has no fields")
        node = child
    node[leaf] = value


def _problems(error: ValidationError) -> Iterable[Problem]:
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"]) or "spec"
        # What stands in an unknown field, or in an address that was refused, may be a secret.
        shown = item["type"] not in ("missing", "extra_forbidden") and "credentials" not in item["msg"]
        found = f" (found {_shorten(item['input'])})" if shown else ""
        yield Problem(where, f"{item['msg'].removeprefix('Value error, ')}{found}", code=item["type"])


def _shorten(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
