"""The whole managed run against a Prefect server and stand-ins: one job, one bill, and nothing sent that may not be sent."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch
from uuid import UUID

import pytest
import yaml
from click.testing import CliRunner
from fixtures_azure import KEY as AZURE_KEY
from fixtures_azure import TOKEN as AZURE_TOKEN
from fixtures_openai import KEY
from fixtures_tickets import BASE, managed_fields, tickets
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.flow_runs import resume_flow_run
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from tests_support import write_jsonl

from flows.cli import main
from flows.finetune import finetune
from flows.resume import go_on
from prooftune.economics import approvals, spending
from prooftune.economics.spending import BudgetExceeded
from prooftune.errors import DataError, JobFailed, SpecError
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.waiting import read_waiting
from prooftune.sandbox.azure import RESOURCE, AzureApi
from prooftune.sandbox.http import serving
from prooftune.sandbox.models import CannedBrain
from prooftune.sandbox.openai import OpenAIApi
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.manifest import read_manifest, verify_manifest
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.types import Example, Report, RunResult, RunWaiting

Found = TypeVar("Found")
pytestmark = pytest.mark.slow  # whole runs: a minute and a half

SPENDS = {"upload_file", "create_job", "chat", "create_batch"}
"""Requests of OpenAI's stand-in that send data or cost money."""
PLAIN = {"OPENAI_API_KEY": KEY, "AZURE_OPENAI_API_KEY": AZURE_KEY, "AZURE_MANAGEMENT_TOKEN": AZURE_TOKEN, "NO_PROXY": "127.0.0.1"}


@dataclass(frozen=True)
class Desk:
    """A store, data, a stand-in for OpenAI, and somebody who runs specs."""

    folder: Path
    api: OpenAIApi
    address: str

    def spec(self, **blocks: Any) -> RunSpec:
        """Return a spec for the stand-in."""
        return parse_spec(self.fields(**blocks))

    def fields(self, **blocks: Any) -> dict[str, Any]:
        """Return the spec's fields; blocks add to those that are there. Its name is the stand-in's: it meets no champion of another."""
        fields = managed_fields(self.folder, "openai", "gpt-4.1-mini", f"tickets-{self.address.rpartition(':')[2]}")
        fields["provider"]["base_url"] = f"{self.address}/v1"
        return {name: {**fields.get(name, {}), **blocks.get(name, {})} if name != "name" else fields[name] for name in {*fields, *blocks}}

    def run(self, **blocks: Any) -> RunResult:
        """Run to a verdict."""
        result = finetune(self.spec(**blocks))
        assert isinstance(result, RunResult)
        return result

    def start(self, **blocks: Any) -> Future[Any]:
        """Run in a thread of its own, on the same server."""
        pool = ThreadPoolExecutor(1)
        future = pool.submit(copy_context().run, finetune, self.spec(**blocks))
        pool.shutdown(wait=False)
        return future

    def type(self, *words: str, **blocks: Any) -> tuple[int, dict[str, Any]]:
        """Type a command with ``--json``, the spec's file in the place of SPEC and the store's flag in the place of STORE."""
        path = self.folder / "spec.yaml"
        path.write_text(yaml.safe_dump(self.fields(**blocks)))
        places = {"SPEC": [str(path)], "STORE": ["--store", str(self.folder / "store")]}
        with patch.dict(os.environ):  # a command prepares its process's environment; this one is the tests'
            result = CliRunner().invoke(main, [part for word in words for part in places.get(word, [word])] + ["--json"])
        return result.exit_code, json.loads(result.stdout)

    @property
    def store(self) -> ObjectStore:
        """The store."""
        return open_store(self.spec().store)

    @property
    def seen(self) -> list[str]:
        """Operations that the stand-in was asked for, in order."""
        return [operation for operation, _, _ in self.api.seen]

    @property
    def jobs(self) -> int:
        """Of the stand-in: what would be paid for."""
        return int(self.api.state()["jobs"])

    def order(self) -> Entry:
        """Return the one entry of the ledger that is about this stand-in."""
        [entry] = [entry for entry in Ledger(self.store).entries() if entry.order.address.startswith(self.address)]
        return entry

    def asked(self) -> approvals.Asked:
        """Wait until a run of this stand-in is paused for a person, and return what it asked."""
        return until(self._paused)

    def _paused(self) -> approvals.Asked | None:
        with get_client(sync_client=True) as client:
            for one in approvals.open_questions(self.store):
                run = client.read_flow_run(UUID(one.flow_run))
                if self.address in json.dumps(run.parameters) and run.state and run.state.is_paused():
                    return one
        return None


class HeldBrain(CannedBrain):
    """Trains only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def train(self, model: str, tuned: str, rows: Sequence[Example], validation: Sequence[Example], epochs: int, report: Report) -> None:
        self.may.wait(60)
        super().train(model, tuned, rows, validation, epochs, report)


def until(found: Callable[[], Found | None], seconds: float = 60) -> Found:
    """Wait for something to be there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (one := found()) is not None:
            return one
        time.sleep(0.2)
    raise TimeoutError(f"nothing was found within {seconds:g} s")


@pytest.fixture(scope="module", autouse=True)
def surroundings(server: dict[str, Any]) -> Iterator[None]:
    """The test server, keys in the environment, and no long waits between attempts."""
    with pytest.MonkeyPatch.context() as patched, temporary_settings({PREFECT_API_URL: server["api"]}):
        patched.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
        for name, value in PLAIN.items():
            patched.setenv(name, value)
        yield
        APILogWorker.drain_all(timeout=10)  # or the rest is sent at exit, for a minute, to a server that is gone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data, and one store for all tests: each has a stand-in, and so orders, of its own."""
    return tmp_path_factory.mktemp("managed")


@contextmanager
def opened(folder: Path, own: Path, brain: CannedBrain | None = None) -> Iterator[Desk]:
    """Serve a stand-in for OpenAI with files in a folder of its own."""
    api = OpenAIApi(brain or CannedBrain(), own / "sandbox")
    with serving(api) as address:
        yield Desk(folder, api, address)


@pytest.fixture
def desk(folder: Path, tmp_path: Path) -> Iterator[Desk]:
    """A stand-in that nobody has asked anything yet."""
    with opened(folder, tmp_path) as desk:
        yield desk


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
        [run] = go_on(desk.spec().store)
        assert run["result"]["verdict"] == "promote"
        assert list(read_waiting(desk.store)) == []
        assert desk.jobs == 1


def test_a_job_that_failed_meanwhile_is_told_once(folder: Path, tmp_path: Path) -> None:
    """The run that goes on ends Failed under the tag that notifications go by, and is not gone on with again."""
    brain = HeldBrain()
    with opened(folder, tmp_path, brain) as desk:
        assert isinstance(desk.start(provider={"hold_minutes": 0}).result(180), RunWaiting)
        [job] = desk.api.works.jobs.values()
        desk.api.works.cancel(job)
        brain.may.set()
        [run] = go_on(desk.spec().store)
        assert "cancelled" in run["trouble"]
        assert go_on(desk.spec().store) == []
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


def test_a_person_approves_once(folder: Path, tmp_path: Path) -> None:
    """The flow is paused with nothing sent; `prooftune approve` lists it and wakes it; later runs of the spec do not ask again."""
    brain, budget = HeldBrain(), {"approve_above_usd": 0}
    with opened(folder, tmp_path, brain) as desk:
        run = desk.start(budget=budget, provider={"hold_minutes": 0})
        asked = desk.asked()
        assert set(desk.seen) == {"probe"}
        _, told = desk.type("approve", "STORE")
        assert asked.key in [one["key"] for one in told["waiting"]]
        code, told = desk.type("approve", asked.key, "--by", "ada", "--reason", "worth it", "STORE")
        assert (code, told["woken"]) == (0, True)
        assert isinstance(run.result(180), RunWaiting)
        brain.may.set()
        desk.api.works.settle()
        result = desk.start(budget=budget).result(180)
        assert result.verdict == "promote", result.reasons
        said = json.loads(desk.store.get(read_manifest(desk.store, result.run_id).files["approval.json"].key))
        assert (said["approved"], said["by"], said["reason"]) == (True, "ada", "worth it")
        before = len(desk.seen)
        assert [one["result"]["run_id"] for one in go_on(desk.spec().store)] == [result.run_id]
        assert not SPENDS & set(desk.seen[before:]), "the run that waited was finished by its own command"
        assert list(read_waiting(desk.store)) == []
        assert desk.jobs == 1


@pytest.mark.parametrize("where", ["in the UI's form", "in the store, on a host that cannot reach the server"])
def test_a_no_is_a_published_result(desk: Desk, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends in do_not_fine_tune with who and why, nothing was sent, and nothing stays held."""
    monkeypatch.setattr("tasks.approval.LOOK_S", 0.5)
    run = desk.start(budget={"approve_above_usd": 0})
    asked = desk.asked()
    if where.startswith("in the UI"):
        resume_flow_run(UUID(asked.flow_run), run_input={"decision": "reject", "by": "bob", "reason": "not this month"})
    else:
        approvals.answer(desk.store, asked.key, asked.usd, approved=False, by="bob", reason="not this month")
    result = run.result(180)
    assert result.verdict == "do_not_fine_tune"
    assert "bob" in result.reasons[0]
    assert "not this month" in result.reasons[0]
    assert verify_manifest(desk.store, result.run_id) == []
    assert set(desk.seen) == {"probe"}
    item = spending.find(desk.store, "default", asked.key)
    assert item is not None
    assert item.billed_usd == 0


def test_nobodys_answer_is_a_no_until_somebody_gives_one(folder: Path, tmp_path: Path) -> None:
    """The clock rejects; a person who comes late is heard by the next run, which goes on."""
    budget = {"approve_above_usd": 0, "approve_within_hours": 1 / 3600, "project": "late"}
    with opened(folder, tmp_path) as desk:
        result = desk.start(budget=budget).result(180)
        assert result.verdict == "do_not_fine_tune"
        assert "nobody" in result.reasons[0]
        assert set(desk.seen) == {"probe"}
        assert spending.spent(desk.store, "late").usd == 0
        code, told = desk.type("approve", result.run_id, "STORE")
        assert (code, told["woken"]) == (0, False)
        late = desk.start(budget=budget).result(180)
        assert late.verdict == "promote", late.reasons
        assert late.run_id != result.run_id, "a published result is not replaced"
        item = spending.find(desk.store, "late", result.run_id)
        assert item is not None
        assert item.billed_usd
        assert desk.jobs == 1


def test_rows_that_would_be_refused_cost_nothing(desk: Desk) -> None:
    """Five rows, where OpenAI wants ten, stop the run before a baseline is asked."""
    with pytest.raises(DataError, match=r"ends after 5 rows; a train file has at least 10"):
        desk.run(data={"min_examples": 2, "split": {"holdout": 30, "validation": 8, "train": 5}})
    assert not SPENDS & set(desk.seen)


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
    """`compare` runs one spec on OpenAI and Azure and gives one paired table; the deployment that Azure needs is gone after it."""
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
        assert "create_deployment" in {operation for operation, _, _ in azure.seen}, "Azure's model was to be deployed"
        assert (desk.jobs, azure.state()["jobs"]) == (1, 1)
        assert [name for name in azure.deployed if not name.startswith(BASE)] == []


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
