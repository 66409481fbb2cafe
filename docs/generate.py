"""Write the reference pages from the code: the spec's fields, the command line, the errors, the JSON Schema. `make docs` runs it."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from flows import cli
from prooftune import errors
from prooftune.economics import spending
from prooftune.spec import RunSpec
from prooftune.storage import objects

REFERENCE = Path(__file__).parent / "reference"
MADE = "<!-- Made by docs/generate.py from the code: change the code and run `make docs`. -->\n"
WIDTH = {"max_content_width": 100, "terminal_width": 100}
BOUNDS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}


def pages() -> dict[str, str]:
    """Return the content of every reference page by its file name."""
    return {"spec.md": spec_page(), "cli.md": cli_page(), "errors.md": errors_page(), "spec.schema.json": spec_schema()}


def spec_page() -> str:
    """Return a table for each block of the spec."""
    intro = """
# The spec

A run is described by one YAML file. Only `name` and `data.source` are required. A field that is unknown, of the wrong type or
out of bounds is an error; all errors are reported together. Any field can be set from the command line: `--set data.split.seed=3`.

`prooftune init DIR` writes a spec with these texts as comments. [spec.schema.json](spec.schema.json) lets an editor complete and
check a spec: put `# yaml-language-server: $schema=` and the path of that file into its first line.
"""
    return MADE + intro + "".join(_block("", RunSpec))


def _block(path: str, model: type[BaseModel]) -> Iterator[str]:
    text = _one_line(inspect.getdoc(model) or "")
    title = f"\n## `{path}`\n\n{text}\n" if path else f"\n{text}\n"
    yield title + "\n| field | type | default | meaning |\n|---|---|---|---|\n"
    blocks = []
    for name, field in model.model_fields.items():
        dotted = f"{path}.{name}" if path else name
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            blocks.append((dotted, field.annotation))
            kind, default, meaning = "block", "", f"see [`{dotted}`](#{dotted.replace('.', '')})"
        else:
            kind, default, meaning = _type_of(field), _default_of(field), _one_line(field.description or "")
        yield f"| `{name}` | {_cell(kind)} | {_cell(default)} | {_cell(meaning)} |\n"
    for dotted, block in blocks:
        yield from _block(dotted, block)


def _type_of(field: FieldInfo) -> str:
    return _bounded(_words(field.annotation), field.metadata)


def _words(annotation: Any) -> str:
    """Describe a type in words, its bounds included."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(_words(parts[0]), [item for part in parts[1:] for item in getattr(part, "metadata", [part])])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in parts)
    if origin in (Union, UnionType):
        return " or ".join(_words(part) for part in parts)
    if origin is tuple:
        return f"list of {_words(parts[0])}"
    if origin is dict:
        return _mapping(parts[1])
    return {str: "text", int: "integer", float: "number", bool: "`true` or `false`", NoneType: "null"}[annotation]


def _mapping(value: Any) -> str:
    """Describe a mapping; where its values are blocks, by what they are made of."""
    if not (inspect.isclass(value) and issubclass(value, BaseModel)):
        return "mapping"
    return f"mapping to blocks of {' and '.join(f'[`{name}`](#{name})' for name in value.model_fields)}"


def _bounded(words: str, metadata: list[Any]) -> str:
    bounds = [f"{sign} {getattr(item, name):g}" for item in metadata for kind, (name, sign) in BOUNDS.items() if isinstance(item, kind)]
    bounds += [f"`{item.pattern}`" for item in metadata if isinstance(item, StringConstraints) and item.pattern]
    return " ".join([words, ", ".join(bounds)]).strip()


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, float) and math.isfinite(value):
        return f"`{value:g}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def spec_schema() -> str:
    """Return the JSON Schema of the spec, for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **RunSpec.model_json_schema(), "title": "Prooftune run spec"}
    return json.dumps(schema, indent=2, ensure_ascii=False).replace("``", "`") + "\n"


def cli_page() -> str:
    """Return what ``--help`` says of every command."""
    exit_codes = (inspect.getdoc(cli) or "").partition("Exit codes:")[2]
    intro = f"""
# The command line

Exit codes: {_one_line(exit_codes)}
With `--json` each command prints exactly one JSON document on stdout, also when it fails; everything else goes to stderr.
`PROOFTUNE_DEBUG=1` shows the traceback of an unexpected error, and `NO_COLOR` turns colours off.
"""
    return MADE + intro + "".join(f"\n## `{name}`\n\n```text\n{_unspaced(text)}\n```\n" for name, text in _helps(cli.main, "prooftune"))


def _helps(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Yield the full name and the help of a command, and then of those below it."""
    context = click.Context(command, info_name=name, parent=parent, **{**cli.main.context_settings, **WIDTH})
    yield context.command_path, command.get_help(context)
    for below, one in command.commands.items() if isinstance(command, click.Group) else ():
        yield from _helps(one, below, context)


def errors_page() -> str:
    """Return every error with its base classes, exit code and meaning."""
    intro = """
# The errors

Every error that Prooftune raises on purpose. A message says what was found, what is required, where, and what to do. With `--json` a failed
command prints `error` (the name below), `message`, `exit_code` and `problems`, a list of `where`, `reason` and `code`.
"Do not fine-tune" and a refused candidate are results, not errors: they exit 0.

| error | is also | exit code | meaning |
|---|---|---|---|
"""
    return MADE + intro + "".join(_error_row(kind) for module in (errors, spending, objects) for kind in _errors_of(module))


def _error_row(kind: type[errors.ProoftuneError]) -> str:
    bases = ", ".join(f"`{base}`" for base in _bases(kind))
    return f"| `{kind.__name__}` | {bases} | {kind.exit_code} | {_cell(_one_line(inspect.getdoc(kind) or ''))} |\n"


def _errors_of(module: Any) -> list[type[errors.ProoftuneError]]:
    kinds = [value for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")]
    return [kind for kind in kinds if issubclass(kind, errors.ProoftuneError) and kind.__module__ == module.__name__]


def _bases(kind: type) -> list[str]:
    shown = [base for base in kind.__mro__[1:] if not base.__name__.startswith("_") and issubclass(base, Exception)]
    return [base.__name__ for base in shown if base.__name__ not in ("Exception", "BaseException")]


def _unspaced(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write(made: Mapping[str, str], folder: Path = REFERENCE) -> None:
    """Write the pages into a folder."""
    folder.mkdir(exist_ok=True)
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(pages())
