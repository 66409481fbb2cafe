"""`compare` over this machine and two providers: one seal, and a table with all that the choice between them rests on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures_desk import opened
from fixtures_together import KEY as TOGETHER_KEY
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter
from tests_support import toy_rows, write_jsonl

from prooftune.report.wording import name_of
from prooftune.sandbox.http import serving
from prooftune.sandbox.models import CannedBrain
from prooftune.sandbox.together import TogetherApi
from prooftune.sandbox.together_jobs import MODEL
from prooftune.storage.manifest import read_manifest
from tests.fixtures_report import Page

pytest_plugins = ["fixtures_desk"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("surroundings")]  # three whole runs: a minute and a half

METHOD = {"kind": "full", "epochs": 6, "learning_rate": 5.0e-3, "batch_size": 8, "early_stopping": None, "checks_per_epoch": 2}
BACKENDS = ["local", "openai", "together"]


@pytest.fixture(scope="module")
def compared(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `prooftune compare SPEC --backends local,openai,together` answers, with the stand-ins' deployments and seals."""
    folder = tmp_path_factory.mktemp("compare")
    together = TogetherApi(CannedBrain(), folder / "together")
    with opened(folder, folder / "openai") as desk, serving(together) as address, pytest.MonkeyPatch.context() as patched:
        patched.setenv("TOGETHER_API_KEY", TOGETHER_KEY)
        patched.setattr("prooftune.providers.together_connection.READY_PAUSE_S", 0.01)
        source = write_jsonl(desk.folder / "toy.jsonl", toy_rows(240))
        elsewhere = {
            "openai": {
                "backend": {"provider": "openai", "model": "gpt-4.1-mini"},
                "provider": {"base_url": f"{desk.address}/v1", "min_remaining_days": 0},
            },
            "together": {
                "backend": {"provider": "together", "model": MODEL},
                "provider": {"base_url": f"{address}/v1", "min_remaining_days": 0},
            },
        }
        code, told = desk.type(
            *("compare", "SPEC", "--backends", ",".join(BACKENDS)),
            data={"source": str(source), "split": {"holdout": 60, "validation": 20}},
            backend={"provider": "local", "model": str(tiny_model), "method": METHOD},
            use={"gpu_usd_per_hour": 0.5, "requests_per_month": 10_000},
            alternatives=elsewhere,
        )
        assert code == 0, told
        seals = {read_manifest(desk.store, one["run_id"]).files["holdout.jsonl"].sha256 for one in told["contenders"]}
        yield told, seals, (desk.jobs, together.state()), [name for name, _, _ in together.seen]


def test_each_backend_has_every_figure_of_the_table(compared: Any) -> None:
    """Quality with its interval, training, 1,000 requests, latencies, who owns the weights, the last day; all on one holdout."""
    told, seals, (jobs, together), asked = compared
    assert [one["backend"] for one in told["contenders"]] == BACKENDS
    assert told["reference"] == "local"
    assert seals == {told["holdout_sha256"]}
    for one in told["contenders"]:
        assert one["n"] == 60
        assert one["ci_low"] <= one["value"] <= one["ci_high"]
        assert 0 < one["latency_p50_s"] <= one["latency_p95_s"]
        assert one["training_usd"] > 0
        assert one["usd_per_1000_requests"] is not None
        if one["backend"] != "local":
            assert one["difference_low"] <= one["difference"] <= one["difference_high"]
            assert one["p_value"] is not None
    local, openai, at_together = told["contenders"]
    assert [one["owns_weights"] for one in (local, openai, at_together)] == [True, False, True]
    assert (local["shutdown"], openai["shutdown"], at_together["shutdown"]) == (None, "2027-01-14", None)
    assert at_together["hosting_usd_per_month"] > 0, "a deployment at Together is paid for by the minute"
    assert (jobs, together["jobs"], together["deployments"]) == (1, 1, 0)
    assert "create_deployment" in asked, "Together's model was to be deployed"


def test_the_page_shows_the_same_table(compared: Any) -> None:
    """A column a backend, with the figures that the command answered."""
    told, *_ = compared
    page = Page(Path(told["page"]).read_text(encoding="utf-8"))
    for word in (*BACKENDS, "quality", "training", "1,000 requests", "latency p50", "latency p95", "weights", "answers until"):
        assert word in page.text
    assert "yours the provider's yours" in " ".join(page.text.split())
    assert "no end known 2027-01-14 no end known" in " ".join(page.text.split())
    for one in told["contenders"]:
        assert f"{one['value']:.3f} {one['ci_low']:.3f} to {one['ci_high']:.3f}" in " ".join(page.text.split())


def test_the_prefect_ui_shows_the_same_table(compared: Any) -> None:
    """The artifact ``comparison`` has a row a backend with the same fields."""
    told, *_ = compared
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter.model_validate({"key": {"any_": ["comparison"]}}))
    tables = [json.loads(str(one.data)) for one in found]
    [rows] = [rows for rows in tables if [row[name_of("run_id")] for row in rows] == [one["run_id"] for one in told["contenders"]]]
    assert [row[name_of("backend")] for row in rows] == BACKENDS
    wanted = ("value", "ci_low", "ci_high", "training_usd", "usd_per_1000_requests", "latency_p50_s", "latency_p95_s", "shutdown")
    assert {name_of(name) for name in (*wanted, "owns_weights")} <= rows[0].keys()
