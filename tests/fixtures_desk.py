"""Somebody who runs specs at a stand-in for OpenAI, on the test server; for the tests of whole managed runs."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
import yaml
from click.testing import CliRunner
from fixtures_azure import KEY as AZURE_KEY
from fixtures_azure import TOKEN as AZURE_TOKEN
from fixtures_openai import KEY
from fixtures_tickets import managed_fields
from prefect.client.orchestration import get_client
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from tests_support import until

from flows.cli import main
from flows.finetune import finetune
from prooftune.economics import approvals
from prooftune.providers.ledger import Entry, Ledger
from prooftune.sandbox.http import serving
from prooftune.sandbox.models import CannedBrain
from prooftune.sandbox.openai import OpenAIApi
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.types import Example, Report, RunResult

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
        self.may.wait(240)
        super().train(model, tuned, rows, validation, epochs, report)


@pytest.fixture(scope="module")
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
