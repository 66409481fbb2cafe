"""What runs are called in the Prefect UI: a flow run by its spec, a task run by its stage and what that does in a few words."""

from __future__ import annotations

import re
from typing import Final

from prefect.context import FlowRunContext

_DOES: Final = {
    "model": "find the base model",
    "probe": "ask the provider about the base model",
    "fingerprint": "digest the source",
    "fingerprint_files": "digest the other files",
    "ingest": "read the records",
    "validate": "clean and check the records",
    "split": "seal the holdout",
    "format": "write the training files",
    "tokens": "count what is trained on",
    "require_tunable": "refuse what cannot be tuned",
    "preflight": "look at what is supervised",
    "estimate": "say what it may cost",
    "hold": "keep the money free",
    "approval": "note a person's answer",
    "baselines": "prompt the base model",
    "advise": "weigh whether to train",
    "submit": "see to one job, and wait for it",
    "wait": "wait for the job on the cluster",
    "train": "make the candidate",
    "evaluate": "score the candidate",
    "find_champion": "find the champion in use",
    "champion": "meet the champion",
    "costs": "price each way to serve",
    "forgetting": "measure what was forgotten",
    "judge": "let a model compare the answers",
    "failures": "look for what failures share",
    "learn": "train on {share:.0%} of the examples",
    "learning_curve": "ask whether more would help",
    "gate": "decide",
    "settle": "settle the bill",
    "report": "write the report",
    "upload": "publish the run",
    "register": "enter it in the registry",
    "compare": "compare the backends",
    "settle_promotion": "note a person's answer in the registry",
    "admit": "ask whether a retraining may start",
    "compose": "say what is new",
    "end_retraining": "note what came of it",
}
"""By stage; a text may name a parameter of the stage's task."""


def title_of_run() -> str:
    """Return what a flow run of a spec is called: as somebody has named it, or else by what it does.

    The server and the UI's form make names up (``hopeful-otter``, ``xi3-inoue-fringe``), which tell nobody anything.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.parameters is None:
        raise RuntimeError("a flow run is named inside a flow run only")
    name = context.flow_run.name
    return str(context.parameters["spec"].title) if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name) else name


def run_name(stage: str) -> str:
    """Return the template of a stage's task-run name: ``ingest: read the records``."""
    return f"{stage}: {_DOES[stage]}" if stage in _DOES else stage
