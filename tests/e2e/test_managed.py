"""Managed runs from the command line, against each provider's stand-in in a process of its own, undisturbed and killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures_tickets import managed_fields
from tests_support import prooftune

from flows.sandbox import MODELS
from prooftune.providers.deployment_leases import key_of, read_leases
from prooftune.storage.leases import alive
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import verify_manifest
from prooftune.storage.objects import ObjectStore

pytestmark = pytest.mark.slow

PRICES = """
[source.rehearsal]
name = "made up for a rehearsal"
url = "https://example.org"
checked = 2026-11-22
[price."vertex/gemini-3.5-flash"]
input = { amount = 1, currency = "USD", unit = "1M tokens", source = "rehearsal" }
output = { amount = 2, currency = "USD", unit = "1M tokens", source = "rehearsal" }
tuned_input = { amount = 1, currency = "USD", unit = "1M tokens", source = "rehearsal" }
tuned_output = { amount = 2, currency = "USD", unit = "1M tokens", source = "rehearsal" }
training = { amount = 5, currency = "USD", unit = "1M tokens", source = "rehearsal" }
[price."fireworks/model-up-to-16b"]
input = { amount = 1, currency = "USD", unit = "1M tokens", source = "rehearsal" }
output = { amount = 2, currency = "USD", unit = "1M tokens", source = "rehearsal" }
"""
"""What the shipped price list lacks."""
DEPLOYED = ("azure", "bedrock", "together", "fireworks")
"""Their tuned models answer from a deployment."""
STAGES = ("probe", "estimate", "hold", "submit", "train", "evaluate", "settle")
"""A managed run's own. A kill at "job made" stands for "submit": the next run may find that the job has ended."""
ELSEWHERE = ("job made", "train", "evaluate")


@dataclass(frozen=True)
class Place:
    """A stand-in in a process of its own, and a user who runs specs at it."""

    folder: Path
    provider: str
    address: str
    env: dict[str, str]
    settings: list[str]

    @property
    def spec(self) -> Path:
        """The spec's file."""
        path = self.folder / "spec.yaml"
        if not path.exists():
            (self.folder / "prices.toml").write_text(PRICES)
            fields = managed_fields(self.folder, self.provider, MODELS[self.provider])
            path.write_text(yaml.safe_dump(fields | {"use": {"prices": "prices.toml"}}))
        return path

    def command(self, *more: str) -> list[str]:
        """Return the run's command."""
        return ["run", str(self.spec), "--json", *self.settings, *more]

    def run(self, *more: str) -> dict[str, Any]:
        """Run to a verdict."""
        done = prooftune(*self.command(*more), env=self.env)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def killed(self, stage: str, when: Callable[[], bool] = lambda: True) -> None:
        """Run, and kill the run when a stage has started and something is so."""
        with subprocess.Popen(
            ["prooftune", *self.command()], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as run:
            assert run.stderr is not None
            told = ""
            for line in run.stderr:
                told += line
                if line.strip() == f"{stage}: started":
                    deadline = time.monotonic() + 60
                    while not when() and time.monotonic() < deadline and run.poll() is None:
                        time.sleep(0.005)
                    run.kill()
                    break
            assert run.wait(60) == -9, f"the run was to be killed in {stage}:\n{told}"

    def state(self) -> dict[str, Any]:
        """Return what the stand-in holds."""
        with urllib.request.urlopen(f"{self.address}/_sandbox/state", timeout=30) as answer:  # noqa: S310 - loopback
            return dict(json.loads(answer.read()))

    def has_job(self) -> bool:
        """Whether the stand-in has made the job."""
        return bool(self.state()["jobs"] == 1)

    def is_deployed(self) -> bool:
        """Whether a model is."""
        return bool(self.state()["deployments"] > 0)

    def sweep(self, *more: str) -> list[dict[str, Any]]:
        """Return the deployments that a sweep finds."""
        done = prooftune("jobs", "sweep", "--json", "--store", str(self.folder / "store"), *more, env=self.env)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["not_asked"] == []
        return list(told["deployments"])

    @property
    def store(self) -> ObjectStore:
        """The store."""
        return LocalStore(self.folder / "store")


@contextmanager
def standing_in(provider: str, folder: Path, home: dict[str, str]) -> Iterator[Place]:
    """Start `prooftune sandbox`, and end it."""
    if find_spec(f"prooftune.sandbox.{provider}") is None or find_spec(f"prooftune.providers.{provider}") is None:
        pytest.skip(f"the adapter or the stand-in for {provider} is not written yet")
    command = ["prooftune", "sandbox", provider, "--port", "0", "--fast", "--json", "--pace", "0.3"]
    with subprocess.Popen(command, env=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            settings = [part for name, value in told["set"].items() for part in ("--set", f"{name}={value}")]
            yield Place(folder, provider, told["address"], home | told["environment"], settings)
        finally:
            process.terminate()


def evidence(result: dict[str, Any]) -> dict[str, Any]:
    """What must be the same however often a run was interrupted."""
    return {name: result[name] for name in ("run_id", "verdict", "reasons", "metrics")}


@pytest.mark.parametrize("provider", MODELS)
def test_a_run_at_each_provider_ends_in_a_verdict(provider: str, tmp_path: Path, server: dict[str, Any], home: dict[str, str]) -> None:
    """Promoted and published, with one job and no deployment left; another host's run of the same spec adopts the job."""
    with standing_in(provider, tmp_path, home) as place:
        result = place.run()
        assert result["verdict"] == "promote", result["reasons"]
        assert verify_manifest(place.store, result["run_id"]) == []
        assert (place.state()["jobs"], place.state()["deployments"]) == (1, 0)
        assert place.sweep() == []
        elsewhere = place.run("--set", f"store.uri={tmp_path / 'elsewhere'}")
        assert evidence(elsewhere) == evidence(result)
        assert place.state()["jobs"] == 1


@pytest.mark.parametrize("provider", MODELS)
def test_a_kill_at_any_stage_costs_no_second_job(provider: str, tmp_path: Path, server: dict[str, Any], home: dict[str, str]) -> None:
    """SIGKILL at each stage, when the job was just made and while the model is deployed: same verdict, one job, nothing left running."""
    with standing_in(provider, tmp_path, home) as place:
        for stage in STAGES if provider in ("openai", "azure") else ELSEWHERE:
            if stage == "job made":
                place.killed("submit", place.has_job)
                assert place.has_job(), "the run was to be killed when it had made the job"
            else:
                place.killed(stage)
            if stage == "evaluate" and provider in DEPLOYED:
                place.killed("evaluate", place.is_deployed)
                swept_after_a_kill(place, 1.70)
            if stage == "hold" and provider == "azure":
                place.killed("baselines", place.is_deployed)
                swept_after_a_kill(place, 0.0)
        result = place.run()
        assert result["verdict"] == "promote", result["reasons"]
        assert verify_manifest(place.store, result["run_id"]) == []
        assert place.state()["jobs"] == 1
        assert place.sweep("--remove") == []
        assert list(read_leases(place.store)) == []
        undisturbed = place.run("--set", f"store.uri={tmp_path / 'elsewhere'}")
        assert evidence(undisturbed) == evidence(result)
        assert place.state()["jobs"] == 1


def swept_after_a_kill(place: Place, azure_usd_per_hour: float) -> None:
    """Check that a sweep spares what may still be used, and takes down what nobody renews any more, with what it costs by the hour."""
    [found] = place.sweep()
    assert (found["in_use"], found["removed"]) == (False, False), "its process is known to be gone on this machine"
    shutil.rmtree(place.store.work_dir() / "living")  # as another machine has it
    [found] = place.sweep("--remove")
    assert (found["in_use"], found["removed"]) == (True, False), "a lease that was renewed a moment ago may be a living run's"
    [lease] = read_leases(place.store)
    then = datetime.now(UTC) - timedelta(hours=2)
    place.store.put(key_of(lease.name, lease.holder), lease.model_copy(update={"since": then, "renewed": then}).model_dump_json().encode())
    [found] = place.sweep()
    assert (found["leased"], found["in_use"], found["removed"]) == (True, False, False)
    if place.provider == "azure":
        assert found["usd_per_hour"] == pytest.approx(azure_usd_per_hour)
    [found] = place.sweep("--remove")
    assert found["removed"]
    assert place.sweep() == []
    assert list(read_leases(place.store)) == []


@pytest.mark.parametrize("provider", DEPLOYED)
def test_a_run_that_is_run_again_at_once_leaves_nothing(
    provider: str, tmp_path: Path, server: dict[str, Any], home: dict[str, str]
) -> None:
    """SIGKILL while the model is deployed, and the same command: no sweep comes between, and the dead run's lease has not lapsed."""
    with standing_in(provider, tmp_path, home) as place:
        place.killed("evaluate", place.is_deployed)
        assert place.is_deployed(), "the run was to be killed while the model is deployed"
        [dead] = read_leases(place.store)
        result = place.run()
        assert alive(dead.renewed, datetime.now(UTC)), "the run was to end before the dead one's lease lapses"
        assert result["verdict"] == "promote", result["reasons"]
        assert (place.sweep(), list(read_leases(place.store))) == ([], [])
