"""Write a spec that explains itself: every field with its description, made from the model of the spec so that it cannot fall behind."""

from __future__ import annotations

import inspect
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from prooftune.spec import RunSpec

WIDTH = 100
HEADER = """\
What Prooftune is to do. A line `#key: value` shows a default: to change it, take away its `#` and that of the
block above it. Check the spec with `prooftune validate`, see what it would take with `prooftune plan`, then
`prooftune run`. Any field can be set from the command line: --set data.split.seed=3"""
LF = "\n"
_COMMENTED_OUT = re.compile(r"^( *)#(?! |$)", re.MULTILINE)


def commented_spec(values: Mapping[str, Any]) -> str:
    """Return a YAML spec with ``values`` set and all other fields commented out with their defaults.

    Raises:
        ValueError: ``values`` has a field that a spec has not.
    """
    lines = [*(f"# {line}" for line in HEADER.splitlines()), "", *_block(RunSpec, values, indent=0)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines).rstrip() + "\n")


def with_defaults(text: str) -> str:
    """Return a commented spec with every field that is commented out taken in."""
    return _COMMENTED_OUT.sub(r"\1", text)


def _block(model: type[BaseModel], values: Mapping[str, Any], indent: int) -> Iterator[str]:
    if unknown := sorted(set(values) - set(model.model_fields)):
        raise ValueError(f"{model.__name__} has no field {', '.join(unknown)}")
    space = " " * indent
    for name, field in model.model_fields.items():
        is_set = name in values
        nested = field.annotation if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel) else None
        yield from _comment(field, nested, space)
        if nested is not None:
            yield f"{space}{'' if is_set else '#'}{name}:"
            yield from _block(nested, values.get(name, {}), indent + 2)
        else:
            value = values[name] if is_set else _plain(field.get_default(call_default_factory=True))
            yield from _setting(name, value, space, commented_out=not is_set)
        yield ""


def _comment(field: FieldInfo, nested: type[BaseModel] | None, space: str) -> Iterator[str]:
    text = field.description or (inspect.getdoc(nested) or "").split("\n\n")[0] if nested else field.description or ""
    choices = _choices(field.annotation)
    parts = [*textwrap.wrap(" ".join(text.replace("``", "`").split()), WIDTH - len(space) - 2), *([" | ".join(choices)] if choices else [])]
    yield from (f"{space}# {line}" for line in parts)


def _choices(annotation: object) -> list[str]:
    """The values of a Literal, also inside a tuple, an Optional or an Annotated."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)] if len(get_args(annotation)) > 1 else []
    if get_origin(annotation) in (tuple, Union, UnionType, Annotated):
        return [choice for part in get_args(annotation) for choice in _choices(part)]
    return []


def _setting(name: str, value: object, space: str, *, commented_out: bool) -> Iterator[str]:
    if isinstance(value, str) and _is_block(value):
        lines = [f"{name}: {'|' if value.endswith(LF) else '|-'}", *(f"  {line}" if line else "" for line in value.rstrip(LF).split(LF))]
    else:
        # Only double quotes have escapes for controls and odd line breaks.
        style = '"' if isinstance(value, str) and not value.isprintable() else None
        text = yaml.safe_dump(value, default_flow_style=True, default_style=style, allow_unicode=True, width=math.inf)
        lines = [f"{name}: {text.strip().removesuffix('...').strip()}"]
    for line in lines:
        yield f"{space}{'#' if commented_out else ''}{line}" if line else ""


def _is_block(text: str) -> bool:
    """Whether it is several lines that YAML can hold as they are; anything else is quoted."""
    lines = text.removesuffix(LF).split(LF)
    return len(lines) > 1 and not lines[0].startswith(" ") and all(lines[i] for i in (0, -1)) and all(map(str.isprintable, lines))


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
