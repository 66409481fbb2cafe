"""Deployments and archives of Together: made and removed once, read with care."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_ledger import QUICK
from fixtures_stand_ins import StandIn, open_stand_in
from fixtures_together import fault, tuned

from prooftune.errors import (
    EnvironmentLacks,
    IntegrityError,
    ModelUnavailable,
    ProoftuneError,
    SpecError,
    TransientError,
)
from prooftune.providers.serving import served
from prooftune.providers.tuning import MARK
from prooftune.sandbox import together_jobs
from prooftune.sandbox.together_endpoints import PROVISIONING
from prooftune.sandbox.together_jobs import archive_of
from prooftune.sandbox.together_shown import listed
from prooftune.storage.local import LocalStore

sdk = pytest.importorskip("together")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Together's stand-in."""
    with open_stand_in("together", tmp_path, monkeypatch) as found:
        yield found


MADE = ("create_endpoint", "create_deployment", "update_deployment", "delete_deployment", "delete_endpoint")
LOOKED_AT = ("list_deployments", "get_endpoint", "get_deployment")


@pytest.mark.parametrize("operation", [*MADE, *LOOKED_AT])
def test_deployments_are_made_and_removed_once(operation: str, here: StandIn) -> None:
    """Whatever answer is lost, there is one deployment while it is needed, and none after."""
    order, model = tuned(here)
    for kind in ("error_before", "error_after", "reset_after", "cut"):
        ordered = fault(here, kind, operation)  # type: ignore[arg-type]  # a tuple of kinds
        assert here.tuner.deploy(model, order.key).ready
        assert (len(here.api.endpoints.deployments), len(here.tuner.deployments())) == (1, 1)
        here.tuner.take_down(order.key)
        assert here.tuner.deployments() == []
        assert ordered.fired == 1


def test_a_model_of_a_job_that_cannot_be_read_is_deployed(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name that its list shows. Where that is hidden too, nobody says that the model answers as it is: the deployment may be up."""
    order, model = tuned(here)
    changed: dict[str, Any] = {"total_price": {"of": "the next version"}}
    monkeypatch.setattr(together_jobs, "listed", lambda job: listed(job) | changed)
    with served(here.tuner, LocalStore(here.folder / "store"), model, order.key, here.options, None, QUICK):
        assert len(here.tuner.deployments()) == 1
    assert here.tuner.deployments() == []
    assert here.tuner.deploy(here.model, "prooftune-base") is None
    changed["model_output_name"] = None
    with pytest.raises(TransientError, match=rf"ft-.* in a form that cannot be read, and that may have made {model}.*same command"):
        here.tuner.deploy(model, order.key)


def test_a_deployment_of_the_lowest_price(here: StandIn) -> None:
    """Of the configurations for a model of its own the cheapest is taken, with a limit on idle minutes; one that stopped is started."""
    order, model = tuned(here)
    here.tuner.deploy(model, order.key)
    [deployment] = here.api.endpoints.deployments.values()
    assert (deployment["configId"], deployment["hardware"], deployment["inactiveTimeout"]) == ("cr_h100", "1xnvidia-h100-80gb", 30)
    deployment["status"] = {"state": "DEPLOYMENT_STATE_STOPPED", "message": "idle"}
    assert not here.tuner.deployments()[0].ready
    assert here.tuner.deploy(model, order.key).ready


def test_a_sweep_sees_all_that_is_ours(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints are listed through all pages, an empty one too, and those of others are left out."""
    monkeypatch.setattr("prooftune.providers.together_endpoints.PAGE", 2)
    for name in [*(f"{MARK}-{n}" for n in range(5)), "another"]:
        here.tuner.api.client.endpoints.create(name=name, project_id="proj-acme")
    assert [one.name for one in here.tuner.deployments()] == [f"{MARK}-{n}" for n in range(4, -1, -1)]
    assert {(one.told, one.ready) for one in here.tuner.deployments()} == {("no deployment", False)}
    for one in here.tuner.deployments():
        here.tuner.take_down(one.name)
    assert here.api.state()["deployments"] == 1


def test_a_deployment_that_fails_says_why(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot start is an error with the provider's reason; one that never starts is given up in time, and no name is made up."""
    order, model = tuned(here)
    ordered = fault(here, "status", "get_endpoint", "DEPLOYMENT_STATE_FAILED", times=2)
    with pytest.raises(EnvironmentLacks, match="could not start the deployment"):
        here.tuner.deploy(model, order.key)
    assert ordered.fired == 2
    monkeypatch.setattr("prooftune.providers.together_endpoints.READY_WITHIN_S", 0.02)
    fault(here, "status", "get_endpoint", PROVISIONING, times=1000)
    with pytest.raises(TransientError, match="DEPLOYMENT_STATE_PROVISIONING after"):
        here.tuner.deploy(model, order.key)
    with pytest.raises(SpecError, match="names no deployment of ours"):
        here.tuner.deploy(model, "../x")


# Archives


@pytest.mark.parametrize(
    ("files", "raised"),
    [
        ({"adapter_model.bin": b"pickle"}, ModelUnavailable),
        ({"adapter_model.safetensors": b"w", "../adapter_model.safetensors": b"x"}, IntegrityError),
        ({".hidden.json": b"{}"}, IntegrityError),
    ],
)
def test_an_archive_is_read_with_care(
    files: dict[str, bytes], raised: type[ProoftuneError], here: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickles are not kept, names do not lead out of the folder, and nothing is left half done."""
    monkeypatch.setattr("prooftune.sandbox.together_jobs.archive_of", lambda _: archive_of(files))
    _, model = tuned(here)
    job = next(iter(here.api.works.jobs))
    assert model
    with pytest.raises(raised):
        here.tuner.download(job, here.folder / "out")
    assert not list((here.folder / "out").glob("*.part"))
    assert not (here.folder / "adapter_model.safetensors").exists()


def test_an_archive_that_grows_or_breaks_is_refused(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb is stopped before it unpacks, and a broken or foreign archive is no reason for a traceback."""
    _, _ = tuned(here)
    job = next(iter(here.api.works.jobs))
    monkeypatch.setattr("prooftune.providers.together_files.SMALL", 1000)
    for content, match in ((archive_of({"a.safetensors": bytes(10**6)}), "grows beyond measure"), (b"x" * 99, "cannot be read")):
        monkeypatch.setattr("prooftune.sandbox.together_jobs.archive_of", lambda _, content=content: content)
        with pytest.raises(IntegrityError, match=match):
            here.tuner.download(job, here.folder / "out")
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("adapter_model.safetensors"))
    monkeypatch.setattr("prooftune.sandbox.together_jobs.archive_of", lambda _: plain.getvalue())
    assert here.tuner.download(job, here.folder / "out") == ["metrics.jsonl", "adapter_model.safetensors"]


def test_an_archive_packed_with_zstandard(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together's other way to pack is read where the library is there, and without it the library is named."""
    tuned(here)
    job = next(iter(here.api.works.jobs))
    monkeypatch.setattr("prooftune.sandbox.together_jobs.archive_of", lambda _: b"\x28\xb5\x2f\xfd" + bytes(9))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(EnvironmentLacks, match="pip install zstandard"):
        here.tuner.download(job, here.folder / "out")
    monkeypatch.undo()
    zstandard = pytest.importorskip("zstandard")
    packed = zstandard.ZstdCompressor().compress(gzip.decompress(archive_of({"adapter_model.safetensors": b"w"})))
    monkeypatch.setattr("prooftune.sandbox.together_jobs.archive_of", lambda _: packed)
    assert here.tuner.download(job, here.folder / "out") == ["metrics.jsonl", "adapter_model.safetensors"]
