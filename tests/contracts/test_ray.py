"""Training in a Ray job is local training: the same bytes, one job however often it is asked for, and errors that say whose they are."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from fixtures_models import make_model, write_examples
from hypothesis import given
from hypothesis import strategies as st

from prooftune import errors
from prooftune.errors import (
    EnvironmentLacks,
    IntegrityError,
    JobFailed,
    Problem,
    ProoftuneError,
    SpecError,
    StoreUnavailable,
    TransientError,
)
from prooftune.models.resolve import folder_digest
from prooftune.providers import calls, ray, ray_cluster, ray_orders
from prooftune.providers.ray import id_of, train_on_ray
from prooftune.providers.ray_cluster import FAILURES, STATUSES, Cluster, RayJob
from prooftune.providers.submission import Patience
from prooftune.providers.tuning import ENDED, status_of
from prooftune.spec import Method, Store, Task, Tracking
from prooftune.storage.objects import NoSuchObject, ObjectStore, open_store
from prooftune.training import job, sft
from prooftune.types import ModelRef, Progress, Report, no_report

if TYPE_CHECKING:
    from fixtures_ray import RayCluster

pytest_plugins = ["fixtures_ray", "fixtures_s3"]
KEY = "stages/train/3f6c"
TASK = Task(system="Say it.")
METHOD = Method(r=4, alpha=8, dropout=0.1, epochs=2.5, learning_rate=5e-3, batch_size=4, checks_per_epoch=2)
"""13 steps; dropout makes the random number generator part of what must survive."""
LONG = METHOD.model_copy(update={"epochs": 20, "early_stopping": None})
"""100 steps: time enough to kill it."""
QUICK = Patience(first_pause_s=0.2, longest_pause_s=0.5)
NOWHERE = "http://127.0.0.1:9"
"""Nothing listens on the discard port."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads as a job with one CPU has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waits between attempts, and nothing of the developer's own cluster."""
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.01)
    for name in (*ray_cluster.OVERRIDES, ray_cluster.TOKEN):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and two splits."""
    folder = make_model(tmp_path_factory.mktemp("ray") / "model").parent
    write_examples(folder / "train.jsonl", 20, seed=1)
    write_examples(folder / "validation.jsonl", 5, seed=2)
    return folder


@dataclass
class Training:
    """One training, as the stage asks for it."""

    folder: Path
    place: Path
    """Holds the store and the output folders."""
    method: Method = METHOD
    keep: int = 2

    @property
    def store(self) -> Store:
        return Store(uri=str(self.place / "store"))

    @property
    def objects(self) -> ObjectStore:
        return open_store(self.store)

    @property
    def id(self) -> str:
        return id_of(self.objects, KEY)

    def here(self, name: str = "here") -> tuple[dict[str, bytes], dict[str, Any]]:
        """Train on this machine; return the files and the figures."""
        out = self.place / name
        out.mkdir(parents=True)
        paths = (self.folder / "train.jsonl", self.folder / "validation.jsonl", self.folder / "model")
        figures = sft.train(*paths, TASK, self.method, out, model_name=str(self.folder / "model"), keep=self.keep)
        return files(out), figures

    def there(self, address: str, name: str = "there", report: Report = no_report) -> dict[str, Any]:
        """Train on the cluster into a folder and return the figures."""
        out = self.place / name
        out.mkdir(parents=True, exist_ok=True)
        return train_on_ray(
            self.folder / "train.jsonl",
            self.folder / "validation.jsonl",
            self.folder / "model",
            TASK,
            self.method,
            out,
            address=address,
            store=self.store,
            key=KEY,
            model_name=str(self.folder / "model"),
            keep=self.keep,
            report=report,
            patience=QUICK,
        )

    def send(self, store: Store | None = None) -> job.Place:
        """Put the inputs where a job looks for them."""
        store = store or self.store
        objects = open_store(store)
        sha256 = folder_digest(self.folder / "model")
        model = ModelRef(name=str(self.folder / "model"), revision="", sha256=sha256)
        paths = (self.folder / "train.jsonl", self.folder / "validation.jsonl")
        return job.send(objects, store, id_of(objects, KEY), *paths, model, TASK, self.method, Tracking(), self.keep)


@pytest.fixture
def training(folder: Path, tmp_path: Path) -> Training:
    """A short training in a store of its own."""
    return Training(folder, tmp_path)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Method, dict[str, bytes]]:
    """The files of local trainings, by method, made when they are asked for."""

    class Undisturbed(dict[Method, dict[str, bytes]]):
        def __missing__(self, method: Method) -> dict[str, bytes]:
            self[method], _ = Training(folder, tmp_path_factory.mktemp("undisturbed"), method).here()
            return self[method]

    return Undisturbed()


def files(out: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def said(text: str) -> list[Progress | job.Failure]:
    """What a log tells the caller."""
    return [one for one in map(job.heard, text.split("\n")) if one is not None]


class CrashError(Exception):
    """Stands for the end of the process."""


# What needs no cluster: the tables, the lines of the log, and the job itself in this process.


def test_every_status_of_ray_has_a_word_of_ours() -> None:
    """The tables are those of the SDK's enumerations, and agree on which statuses last."""
    from ray.job_submission import JobErrorType, JobStatus

    assert STATUSES.keys() == {status.value for status in JobStatus}
    assert {status.value for status in JobStatus if status.is_terminal()} == {word for word, ours in STATUSES.items() if ours in ENDED}
    assert FAILURES.keys() == {kind.value for kind in JobErrorType}
    assert status_of("EXPLODED", STATUSES) == "unknown"


@given(st.integers(0, 10**9), st.integers(1, 10**9), st.text(max_size=30), st.text(max_size=30))
def test_a_line_of_progress_arrives_as_it_was(done: int, total: int, text: str, before: str) -> None:
    """Whatever characters it has, and whatever a library's progress bar left before it on the line."""
    sent = Progress(done=done, total=total, unit="steps", text=text)
    line = f"{job.PROGRESS}{json.dumps(sent.model_dump(mode='json'))}"
    assert line.isascii()
    assert "\n" not in line
    assert job.heard(before + line) == sent


@pytest.mark.parametrize("line", ["", "Running entrypoint for job", f"{job.PROGRESS}", f'{job.PROGRESS}{{"done": 1', f"{job.FAILED}[1]"])
def test_other_lines_tell_nothing(line: str) -> None:
    """A log holds what libraries print, and lines that a kill cut."""
    assert job.heard(line) is None


TREE = [
    found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, ProoftuneError) and found.__name__[0] != "_"
]


@pytest.mark.parametrize("kind", TREE)
def test_an_error_arrives_as_it_was_raised(kind: type[ProoftuneError]) -> None:
    """Class, message and problems, through a line of the log."""
    arguments = ((Problem("backend.method.layers", "too many", "layers"),),) if issubclass(kind, ValueError) else ()
    raised = kind("it is so: é\n", *arguments)
    [arrived] = said(f"{job.FAILED}{job.Failure.of(raised).model_dump_json()}")
    assert isinstance(arrived, job.Failure)
    assert type(arrived.error()) is kind
    assert str(arrived.error()) == str(raised)


def test_an_error_of_elsewhere_arrives_as_the_nearest_one() -> None:
    """The caller builds errors of the tree only, whatever name a log holds."""
    assert type(job.Failure.of(NoSuchObject("gone")).error()) is ProoftuneError
    assert type(job.Failure(kind="dataclass", message="no").error()) is JobFailed


@pytest.mark.slow
def test_a_job_leaves_what_local_training_leaves(
    training: Training, undisturbed: dict[Method, dict[str, bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    """To the byte, with the same figures; it tells of its progress, cleans up, and the caller needs no cluster to collect the results."""
    place = training.send()
    assert job.main([place.model_dump_json()]) == 0
    told = said(capsys.readouterr().out)
    assert [type(one) for one in told] == [Progress] * len(told)
    assert told[0].text == "finding the base model"  # type: ignore[union-attr]
    assert told[-1].done == 13  # type: ignore[union-attr]
    assert not (training.objects.work_dir() / "ray" / place.id / "out").exists()
    figures = training.there(NOWHERE)
    assert files(training.place / "there") == undisturbed[METHOD]
    assert isinstance(figures.pop("tokens_per_second"), float)
    assert figures == json.loads(undisturbed[METHOD]["training.json"])
    assert training.there(NOWHERE) == figures | {"tokens_per_second": None}


@pytest.mark.slow
def test_results_outlast_the_means_to_make_them(training: Training, folder: Path, tmp_path: Path) -> None:
    """A job that is started once more after its end looks at nothing but the store."""
    training.folder = shutil.copytree(folder, tmp_path / "copy")
    place = training.send()
    job.run(place, no_report)
    shutil.rmtree(training.folder)
    before = files(tmp_path / "store/ray")
    assert job.main([place.model_dump_json()]) == 0
    assert files(tmp_path / "store/ray") == before


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 13])
def test_a_job_goes_on_from_its_checkpoint(training: Training, undisturbed: dict[Method, dict[str, bytes]], step: int) -> None:
    """The folder of an attempt that died is the next one's, and no byte differs."""

    def crash(progress: Progress) -> None:
        if progress.done == step and "loss" in progress.text:
            raise CrashError

    place = training.send()
    with pytest.raises(CrashError):
        job.run(place, crash)
    done: list[int] = []
    job.run(place, lambda progress: done.append(progress.done))
    assert done[0] == (step - 1) // 3 * 3
    training.there(NOWHERE)
    assert files(training.place / "there") == undisturbed[METHOD]


def test_a_job_works_on_s3(training: Training, undisturbed: dict[Method, dict[str, bytes]], s3_uri: str, s3_server: Any) -> None:
    """Inputs come from a bucket and results go there; the place says which server, and holds no key."""
    store = Store(uri=s3_uri, endpoint_url=s3_server.endpoint)
    place = training.send(store)
    assert s3_server.secret_key not in place.model_dump_json()
    job.run(place, no_report)
    results = job.read_results(open_store(store), place.id)
    assert results is not None
    out = training.place / "out"
    out.mkdir()
    ray.land(open_store(store), results, out)
    assert files(out) == undisturbed[METHOD]


def no_inputs(training: Training, place: job.Place) -> job.Place:
    """Look into another folder, as a node does that does not share the caller's."""
    return place.model_copy(update={"store": Store(uri=str(training.place / "elsewhere"))})


def changed(name: str, value: object) -> Callable[[Training, job.Place], job.Place]:
    """Return what changes a field of the inputs."""

    def change(training: Training, place: job.Place) -> job.Place:
        key = f"ray/{place.id}/inputs.json"
        inputs = json.loads(training.objects.get(key))
        inputs[name] = inputs[name] | value if isinstance(value, dict) else value
        training.objects.put(key, json.dumps(inputs).encode())
        return place

    return change


FAULTS: dict[str, tuple[Callable[[Training, job.Place], job.Place], type[ProoftuneError], str]] = {
    "no shared folder": (no_inputs, StoreUnavailable, "shared by the caller and the cluster"),
    "another version": (changed("prooftune", "0.0.1"), EnvironmentLacks, "the caller 0.0.1"),
    "unreadable inputs": (changed("surprise", 1), EnvironmentLacks, "cannot read"),
    "another model": (changed("model", {"sha256": "0" * 64}), IntegrityError, "not the same on the cluster"),
    "no model": (changed("source", "/nowhere/model"), errors.ModelUnavailable, "/nowhere/model"),
    "an unfit method": (changed("method", {"layers": 99}), SpecError, "backend.method.layers"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_on_the_cluster_is_told(training: Training, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    """Each error reaches the caller through the log, the exit code says its kind, and no results are listed."""
    spoil, kind, words = FAULTS[fault]
    place = spoil(training, training.send())
    assert job.main([place.model_dump_json()]) == kind.exit_code
    failure = said(capsys.readouterr().out)[-1]
    assert isinstance(failure, job.Failure)
    assert type(failure.error()) is kind
    assert words in str(failure.error())
    assert job.read_results(training.objects, place.id) is None


def test_damaged_results_are_refused(training: Training) -> None:
    """Nothing that looks done is left; once the bytes are right, the folder holds the results and nothing else."""
    place = training.send()
    job.run(place, no_report)
    results = job.read_results(training.objects, place.id)
    assert results is not None
    weights = training.place / "store" / results.files["adapter/adapter_model.safetensors"].key
    whole = weights.read_bytes()
    weights.write_bytes(b"x" + whole[1:])
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors"):
        training.there(NOWHERE)
    assert not (training.place / "there/training.json").exists()
    weights.write_bytes(whole)
    (training.place / "there/checkpoints").mkdir()
    (training.place / "there/checkpoints/left-over").touch()
    training.there(NOWHERE)
    assert files(training.place / "there").keys() == results.files.keys()


# What a cluster of ours cannot be made to say, from a server that answers as it is told.


Answers = dict[str, tuple[int, str]]
"""Status and body by path below ``/api/``."""


@dataclass
class Script:
    """What a server says, and how often it was asked for a job."""

    answers: Answers
    after: Answers
    """What changes once a job is asked for."""
    address: str = ""
    posts: int = 0


@contextmanager
def scripted(answers: Answers, after: Answers | None = None) -> Iterator[Script]:
    """Serve a script; a job that it lacks does not exist."""
    script = Script({"version": (200, json.dumps({"ray_version": "2.60.0"}))} | answers, after or {})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/api/")
            status, body = script.answers.get(path, (404, f"Job {path} does not exist"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            script.posts += 1
            script.answers |= script.after
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with serving(Handler) as script.address:
        yield script


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port and give the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def details(**fields: Any) -> tuple[int, str]:
    """An answer of Ray on a job."""
    return 200, json.dumps({"type": "SUBMISSION", "entrypoint": "true", "submission_id": "j"} | fields)


def test_no_cluster_is_worth_another_try() -> None:
    """It may be about to start; the message names the address, and the field to correct."""
    with pytest.raises(TransientError, match=r"http://127\.0\.0\.1:9 \(provider\.base_url\)"):
        Cluster(NOWHERE).job("j")


def test_a_silent_cluster_does_not_hold_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's SDK has no time-out of its own."""
    monkeypatch.setattr(ray_cluster, "TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(TransientError, match="timed out"):
            Cluster(f"http://127.0.0.1:{silent.getsockname()[1]}").job("j")
    assert time.monotonic() - started < 5


REFUSALS: dict[str, tuple[Answers, type[ProoftuneError], str]] = {
    "an old cluster": ({"version": (200, '{"ray_version": "1.8.0"}')}, EnvironmentLacks, "Ray version 1.8.0 is running on the cluster"),
    "no Ray at all": ({"version": (200, "<html>")}, EnvironmentLacks, "cannot be used"),
    "something else": ({"version": (200, "{}")}, EnvironmentLacks, "ray_version"),
    "no jobs there": ({"version": (404, "")}, EnvironmentLacks, "Version check returned 404"),
    "out of order": ({"version": (503, "")}, TransientError, "503"),
    "no token": ({"jobs/j": (401, "Unauthorized: token canary-7")}, EnvironmentLacks, "RAY_AUTH_TOKEN"),
    "a wrong token": ({"jobs/j": (403, "Forbidden: Invalid token canary-7")}, EnvironmentLacks, "RAY_AUTH_TOKEN"),
    "no agent": ({"jobs/j": (500, "Traceback …\nValueError: no agent\n.\n")}, TransientError, r"500: ValueError: no agent\)"),
    "a proxy's 404": ({"jobs/j": (404, "no such route")}, SpecError, "no such route"),
    "half an answer": ({"jobs/j": (200, '{"status": "RUNN')}, TransientError, "no JSON"),
    "an unknown status": ({"jobs/j": details(status="EXPLODED")}, TransientError, "status"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_refusals_are_told_in_rays_own_words(refusal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is an error that says whether another try may help, and never holds the token."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-7")
    answers, kind, words = REFUSALS[refusal]
    with scripted(answers) as script, pytest.raises(kind, match=words) as caught:
        Cluster(script.address).job("j")
    assert "canary-7" not in str(caught.value)


def test_the_environment_may_not_lead_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's SDK prefers RAY_ADDRESS to the address it is given, and a run would go to another cluster than its spec says."""
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:8265")
    with pytest.raises(EnvironmentLacks, match="RAY_ADDRESS is set"):
        Cluster(NOWHERE)


def test_a_missing_sdk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that brings it."""
    monkeypatch.setitem(sys.modules, "ray.exceptions", None)
    with pytest.raises(EnvironmentLacks, match=r"pip install 'prooftune\[ray\]'"):
        Cluster(NOWHERE)


def test_only_the_first_line_of_a_message_is_kept() -> None:
    """What follows quotes the job's log, which may quote examples."""
    told, error = "Job entrypoint command failed with exit code 1", "JOB_ENTRYPOINT_COMMAND_ERROR"
    message = f"{told}, last available logs (truncated to 20,000 chars):\nmy account number"
    with scripted({"jobs/j": details(status="FAILED", message=message, error_type=error, driver_exit_code=1)}) as script:
        found = Cluster(script.address).job("j")
    assert found == RayJob(id="j", status="failed", told="FAILED", message=told, error=error, exit_code=1)


BEGAN = f'{job.PROGRESS}{{"done": 0, "total": 1, "unit": "steps"}}\n'
COMMAND = {"status": "FAILED", "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR"}
ENDS: list[tuple[dict[str, Any], str | None, type[ProoftuneError], str]] = [
    (COMMAND | {"driver_exit_code": 1}, BEGAN, JobFailed, "ray job logs"),
    (COMMAND | {"driver_exit_code": 1}, "No module named prooftune\n", EnvironmentLacks, "image"),
    (COMMAND | {"driver_exit_code": 1}, None, JobFailed, "ray job logs"),
    (COMMAND | {"driver_exit_code": -9}, BEGAN, TransientError, "memory"),
    (COMMAND | {"driver_exit_code": 137}, BEGAN, TransientError, "memory"),
    ({"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_DIED"}, None, TransientError, "failed"),
    ({"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"}, "", TransientError, "failed"),
    ({"status": "FAILED", "error_type": "RUNTIME_ENV_SETUP_FAILURE"}, "", EnvironmentLacks, "failed"),
    ({"status": "FAILED", "error_type": "OF_A_LATER_RAY"}, BEGAN, JobFailed, "ray job logs"),
    ({"status": "STOPPED"}, BEGAN, JobFailed, "was stopped"),
    ({"status": "SUCCEEDED"}, BEGAN, StoreUnavailable, "deleted"),
]


@pytest.mark.parametrize(("fields", "text", "kind", "words"), ENDS)
def test_an_end_without_results_says_why(
    training: Training, fields: dict[str, Any], text: str | None, kind: type[ProoftuneError], words: str
) -> None:
    """Whether the same call may go on, what is missing, or where to look; after a failed attempt another one is asked for, once."""
    second = f"{training.id}-2"
    log = (500, "gone") if text is None else (200, json.dumps({"logs": text}))
    before = {f"jobs/{training.id}": details(status="FAILED"), "jobs/": (200, json.dumps({"job_id": second, "submission_id": second}))}
    with scripted(before, {f"jobs/{second}": details(**fields), f"jobs/{second}/logs": log}) as script:
        with pytest.raises(kind, match=words) as caught:
            training.there(script.address)
        assert type(caught.value) is kind
        assert f"{second} of the Ray cluster" in str(caught.value)
        assert script.posts == 1


def test_a_cluster_that_forgets_is_worth_another_try(training: Training) -> None:
    """A restarted cluster knows none of its jobs."""
    with scripted({"jobs/": (200, json.dumps({"job_id": training.id, "submission_id": training.id}))}) as script:
        with pytest.raises(TransientError, match="no longer knows"):
            training.there(script.address)
        assert script.posts == 1


def test_a_job_that_waits_for_room_shows_that_it_is_looked_at(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells nothing for hours, and its run must not look as if it hung."""
    monkeypatch.setattr("prooftune.providers.ray.SAY_EVERY_S", 0.0)
    heard: list[Progress] = []
    waits = {f"jobs/{training.id}": details(status="PENDING"), f"jobs/{training.id}/logs": (200, json.dumps({"logs": ""}))}
    with scripted({"jobs/": (200, json.dumps({"job_id": training.id, "submission_id": training.id}))}, waits) as script:

        def report(progress: Progress) -> None:
            heard.append(progress)
            if len(heard) == 2:
                script.answers[f"jobs/{training.id}"] = details(status="STOPPED")

        with pytest.raises(JobFailed, match="was stopped"):
            training.there(script.address, report=report)
    assert [one.text for one in heard[:2]] == [f"Ray job {training.id} is PENDING"] * 2


# The real cluster.


@pytest.mark.slow
def test_training_on_ray_is_local_training(
    training: Training, undisturbed: dict[Method, dict[str, bytes]], ray_cluster: RayCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The same bytes; progress arrives while it trains and is logged; two callers at once share one job."""
    caplog.set_level("INFO", logger=ray.__name__)
    training.method = LONG
    heard: list[Progress] = []
    with ThreadPoolExecutor() as pool:
        other = pool.submit(training.there, ray_cluster.address, "other")
        figures = training.there(ray_cluster.address, report=heard.append)
        assert other.result(timeout=60) == figures
    assert ray_cluster.jobs(training.id) == [training.id]
    assert files(training.place / "there") == files(training.place / "other") == undisturbed[LONG]
    assert heard[-1].done == heard[-1].total == 100
    assert len({progress.done for progress in heard}) > 3
    assert [progress.done for progress in heard] == sorted(progress.done for progress in heard)
    assert f"Ray job {training.id}: 100 of 100 steps, loss" in caplog.text
    assert f"Ray job {training.id} is SUCCEEDED" in caplog.text


def caller(folder: str, place: str, address: str) -> None:
    """Train on the cluster in a process of its own and print each step."""
    Training(Path(folder), Path(place), LONG).there(address, report=lambda progress: print(f"step {progress.done}", flush=True))  # noqa: T201 - its parent reads it


@pytest.mark.slow
def test_a_killed_caller_comes_back_to_its_job(
    training: Training, undisturbed: dict[Method, dict[str, bytes]], ray_cluster: RayCluster
) -> None:
    """SIGKILL ends the caller and not the job; the next call hears of its progress from the beginning, and there is one job."""
    training.method = LONG
    code = "import sys; sys.path[:0] = sys.argv[4:]; import test_ray; test_ray.caller(*sys.argv[1:4])"
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    command = [sys.executable, "-c", code, str(training.folder), str(training.place), ray_cluster.address, *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("step ") and int(line.split()[1]) > 0:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    assert job.read_results(training.objects, training.id) is None
    heard: list[Progress] = []
    training.there(ray_cluster.address, report=heard.append)
    assert ray_cluster.jobs(training.id) == [training.id]
    assert heard[0].text == "finding the base model"
    assert files(training.place / "there") == undisturbed[LONG]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "stopped"])
def test_a_job_that_died_is_started_again(
    training: Training, undisturbed: dict[Method, dict[str, bytes]], ray_cluster: RayCluster, fault: str
) -> None:
    """The next call starts a second attempt, which goes on from the checkpoint of the first, and no byte differs."""
    training.method = LONG
    fired: list[int] = []

    def end(progress: Progress) -> None:
        if progress.done < 10 or fired:
            return
        fired.append(progress.done)
        if fault == "killed":
            [process] = ray_cluster.trainings(training.id)
            process.kill()
        else:
            order = ray_orders.find(training.objects, training.id)
            assert order is not None
            ray_orders.cancel(order)

    with pytest.raises(TransientError if fault == "killed" else JobFailed, match=fault) as caught:
        training.there(ray_cluster.address, report=end)
    assert fired
    assert f"{training.id} of" in str(caught.value)
    heard: list[Progress] = []
    training.there(ray_cluster.address, report=heard.append)
    assert ray_cluster.jobs(training.id) == [training.id, f"{training.id}-2"]
    assert next(progress.done for progress in heard if progress.text == "loading the model") > 0
    assert files(training.place / "there") == undisturbed[LONG]


@pytest.mark.slow
def test_an_error_on_the_cluster_is_the_callers(training: Training, ray_cluster: RayCluster) -> None:
    """A method that does not fit the model is refused in the same words as on this machine."""
    training.method = METHOD.model_copy(update={"layers": 99})
    with pytest.raises(SpecError) as here:
        training.here()
    with pytest.raises(SpecError) as there:
        training.there(ray_cluster.address)
    assert str(there.value) == str(here.value)


@pytest.mark.slow
def test_a_cluster_without_prooftune_is_told(training: Training, ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its image lacks what a job runs."""
    monkeypatch.setattr(ray, "ENTRYPOINT", "exec python -m prooftune_is_not_here.job")
    with pytest.raises(EnvironmentLacks, match="must hold Prooftune"):
        training.there(ray_cluster.address)


@pytest.mark.slow
def test_a_job_waits_for_its_gpu(training: Training, ray_cluster: RayCluster, caplog: pytest.LogCaptureFixture) -> None:
    """QLoRA asks for one. A cluster without says what it waits for, gives up after a while, and is worth another try when it is larger."""
    caplog.set_level("INFO", logger=ray.__name__)
    training.method = METHOD.model_copy(update={"kind": "qlora"})
    with pytest.raises(TransientError, match="failed to start within"):
        training.there(ray_cluster.address)
    assert "is PENDING: Job has not started yet. It may be waiting for resources (CPUs, GPUs" in caplog.text
    assert ray_cluster.client().get_job_info(training.id).error_type == "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"


@pytest.mark.slow
def test_an_answer_that_gets_lost_makes_no_second_job(ray_cluster: RayCluster) -> None:
    """A proxy passes the request on and breaks the connection instead of answering: the job is found to be there."""
    lost: list[bytes] = []
    headers = {"Content-Type": "application/json"}

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass(None)

        def do_POST(self) -> None:
            self._pass(self.rfile.read(int(self.headers["Content-Length"])))

        def _pass(self, body: bytes | None) -> None:
            answer = requests.request(self.command, ray_cluster.address + self.path, data=body, headers=headers, timeout=30)
            if body is not None and not lost:
                lost.append(body)
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with serving(Proxy) as address:
        Cluster(address).submit("prooftune-lost", "true", cpus=0, gpus=0, metadata={})
    assert len(lost) == 1
    assert ray_cluster.jobs("prooftune-lost") == ["prooftune-lost"]
