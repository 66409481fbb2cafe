"""Makes the order of a managed job from a spec and its splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from prooftune.errors import DataError
from prooftune.providers.submission import Rows
from prooftune.providers.tuning import Order, Tuner
from prooftune.spec import RunSpec
from prooftune.storage.disk import sha256_of
from prooftune.storage.objects import open_store
from prooftune.training.start import start_model


def write_rows(tuner: Tuner, spec: RunSpec, splits: Mapping[str, Path], folder: Path) -> Rows:
    """Write the training and validation splits in the provider's form. The same examples give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {name: folder / f"{name}.jsonl" for name in splits}
    for name, path in splits.items():
        tuner.write_rows(path, spec.task.system, spec.backend.objective, rows[name], spec.backend.model)
    validation = rows.get("validation")
    return Rows(rows["train"], validation if validation is not None and validation.stat().st_size else None)


def order_of(tuner: Tuner, spec: RunSpec, rows: Rows) -> Order:
    """Return what a spec orders: its digest is the run key. The run that it goes on from, where the spec names one, is in the spec's store.

    Raises:
        SpecError: the provider cannot go on from that run.
    """
    run = spec.backend.start_from
    grader = spec.provider.grader
    return Order(
        provider=tuner.provider,
        address=tuner.address,
        model=spec.backend.model,
        objective=spec.backend.objective,
        hyperparameters=spec.provider.hyperparameters,
        seed=spec.backend.method.seed,
        name=spec.name,
        train_sha256=sha256_of(rows.train),
        validation_sha256=sha256_of(rows.validation) if rows.validation else None,
        start=None if run is None else start_model(open_store(spec.store), run, spec.backend, tuner.address),
        grader=json.dumps(grader, sort_keys=True) if grader else None,
    )


def checked_order(tuner: Tuner, spec: RunSpec, splits: Mapping[str, Path], folder: Path) -> tuple[Order, Rows]:
    """Write the rows and return them with what the spec orders; the provider's own rules are kept by every row.

    Raises:
        DataError: the provider would refuse rows.
    """
    rows = write_rows(tuner, spec, splits, folder)
    order = order_of(tuner, spec, rows)
    problems = tuner.check_rows(rows.train, order, "train")
    if rows.validation:
        problems += tuner.check_rows(rows.validation, order, "validation")
    if problems:
        raise DataError(f"{order.provider} would refuse {len(problems)} rows:", tuple(problems))
    return order, rows
