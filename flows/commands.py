"""What each command of the command line answers, as JSON. None of it imports torch or prefect."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from prooftune.errors import DataError, EnvironmentLacks, Problem, SpecError
from prooftune.spec import RunSpec, load_spec
from prooftune.types import SplitName

if TYPE_CHECKING:
    from flows.rehearsal import Rehearsal

SPEC, TICKETS = "spec.yaml", "tickets.jsonl"
SAMPLE = "support-triage"


def examples_folder() -> Path:
    """Return the folder of examples: in an installed package, or beside ``flows/`` in a clone.

    Raises:
        EnvironmentLacks: neither is there.
    """
    import prooftune

    places = Path(prooftune.__file__).parent / "examples", Path(__file__).resolve().parent.parent / "examples"
    for place in places:
        if (place / SAMPLE / SPEC).is_file():
            return place
    raise EnvironmentLacks(f"the example {SAMPLE}/{SPEC} is neither in {places[0]} nor in {places[1]}; install prooftune again")


def demo_spec() -> Path:
    """Return the spec that ``prooftune demo`` runs."""
    return examples_folder() / SAMPLE / SPEC


def initialise(directory: Path) -> dict[str, Any]:
    """Write a commented spec and sample data; nothing that is there is overwritten.

    Raises:
        SpecError: a file of that name is there already.
        EnvironmentLacks: the folder cannot be written.
    """
    import yaml

    from prooftune.spec_text import commented_spec

    sample = examples_folder() / SAMPLE
    values = yaml.safe_load((sample / SPEC).read_text(encoding="utf-8"))
    values |= {"name": _name_of(directory)}
    spec, data = directory / SPEC, directory / TICKETS
    taken = [path for path in (spec, data) if path.exists() or path.is_symlink()]
    if taken:
        raise SpecError(f"{' and '.join(map(str, taken))} exist already and were left as they were; name another folder, or move them away")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with data.open("xb") as copy, (sample / TICKETS).open("rb") as original:
            shutil.copyfileobj(original, copy)
        with spec.open("x", encoding="utf-8", newline="\n") as file:
            file.write(commented_spec(values))
    except OSError as error:
        raise EnvironmentLacks(f"{error.filename or directory} cannot be written: {error.strerror}; name a folder that can") from None
    rows = sum(1 for _ in (sample / TICKETS).open("rb"))
    return {"directory": str(directory), "spec": str(spec), "data": str(data), "rows": rows, "name": values["name"]}


def _name_of(directory: Path) -> str:
    """Make a run's name of a folder's."""
    name = re.sub(r"[^a-z0-9]+", "-", directory.resolve().name.lower()).strip("-")[:40].strip("-")
    return name or SAMPLE


def check(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """List everything that is wrong with spec and data, all at once. ``usable`` says whether a run would go on.

    Raises:
        SpecError: the spec is unusable; the data was then not looked at.
        StoreUnavailable, TransientError: the source is in a bucket or hub that refuses or cannot be reached.
    """
    from flows.rehearsal import rehearse
    from prooftune.storage.objects import open_store

    spec = load_spec(path, overrides)
    open_store(spec.store)  # touches nothing; refuses what can be no store's address
    with _scratch_folder() as folder:
        found = rehearse(spec, folder)
        refusals, lacks = _unmeasurable(spec, folder / "split" / "holdout.jsonl", found)
    ingested, validated, divided = (found.figures.get(stage, {}) for stage in ("ingest", "validate", "split"))
    rows = validated.get("rows", ingested.get("rows", 0))
    return {
        "usable": not (found.refusals or refusals),
        "spec": str(path),
        "name": spec.name,
        "source": spec.data.source,
        "rows": rows,
        "invalid": found.invalid,
        "kept": validated.get("kept", 0),
        "shape": validated.get("shape"),
        "split": divided.get("counts"),
        "findings": found.counts,
        "reasons": [*(error.message for error in found.refusals), *refusals],
        "warnings": [*_too_little(spec, divided), *_expectations(validated), *lacks],
        "problems": [finding.model_dump() for finding in found.findings],
    }


def estimate(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Say what a run would do, with tokens, seconds and USD, and do none of it but look at the data in a temporary folder.

    Raises:
        SpecError, DataError: a run would not get as far as training.
        StoreUnavailable, TransientError: the source is in a bucket or hub that refuses or cannot be reached.
    """
    from flows.planning import plan

    with rehearsed(path, overrides) as (spec, found, splits):
        return {"spec": str(path), **plan(spec, found, splits), "warnings": _too_little(spec, found.figures["split"])}


@contextmanager
def rehearsed(path: Path, overrides: Sequence[str]) -> Iterator[tuple[RunSpec, Rehearsal, dict[SplitName, Path]]]:
    """Give a spec, what its data stages found, and its splits, which are gone afterwards.

    Raises:
        SpecError, DataError: a run would not get as far as training.
    """
    from flows.rehearsal import rehearse

    spec = load_spec(path, overrides)
    with _scratch_folder() as folder:
        found = rehearse(spec, folder)
        if found.refusals:
            problems = tuple(
                Problem(finding.where, finding.reason, finding.code) for finding in found.findings if finding.action == "dropped"
            )
            raise DataError("; ".join(error.message.rstrip(":") for error in found.refusals), problems)
        yield spec, found, {name: folder / "split" / f"{name}.jsonl" for name in get_args(SplitName)}


def show_run(run_id: str | None, store_uri: str, endpoint_url: str | None = None) -> dict[str, Any]:
    """Return how a published run ended, or, without an id, one line for each run of the store.

    Raises:
        NoSuchObject, InvalidKey, IntegrityError: there is no such run, its id is none, or its manifest is damaged.
    """
    from prooftune.results import read_result, result_json
    from prooftune.spec import store_at
    from prooftune.storage.manifest import list_runs
    from prooftune.storage.objects import open_store

    store = open_store(store_at(store_uri, endpoint_url))
    if run_id is not None:
        return result_json(read_result(store, run_id))
    results = [read_result(store, run) for run in list_runs(store)]
    runs = [
        {"run_id": result.run_id, "verdict": result.verdict, **result.decision.model_dump(include=set(_LISTED)), "report": result.report}
        for result in results
    ]
    return {"store": store.uri, "runs": runs}


_LISTED = ("metric", "baseline", "baseline_value", "candidate_value", "difference", "n")


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix="prooftune-") as folder:
            yield Path(folder)
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(tempfile.gettempdir()):
            raise
        raise EnvironmentLacks(f"the temporary folder cannot be used: {error}; free some space, or set TMPDIR to another disk") from None


def _unmeasurable(spec: RunSpec, holdout: Path, found: Rehearsal) -> tuple[list[str], list[str]]:
    """Return what is wrong with what is to be measured, and what this machine lacks for it: a run may be on another."""
    from prooftune.economics.policy import by_code
    from prooftune.evaluation.measurable import check_measurable

    if not holdout.is_file():
        return [], []
    try:
        check_measurable(spec, holdout, by_code(found.figures["validate"]["findings"]))
    except (SpecError, DataError) as error:
        return [str(error)], []
    except EnvironmentLacks as error:
        return [], [str(error)]
    return [], []


def _too_little(spec: RunSpec, divided: dict[str, Any]) -> list[str]:
    """Why a run on so few examples would end in ``do_not_fine_tune``."""
    from prooftune.evaluation.gate import worth_training

    if not divided:
        return []
    counts = divided["counts"]
    decision = worth_training(counts["train"], counts["holdout"], (), spec)
    return [f"A run would end in do_not_fine_tune. {reason}" for reason in decision.reasons] if decision else []


def _expectations(validated: dict[str, Any]) -> list[str]:
    warnings = validated.get("expectations", {}).get("warnings", [])
    return [
        f"Not as expected of {warning['suite'].replace('-', ' ')}: {warning['expectation']} Found {warning['observed']}."
        for warning in warnings
    ]
