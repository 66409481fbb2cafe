"""A made-up managed run for the tests of the report: at any provider, promoted, with its job, estimate, bill and approval."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prooftune.economics.approvals import Answer
from prooftune.economics.bill import Bill, BillLine
from prooftune.economics.managed import Estimate, Line
from prooftune.providers.collection import JobFile, ManagedModel, Step
from prooftune.providers.tuning import Checkpoint, Job
from prooftune.report.view import RunView
from prooftune.spec import parse_spec
from tests.fixtures_evidence import make_full_view
from tests.fixtures_report import make_view

KEY = "prooftune-026c2a62eab6b7b758f86401"
MODELS = {
    "openai": "ft:gpt-4.1-mini:org:triage:1",
    "azure": "gpt-4.1-mini-2025-04-14.ft-1",
    "together": "org/triage-1",
    "fireworks": "accounts/org/models/triage-1",
    "vertex": "projects/1/locations/us-central1/endpoints/2",
    "bedrock": "arn:aws:bedrock:us-west-2:1:custom-model/2",
}
BASES = {"together": "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference", "fireworks": "accounts/fireworks/models/llama-v3p1-8b-instruct"}
PROVIDERS: dict[str, dict[str, Any]] = {
    "azure": {"base_url": "https://name.openai.azure.com/openai/v1", "resource": "/subscriptions/1/accounts/name"},
    "bedrock": {"region": "us-west-2", "bucket": "s3://b/p", "role_arn": "arn:aws:iam::1:role/r"},
    "vertex": {"project": "p", "region": "us-central1", "bucket": "gs://b/p"},
    "fireworks": {"project": "org"},
}


def line(what: str, quantity: float, unit: str, each: float) -> Line:
    """Return a line of an estimate."""
    return Line(what=what, quantity=quantity, unit=unit, usd_per_unit=each, usd=quantity * each, source="a page", checked="2026-11-22")


ESTIMATE = Estimate(
    offer="openai/gpt-4.1-mini",
    training_tokens=46_599,
    exact=True,
    how="o200k_base, 3 tokens a message and 3 a row",
    lines=(
        line("training", 46_599, "tokens", 5e-6),
        line("baselines, read", 60_000, "tokens", 4e-7),
        line("judge, read", 10_000, "tokens", 1e-6),
    ),
    usd=0.266995,
)
BILL = Bill(
    lines=(
        BillLine(part="training", what="training", quantity=46_599, unit="tokens", usd=0.232995, told_by="the provider"),
        BillLine(
            part="base model", what="baselines: answers of base model", quantity=27_538, unit="tokens", usd=0.017, told_by="openai/gpt"
        ),
    ),
    usd=0.249995,
    estimated_usd=ESTIMATE.usd,
    training_tokens_estimated=46_599,
    training_tokens_billed=46_599,
    left_out=("judge: the price list has no price for own judge",),
)


def make_managed_view(provider: str = "openai", *, hostile: str = "", full: bool = False, **options: Any) -> RunView:
    """Return the view of a promoted run at a provider; ``options`` are further fields of the spec's block ``provider``."""
    view = make_full_view("promote", hostile) if full else make_view("promote", hostile)
    base = BASES.get(provider, "gpt-4.1-mini")
    spec = parse_spec(
        view.spec.model_dump()
        | {"backend": {"provider": provider, "model": base}, "provider": {**PROVIDERS.get(provider, {}), **options}}
        | {"gate": {"looks": 1}}
    )
    model = MODELS[provider]
    train = {"steps": 216, "best_step": 180, "provider": provider, "job": "job-1", "tuned_model": model, "trained_tokens": 46_599}
    return view.model_copy(
        update={
            "spec": spec,
            "figures": {**view.figures, "train": train | {"billed_usd": None, "job_seconds": 754.0, "result_files": ["metrics.csv"]}},
            "seconds": {**view.seconds, "train": 0.1},
            "managed": ManagedModel(
                provider=provider,
                address=spec.provider.base_url or "https://api.example/v1",
                base_model=base,
                model=model,
                job="job-1",
                key=KEY,
                shutdown="2027-01-14" if provider == "openai" else None,
                owns_weights=provider in ("together", "fireworks"),
            ),
            "job": JobFile(
                job=Job(id="job-1", status="succeeded", told="succeeded", model=model, created_at=datetime(2026, 11, 26, tzinfo=UTC)),
                history=(
                    Step(at="2026-11-26T18:03:30.280+00:00", what="intended"),
                    Step(at="2026-11-26T18:16:04+00:00", what="seen: succeeded"),
                ),
                checkpoints=(Checkpoint(id="checkpoint-1", step=108),),
            ),
            "estimate": ESTIMATE,
            "bill": BILL,
            "approval": Answer(
                key="triage-1", usd=0.266995, approved=True, by="ada", reason=f"worth it{hostile}", at="2026-11-26T18:00:00+00:00"
            ),
        }
    )
