"""The whole managed run against a Prefect server and stand-ins: one job, one bill, and nothing sent that may not be sent."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fixtures_azure import KEY as AZURE_KEY
from fixtures_azure import TOKEN as AZURE_TOKEN
from fixtures_desk import SPENDS, Desk, HeldBrain, opened
from fixtures_openai import KEY
from fixtures_tickets import tickets
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.settings import PREFECT_TASKS_REFRESH_CACHE, temporary_settings
from tests_support import write_jsonl

from flows.resume import gone_on
from prooftune.economics import spending
from prooftune.economics.spending import BudgetExceeded
from prooftune.errors import DataError, JobFailed, SpecError
from prooftune.providers.waiting import FOLDER, read_waiting
from prooftune.sandbox.azure import RESOURCE, AzureApi
from prooftune.sandbox.http import serving
from prooftune.sandbox.models import CannedBrain
from prooftune.storage.manifest import read_manifest, verify_manifest
from prooftune.types import RunResult, RunWaiting

pytest_plugins = ["fixtures_desk"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("surroundings")]  # whole runs: a minute and a half


@dataclass(frozen=True)
class Finished:
    """A run, and the desk at which it was run."""

    desk: Desk
    result: RunResult


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """One undisturbed run."""
    with opened(folder, tmp_path_factory.mktemp("openai")) as desk:
        yield Finished(desk, desk.run())


def test_a_run_ends_in_a_verdict_with_one_job_and_one_bill(finished: Finished) -> None:
    """Promoted and published; one job; the estimate's tokens are those billed; what was held is settled with what was billed."""
    desk, result = finished.desk, finished.result
    assert result.verdict == "promote", result.reasons
    assert verify_manifest(desk.store, result.run_id) == []
    assert desk.jobs == 1
    assert desk.seen.count("create_job") == 1

    files = read_manifest(desk.store, result.run_id).files
    estimate = json.loads(desk.store.get(files["estimate.json"].key))
    assert estimate["exact"]
    assert estimate["training_tokens"] == desk.api.state()["billed_tokens"] > 0
    [job] = desk.api.works.jobs.values()
    assert json.loads(desk.store.get(files["model/managed.json"].key))["model"] == job.tuned

    item = spending.find(desk.store, "default", result.run_id)
    assert item is not None
    assert item.billed_usd is not None
    assert item.held_usd == estimate["usd"]
    unit = {line["what"]: line["usd_per_unit"] for line in estimate["lines"]}
    billed = estimate["training_tokens"] * unit["training"]
    for who, asked in (("base_model", "baselines"), ("candidate", "candidate")):
        answers = [json.loads(line)["answer"] for line in desk.store.get(files[f"{who}.answers.jsonl"].key).splitlines()]
        assert len(answers) == 30
        billed += sum(one["prompt_tokens"] * unit[f"{asked}, read"] + one["answer_tokens"] * unit[f"{asked}, written"] for one in answers)
    assert item.billed_usd == pytest.approx(billed)


def test_the_same_spec_again_submits_nothing(finished: Finished) -> None:
    """A second run finds every stage done, asks the provider for nothing that costs, and has the same verdict."""
    desk, before = finished.desk, len(finished.desk.seen)
    again = desk.run()
    assert (again.run_id, again.verdict, again.reasons) == (finished.result.run_id, finished.result.verdict, finished.result.reasons)
    anew = {stage.name for stage in again.stages if not stage.cached}
    assert anew == {"probe", "fingerprint", "fingerprint_files", "hold", "submit", "find_champion", "settle"}
    assert not SPENDS & set(desk.seen[before:])
    assert desk.jobs == 1


def test_what_was_bought_counts_once_and_what_is_bought_again_counts_again(folder: Path, tmp_path: Path) -> None:
    """The same spec again and one with another gate buy nothing, also in a full month; --fresh pays for its answers a second time."""
    with opened(folder, tmp_path) as desk:
        result = desk.run(budget={"project": "shared"})
        first = spending.spent(desk.store, "shared").usd
        desk.run(budget={"project": "shared", "monthly_usd": first / 2})
        desk.run(budget={"project": "shared"}, gate={"alpha": 0.04})
        assert spending.spent(desk.store, "shared").usd == first
        with pytest.raises(BudgetExceeded, match="monthly_usd"), temporary_settings({PREFECT_TASKS_REFRESH_CACHE: True}):
            desk.run(budget={"project": "shared", "monthly_usd": first})
        with temporary_settings({PREFECT_TASKS_REFRESH_CACHE: True}):
            desk.run(budget={"project": "shared"})
        bill = json.loads(desk.store.get(read_manifest(desk.store, result.run_id).files["bill.json"].key))
        [training] = [line["usd"] for line in bill["lines"] if line["part"] == "training"]
        month = spending.spent(desk.store, "shared")
        assert month.usd == pytest.approx(first + bill["usd"] - training)
        assert (month.held_usd, desk.jobs, desk.seen.count("chat")) == (0, 1, 120)


def test_a_run_need_not_wait_for_its_job(folder: Path, tmp_path: Path) -> None:
    """With hold_minutes 0 it ends as waiting, exit code 4; `jobs resume` leaves it while the job runs, and finishes it after."""
    brain = HeldBrain()
    with opened(folder, tmp_path, brain) as desk:
        code, told = desk.type("run", "SPEC", provider={"hold_minutes": 0})
        assert code == 4
        assert told["verdict"] is None
        assert told["waiting"]["key"] == desk.order().key
        assert "prooftune jobs resume" in told["waiting"]["text"]
        code, told = desk.type("jobs", "resume", "STORE")
        assert code == 0
        assert [run["result"] for run in told["runs"]] == [None], "the job was to run still"
        brain.may.set()
        desk.api.works.settle()
        [run] = gone_on(desk.spec().store)
        assert run["result"]["verdict"] == "promote"
        assert list(read_waiting(desk.store)) == []
        assert desk.jobs == 1


def test_a_run_that_waited_is_finished_whatever_changed_meanwhile(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New rows, a model that is shut down soon, a command typed in another folder: the paid job is evaluated, and no other bought."""
    brain, source = HeldBrain(), tmp_path / "own.jsonl"
    with opened(folder, tmp_path, brain) as desk:
        shutil.copy(desk.spec().data.source, source)
        own = {"data": {"source": str(source)}, "budget": {"project": "meanwhile"}}
        assert isinstance(desk.start(**own, provider={"hold_minutes": 0}).result(180), RunWaiting)
        [waiting] = read_waiting(desk.store)
        with source.open("a") as lines:
            lines.writelines(
                f'{{"prompt": "{word} parcel {word}ish", "completion": "delivery"}}\n' for word in ("zebra", "quartz", "violin")
            )
        soon = waiting.spec.provider.model_copy(update={"min_remaining_days": 20_000})
        typed_elsewhere = waiting.spec.store.model_copy(update={"uri": "./store"})
        changed = waiting.spec.model_copy(update={"provider": soon, "store": typed_elsewhere})
        desk.store.put(f"{FOLDER}{waiting.run}.json", waiting.model_copy(update={"spec": changed}).model_dump_json().encode())
        brain.may.set()
        desk.api.works.settle()
        monkeypatch.chdir(tmp_path)
        [run] = gone_on(desk.spec().store)
        assert (run["trouble"], run["result"]["verdict"], run["result"]["run_id"]) == (None, "promote", waiting.run)
        assert list(read_waiting(desk.store)) == []
        assert not (tmp_path / "store").exists()
        assert desk.jobs == 1
        [item] = spending.spent(desk.store, "meanwhile").items
        assert item.billed_usd is not None
        with pytest.raises(SpecError, match="is shut down on"):
            desk.run(**own, provider={"min_remaining_days": 20_000})
        assert desk.jobs == 1, "the new rows are another order"


def test_a_job_that_failed_meanwhile_is_told_once(folder: Path, tmp_path: Path) -> None:
    """The run that goes on ends Failed under the tag that notifications go by, and is not gone on with again."""
    brain = HeldBrain()
    with opened(folder, tmp_path, brain) as desk:
        assert isinstance(desk.start(provider={"hold_minutes": 0}).result(180), RunWaiting)
        [job] = desk.api.works.jobs.values()
        desk.api.works.cancel(job)
        brain.may.set()
        [run] = gone_on(desk.spec().store)
        assert "cancelled" in run["trouble"]
        assert gone_on(desk.spec().store) == []
        failed = FlowRunFilter.model_validate({"state": {"type": {"any_": ["FAILED"]}}, "tags": {"all_": ["prooftune", desk.spec().name]}})
        [told] = get_client(sync_client=True).read_flow_runs(flow_run_filter=failed)
        assert "cancelled" in str(told.state and told.state.message)


@pytest.mark.parametrize(
    ("budget", "named"),
    [({"max_usd": 0.001}, "budget.max_usd is"), ({"monthly_usd": 0.001, "project": "poor"}, "budget.monthly_usd of the project poor is")],
    ids=["a run's limit", "a month's limit"],
)
def test_what_costs_too_much_is_refused_before_anything_is_sent(desk: Desk, budget: dict[str, Any], named: str) -> None:
    """The base model was asked for, and no row or prompt was sent."""
    with pytest.raises(BudgetExceeded, match=named):
        desk.run(budget=budget)
    assert set(desk.seen) == {"probe"}
    assert spending.spent(desk.store, "poor").usd == 0


def test_a_limit_that_was_lowered_holds_for_an_estimate_that_is_known(desk: Desk) -> None:
    """A run that was refused by the month's limit has its estimate; the lower limit of its next try refuses it all the same."""
    with pytest.raises(BudgetExceeded, match="monthly_usd"):
        desk.run(budget={"monthly_usd": 0.001, "project": "poor"})
    with pytest.raises(BudgetExceeded, match="max_usd is"):
        desk.run(budget={"max_usd": 0.001})
    assert set(desk.seen) == {"probe"}


def test_rows_that_would_be_refused_cost_nothing(desk: Desk) -> None:
    """Five rows, where OpenAI wants ten, stop the run before a baseline is asked."""
    with pytest.raises(DataError, match=r"ends after 5 rows; a train file has at least 10"):
        desk.run(data={"min_examples": 2, "split": {"holdout": 30, "validation": 8, "train": 5}})
    assert not SPENDS & set(desk.seen)


def test_what_the_probe_rules_out_costs_nothing(desk: Desk) -> None:
    """Examples longer than the model takes, or settings beyond its limits: the base model was asked for, and nothing else."""
    rows = [row | {"prompt": row["prompt"] + " word" * 66_000 * (number % 20 == 0)} for number, row in enumerate(tickets())]
    wordy = replace(desk, folder=desk.folder / "wordy")
    wordy.folder.mkdir()
    write_jsonl(wordy.folder / "tickets.jsonl", rows)
    with pytest.raises(DataError, match=r"train\.jsonl:\d+: has 66,\d+ tokens .*openai takes 65,536"):
        wordy.run()
    with pytest.raises(SpecError, match=r"batch_size: it is 300; openai takes up to 256"):
        desk.run(provider={"hyperparameters": {"batch_size": 300}})
    assert set(desk.seen) == {"probe"}


def test_personal_data_is_not_sent(desk: Desk) -> None:
    """Addresses that data.pii: allow left in place stop the run before its upload."""
    rows = [row | {"prompt": f"{row['prompt']} from ada{number}@example.org"} for number, row in enumerate(tickets())]
    personal = replace(desk, folder=desk.folder / "personal")
    personal.folder.mkdir()
    write_jsonl(personal.folder / "tickets.jsonl", rows)
    code, told = personal.type("run", "SPEC", data={"pii": "allow"})
    assert code == 2
    assert [problem["where"] for problem in told["problems"]] == ["data.pii"]
    assert set(desk.seen) == {"probe"}


def test_data_that_must_stay_in_a_region_are_not_sent_out_of_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """At OpenAI's own address, reached through a proxy, residency eu stops the run before its upload."""
    monkeypatch.setenv("HTTP_PROXY", desk.address)
    with pytest.raises(SpecError, match="data must stay in eu"):
        desk.run(data={"residency": "eu"}, provider={"base_url": "http://api.openai.com/v1"})
    assert set(desk.seen) == {"probe"}


def test_a_failed_job_is_told_and_done_again_on_request(desk: Desk) -> None:
    """JobFailed with exit 1 and what to do; the same command again does not pay again; after `jobs again` a second job succeeds."""
    desk.api.works.fail_next = "the file was moderated"
    code, told = desk.type("run", "SPEC")
    key = desk.order().key
    assert (code, told["error"]) == (1, JobFailed.__name__)
    assert "the file was moderated" in told["message"]
    assert f"prooftune jobs again {key}" in told["message"]
    assert desk.api.works.fail_next == "", "the job was to fail"
    with pytest.raises(JobFailed):
        desk.run()
    assert desk.jobs == 1
    code, _ = desk.type("jobs", "again", key, "--reason", "the file is clean now", "STORE")
    assert code == 0
    assert desk.run().verdict == "promote"
    assert desk.jobs == 2
    assert desk.seen.count("create_job") == 2


def test_backends_are_compared_on_one_seal(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`compare` runs one spec on OpenAI and Azure and gives one paired table; both deployments that Azure needs are gone after it."""
    azure = AzureApi(CannedBrain(), tmp_path / "azure")
    with opened(folder, tmp_path / "openai") as desk, serving(azure) as address:
        monkeypatch.setenv("AZURE_MANAGEMENT_ENDPOINT", address)
        at_azure = {
            "backend": {"provider": "azure", "model": "gpt-4.1"},
            "provider": {"base_url": f"{address}/openai/v1", "resource": RESOURCE, "min_remaining_days": 0},
        }
        code, told = desk.type(
            "compare", "SPEC", "--backends", "openai,azure", backend={"model": "gpt-4.1"}, alternatives={"azure": at_azure}
        )
        assert code == 0, told
        first, second = told["contenders"]
        assert [(one["backend"], one["verdict"], one["n"]) for one in (first, second)] == [
            ("openai", "promote", 30),
            ("azure", "promote", 30),
        ]
        assert first["difference"] is None
        assert second["difference_low"] <= second["difference"] <= second["difference_high"]
        assert all(one["training_usd"] > 0 and one["latency_p95_s"] > 0 and one["shutdown"] for one in (first, second))
        seals = {read_manifest(desk.store, one["run_id"]).files["holdout.jsonl"].sha256 for one in (first, second)}
        assert seals == {told["holdout_sha256"]}
        assert "azure" in Path(told["page"]).read_text(encoding="utf-8")
        assert (desk.jobs, azure.state()["jobs"]) == (1, 1)
        assert [name for name, _, _ in azure.seen].count("create_deployment") == 2, "the base model was to be deployed, and the tuned one"
        assert azure.deployed == {}


def test_the_keys_appear_nowhere(finished: Finished, desk: Desk, home: dict[str, str]) -> None:
    """No file of the store, of Prefect's database and logs, and no failure that is told holds a key, also where a request is refused."""
    desk.api.faults.order("refuse", "probe", value=f"your key {KEY} is not welcome")
    code, told = desk.type("run", "SPEC")
    assert code != 0
    assert desk.api.faults.ordered[0].fired == 1
    assert KEY not in json.dumps(told)
    time.sleep(2.5)  # Prefect sends logs every two seconds
    searched = [path for place in (desk.folder, Path(home["HOME"])) for path in place.rglob("*") if path.is_file()]
    contents = {path: path.read_bytes() for path in searched}
    job = finished.desk.order().job
    assert job is not None
    assert any(job.id.encode() in content for path, content in contents.items() if path.name.startswith("prefect.db"))
    keys = [key.encode() for key in (KEY, AZURE_KEY, AZURE_TOKEN)]
    assert [path for path, content in contents.items() if any(key in content for key in keys)] == []
