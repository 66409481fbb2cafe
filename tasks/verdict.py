"""Tell in the Prefect UI how the run ended: one artifact with the verdict, its evidence and where everything is, and tags to filter by."""

from __future__ import annotations

from prooftune.providers.collection import MANAGED, ManagedModel
from prooftune.providers.consoles import console_of
from prooftune.report.story import verdict_story
from prooftune.report.wording import TITLES, with_flags
from prooftune.results import address_of
from prooftune.spec import RunSpec
from prooftune.storage.manifest import read_manifest
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.storage.registry import standing
from prooftune.types import RunResult
from tasks.artifacts import show_markdown, tag_run
from tasks.events import emit_verdict

PLACES = {
    "report": "report.html",
    "model card": "model_card.md",
    "technical file": "technical_file.md",
    "Data Docs": "data_docs/index.html",
}
"""What a reader of the verdict opens next, by what it is called."""


def begin_story(spec: RunSpec) -> None:
    """Tag the flow run with its task and backend."""
    tag_run(spec.name, spec.backend.provider)


def tell_verdict(spec: RunSpec, result: RunResult) -> RunResult:
    """Show how the run ended, tag the flow run with the verdict, and tell automations; the result is handed on.

    It belongs to the flow run and to no stage: a run that found every stage done tells its verdict as well.
    """
    objects, flags = open_store(spec.store), spec.store.flags
    stands = with_flags(standing(objects, spec.name, result.run_id), flags)
    story = verdict_story(result, stands, _places(objects, spec, result), f"prooftune show {result.run_id}{flags}")
    in_use = f" {stands.partition(':')[0]}." if stands else ""
    show_markdown(story, key="verdict", description=f"{spec.name}: {TITLES[result.verdict].lower()}.{in_use}")
    tag_run(result.verdict)
    emit_verdict(spec.name, result)
    return result


def _places(store: ObjectStore, spec: RunSpec, result: RunResult) -> dict[str, str]:
    files = read_manifest(store, result.run_id).files
    places = {name: address_of(store.uri, files[file].key) for name, file in PLACES.items() if file in files}
    places["manifest"] = result.manifest
    if (ref := files.get(f"model/{MANAGED}")) is not None:
        tuned = ManagedModel.model_validate_json(store.fetch(ref).read_bytes())
        page = console_of(tuned.provider, tuned.address, tuned.job, spec.backend.objective)
        places[f"job at {tuned.provider}"] = f"{tuned.job}, {page}" if page else tuned.job
        places[f"tuned model at {tuned.provider}"] = tuned.model
    return places
