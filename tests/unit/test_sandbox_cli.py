"""`prooftune sandbox`: what it tells leads to a stand-in that works, and it ends by itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures_stand_ins import PROVIDERS, StandIn

from flows.cli import main
from flows.sandbox import HINTS, MODELS, hints
from prooftune.providers.tuning import open_tuner
from prooftune.sandbox.http import serving
from prooftune.sandbox.models import CannedBrain
from prooftune.sandbox.stand_ins import stand_in
from prooftune.spec import load_spec

QUICK = ("openai", "azure", "vertex", "fireworks")
"""Stand-ins that are quick to ask; each has tests of its own."""


@pytest.mark.parametrize("provider", QUICK)
def test_what_is_told_leads_to_the_stand_in(provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment and fields as they are printed, put into a spec that says nothing more: the model can be tuned, and a job is created."""
    api = stand_in(provider, CannedBrain(), tmp_path / "sandbox", 0)
    with serving(api) as address:
        environment, fields = hints(provider, address)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = {"backend.provider": provider, "backend.model": MODELS[provider], **fields}
        (tmp_path / "spec.yaml").write_text("name: triage\ndata: {source: x.jsonl}\n")
        spec = load_spec(tmp_path / "spec.yaml", [f"{name}={value}" for name, value in settings.items()])
        here = StandIn(api, open_tuner(provider, spec.provider), spec.backend.model, tmp_path)
        assert here.tuner.probe(spec.backend.model, "supervised").tunable
        rows = here.rows()
        order = here.order(rows)
        made = here.tuner.create(order, here.uploaded(rows, order))
        assert [job.id for job in here.tuner.find(order, here.uploaded(rows, order))] == [made.id]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_hints_fill_what_a_spec_needs(provider: str, tmp_path: Path) -> None:
    """No provider's block lacks a field that the spec asks for."""
    _, fields = hints(provider, "http://127.0.0.1:1")
    (tmp_path / "spec.yaml").write_text("name: triage\ndata: {source: x.jsonl}\n")
    settings = {"backend.provider": provider, "backend.model": "m", **fields}
    assert load_spec(tmp_path / "spec.yaml", [f"{name}={value}" for name, value in settings.items()]).backend.managed
    assert set(HINTS) == set(MODELS) == set(PROVIDERS)


def test_it_serves_until_nobody_asks() -> None:
    """One JSON line says where; faults are in force; after the idle time it stops with exit code 0 and says what it held."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", "sandbox", "openai", "--fast", "--json"]
    command += ["--port", "0", "--idle-minutes", "0.01", "--fault", "quota@list_models"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        connection = HTTPConnection(told["address"].removeprefix("http://"))
        connection.request("GET", "/_sandbox/faults")
        (fault,) = json.load(connection.getresponse())["faults"]
        connection.close()
        rest, errors = process.communicate(timeout=60)
    assert (fault["kind"], fault["operation"], fault["fired"]) == ("quota", "list_models", 0)
    assert told["set"] == {"provider.base_url": f"{told['address']}/v1", "provider.min_remaining_days": "0"}
    assert (process.returncode, rest) == (0, "")
    assert "the stand-in for openai stopped" in errors


def test_what_cannot_be_served_is_a_sentence() -> None:
    """A fault that is none is a usage error; a port that is taken is the machine's."""
    wrong = CliRunner().invoke(main, ["sandbox", "openai", "--fast", "--fault", "earthquake@create_job", "--json"])
    assert wrong.exit_code == 2
    assert "earthquake@create_job" in json.loads(wrong.stdout)["message"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = CliRunner().invoke(main, ["sandbox", "openai", "--fast", "--port", str(port), "--json"])
    assert refused.exit_code == 3
    assert f"port {port}" in json.loads(refused.stdout)["message"]
