"""Metrics of answers that a program reads as JSON.

========================  ===================================================================  =================
metric                    score of one example                                                 value
========================  ===================================================================  =================
``json_valid``            1 if the answer is JSON with exactly the target's keys               mean
``json_schema``           1 if the answer complies with ``task.json_schema``                   mean
``json_field_accuracy``   share of the target's top-level fields that the answer gets right    mean
``json_field_precision``  share of the answer's fields that are the target's                   micro-average
``json_field_recall``     share of the target's fields that are the answer's                   micro-average
========================  ===================================================================  =================

Answers are judged as they came: JSON in a code fence is none. For precision and recall a field is a path and what stands there: objects are
taken apart, and the elements of a list count one by one, in any order. An answer that is no JSON has no fields.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from prooftune.errors import SpecError
from prooftune.evaluation.metrics.definition import Corpus, Definition
from prooftune.spec import Task

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

    from prooftune.evaluation.statistics import Floats

NOT_JSON: Final = object()
DIALECT = "https://json-schema.org/draft/2020-12/schema"
Field = tuple[tuple[str, ...], object]
"""Path of keys, and the canonical value there."""


def parse(text: str) -> object:
    """Return the JSON value of a text, or ``NOT_JSON``; a key given twice makes it none, because readers disagree about it."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return NOT_JSON


def same(a: object, b: object) -> bool:
    """Return whether two JSON values are equal as data."""
    try:
        return _canonical(a) == _canonical(b)
    except RecursionError:  # an answer nested hundreds deep is no one's target
        return False


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is given twice")
    return fields


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _canonical(value: object) -> object:
    """Return a form that is equal exactly for equal JSON: key order does not matter, 1 and 1.0 are one number, and true is not 1."""
    if isinstance(value, dict):
        return frozenset((key, _canonical(field)) for key, field in value.items())
    if isinstance(value, list):
        return tuple(_canonical(item) for item in value)
    return isinstance(value, bool), value


def _valid(answer: str, target: str, task: Task) -> float | None:
    wanted, found = parse(target), parse(answer)
    if isinstance(wanted, dict):
        return float(isinstance(found, dict) and found.keys() == wanted.keys())
    return float(isinstance(found, list)) if isinstance(wanted, list) else None


def _complies(answer: str, target: str, task: Task) -> float | None:
    """Return whether the answer complies; a target that does not is unscored, for the schema does not describe it."""
    if task.json_schema is None:
        raise SpecError("the metric json_schema needs task.json_schema")
    validator = _validator(json.dumps(task.json_schema, sort_keys=True))
    return float(_follows(validator, parse(answer))) if _follows(validator, parse(target)) else None


@lru_cache(maxsize=8)
def _validator(schema: str) -> Validator:
    """Return the validator of a schema; ``format`` stays an annotation, as the draft has it, and nothing is fetched from the network.

    Raises:
        SpecError: it is no JSON Schema of draft 2020-12.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry

    value = json.loads(schema)
    if (dialect := value.get("$schema", DIALECT).removesuffix("#")) != DIALECT:
        raise SpecError(f"task.json_schema is written for {dialect}; only draft 2020-12 ({DIALECT}) is read")
    try:
        Draft202012Validator.check_schema(value)
    except SchemaError as error:
        place = "/".join(str(part) for part in error.absolute_path) or "its top level"
        raise SpecError(f"task.json_schema is no JSON Schema of draft 2020-12: at {place}, {error.message}") from None
    return Draft202012Validator(value, registry=Registry())


def _follows(validator: Validator, value: Any) -> bool:
    from referencing.exceptions import Unresolvable

    if value is NOT_JSON:
        return False
    try:
        return validator.is_valid(value)
    except Unresolvable as error:
        raise SpecError(f"task.json_schema refers to {error.ref!r}, which is not in it; put the definition under $defs") from None
    except (RecursionError, OverflowError):  # nested hundreds deep, or a number of hundreds of digits
        return False


def _field_accuracy(answer: str, target: str, task: Task) -> float | None:
    wanted, found = parse(target), parse(answer)
    if not isinstance(wanted, dict) or not wanted:
        return None
    if not isinstance(found, dict):
        return 0.0
    return sum(key in found and same(found[key], value) for key, value in wanted.items()) / len(wanted)


def _precision(answer: str, target: str, task: Task) -> float | None:
    wanted, found = _fields(target), _fields(answer)
    return (wanted & found).total() / max(found.total(), 1) if wanted else None


def _recall(answer: str, target: str, task: Task) -> float | None:
    wanted, found = _fields(target), _fields(answer)
    return (wanted & found).total() / wanted.total() if wanted else None


def _fields(text: str) -> Counter[Field]:
    """Return the fields of a JSON object or list; any other text has none."""
    value = parse(text)
    try:
        return Counter(_leaves((), value)) if isinstance(value, dict | list) and value else Counter()
    except RecursionError:  # as in ``same``
        return Counter()


def _leaves(path: tuple[str, ...], value: object) -> list[Field]:
    if isinstance(value, dict) and value:
        return [leaf for key, field in value.items() for leaf in _leaves((*path, key), field)]
    if isinstance(value, list) and value:
        return [(path, _canonical(item)) for item in value]
    return [(path, _canonical(value))]


def _rows_of_answers(answers: Sequence[str], targets: Sequence[str], task: Task) -> Floats:
    return _rows([(_fields(answer), _fields(target)) for answer, target in zip(answers, targets, strict=True)], of=0)


def _rows_of_targets(answers: Sequence[str], targets: Sequence[str], task: Task) -> Floats:
    return _rows([(_fields(answer), _fields(target)) for answer, target in zip(answers, targets, strict=True)], of=1)


def _rows(pairs: Sequence[tuple[Counter[Field], Counter[Field]]], of: int) -> Floats:
    """Return per example the fields that both have, and those that one side has: ``(n, 2)``."""
    import numpy as np

    return np.array([[(pair[0] & pair[1]).total(), pair[of].total()] for pair in pairs], dtype=np.float64)


def _share(sums: Floats) -> Floats:
    """Return the first column over the second; of no fields at all, none is right."""
    import numpy as np

    values: Floats = sums[:, 0] / np.maximum(sums[:, 1], 1)
    return values


JSON_METRICS = {
    "json_valid": Definition(_valid, right_or_wrong=True),
    "json_schema": Definition(_complies, right_or_wrong=True),
    "json_field_accuracy": Definition(_field_accuracy),
    "json_field_precision": Definition(_precision, corpus=Corpus(_rows_of_answers, _share)),
    "json_field_recall": Definition(_recall, corpus=Corpus(_rows_of_targets, _share)),
}
