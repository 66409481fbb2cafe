"""Turn records into examples, and say what was wrong with the rest."""

from __future__ import annotations

from prefect import task

from prooftune.spec import Data, Store
from prooftune.types import FileRef, StageOutput
from tasks.artifacts import show_link, show_table
from tasks.policies import policy
from tasks.progress import report_to_ui
from tasks.stage import Stage


@task(**policy("validate", version=1, timeout_minutes=60))
def validate(store: Store, data: Data, ingested: StageOutput, old: FileRef | None = None) -> StageOutput:
    """Clean, de-duplicate and check the records with Great Expectations; hands on ``examples.jsonl``, ``findings.jsonl``, Data Docs."""
    from prooftune.data.old import read_old_run
    from prooftune.data.validation import validate as validate_records

    stage = Stage(store)
    records, problems = stage.path(ingested, "records.jsonl"), stage.path(ingested, "problems.jsonl")
    known = None if old is None else read_old_run(stage.objects, old.path)
    output = stage.perform(lambda out: validate_records(records, problems, data, out, report_to_ui("validate"), known))
    show_table(
        [{"found": code, **actions} for code, actions in output.figures["findings"].items()],
        key="validate",
        description=f"{output.figures['kept']:,} of {output.figures['rows']:,} records are usable examples.",
    )
    docs = f"{stage.objects.uri}/{output.artifacts['data_docs/index.html'].key}"
    show_link(docs, key="data-docs", description="Data Docs: what Great Expectations expected of the examples, and found.")
    return output
