"""Read the source into records, and note every line that is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from prooftune.errors import DataError
from prooftune.spec import RunSpec, Store
from prooftune.types import FileRef, StageOutput
from tasks.artifacts import show_table
from tasks.policies import policy
from tasks.progress import report_to_ui
from tasks.stage import Stage


@task(**policy("ingest", version=1, timeout_minutes=60))
def ingest(store: Store, source: str, fingerprint: str) -> StageOutput:
    """Read the source, whose content has the given fingerprint; hands on ``records.jsonl`` and ``problems.jsonl``.

    Rejected rows are passed on, not raised: validate raises them together with everything else that is wrong.
    """
    from prooftune.data.fingerprint import fingerprint_source
    from prooftune.data.reading import read_source

    def work(out: Path) -> dict[str, object]:
        figures = read_source(source, out, on_invalid="skip", report=report_to_ui("ingest"))
        if fingerprint_source(source) != fingerprint:
            raise DataError(f"{source} changed while it was read; run again when nothing writes to it")
        return figures

    output = Stage(store).perform(work)
    show_table(
        [{"file": file["name"], "bytes": file["bytes"], "sha256": file["sha256"][:16]} for file in output.figures["files"]],
        key="ingest",
        description=f"{output.figures['rows']:,} records were read, {output.figures['rejected']:,} rows rejected.",
    )
    return output


@task(**(policy("fingerprint", version=1, timeout_minutes=60) | {"cache_policy": NO_CACHE, "persist_result": False}))
def fingerprint(source: str) -> str:
    """Digest the source. Never cached: this is how a change is noticed."""
    from prooftune.data.fingerprint import fingerprint_source

    return fingerprint_source(source)


@task(**(policy("fingerprint_files", version=1, timeout_minutes=60) | {"cache_policy": NO_CACHE, "persist_result": False}))
def fingerprint_files(spec: RunSpec) -> dict[str, FileRef]:
    """Digest the files that the spec names besides its source, by field, and the price list. Never cached, as the source's digest.

    Of a published run that it names, what is used of it: the examples (``old``), the weights (``start_from``).
    """
    from prooftune.data.old import old_run_ref
    from prooftune.economics.prices import price_digest
    from prooftune.evaluation.ladder.passages import documents_digest
    from prooftune.storage.disk import sha256_of, sha256_of_folder
    from prooftune.storage.objects import open_store
    from prooftune.training.start import start_ref

    digests: dict[str, tuple[str | None, Callable[[Path], str]]] = {
        "documents": (spec.baseline.documents, documents_digest),
        "human_labels": (spec.judge.human_labels, sha256_of),
        "lm_eval_folder": (spec.general.lm_eval_folder, sha256_of_folder),
    }
    prices = spec.use.prices
    found = {"prices": FileRef(path=prices or "", sha256=price_digest(Path(prices) if prices else None))}
    found |= {name: FileRef(path=path, sha256=of(Path(path))) for name, (path, of) in digests.items() if path is not None}
    store = open_store(spec.store)
    if spec.data.old.run is not None:
        found["old"] = old_run_ref(store, spec.data.old.run)
    if spec.backend.start_from is not None:
        found["start_from"] = start_ref(store, spec.backend.start_from, spec.backend)
    return found
