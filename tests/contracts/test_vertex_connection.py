"""How Vertex AI is reached: whose credentials go where, and what the SDKs' errors become."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import fixtures_vertex
import pytest
from fixtures_stand_ins import StandIn
from fixtures_vertex import KEY, options

from prooftune.errors import EnvironmentLacks, OutcomeUnknown, ProoftuneError, SpecError, TransientError
from prooftune.providers.calls import Caller, NotFoundError
from prooftune.providers.tuning import open_tuner
from prooftune.providers.vertex import VertexTuner
from prooftune.providers.vertex_connection import Access, google_address, read
from prooftune.providers.vertex_files import Bucket
from prooftune.spec import Provider

errors = pytest.importorskip("google.genai.errors")
storage_errors = pytest.importorskip("google.api_core.exceptions")
auth_errors = pytest.importorskip("google.auth.exceptions")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in with canned answers."""
    with fixtures_vertex.stand_in(tmp_path, monkeypatch) as found:
        yield found


def outcome(error: Exception, *, creating: bool) -> ProoftuneError:
    """Return what a request becomes that fails with an error of an SDK."""

    def request() -> None:
        raise error

    call = Caller("vertex", "the token", KEY, type(error), read)
    with pytest.raises(ProoftuneError) as caught:
        call.create(request) if creating else call(request, attempts=1)
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, SpecError),
        (401, EnvironmentLacks),
        (403, EnvironmentLacks),
        (404, NotFoundError),
        (408, TransientError),
        (409, TransientError),
        (429, TransientError),
        (500, TransientError),
        (503, TransientError),
    ],
)
def test_every_status_is_transient_or_permanent_with_googles_words(status: int, kind: type[ProoftuneError]) -> None:
    """Of both SDKs; where a job is created, a status that tells nothing leaves it unknown."""
    told = {"error": {"code": status, "message": f"words of Google {KEY}", "status": "SOME_STATUS"}}
    for error in (errors.APIError(status, told), storage_errors.from_http_status(status, f"words of Google {KEY}")):
        found = outcome(error, creating=False)
        assert type(found) is kind
        assert "words of Google [key]" in str(found)
        unknown = status in (408, 409, 500, 503)
        assert isinstance(outcome(error, creating=True), OutcomeUnknown) == unknown


def test_credentials_that_give_no_token_sent_nothing() -> None:
    """Refused ones are for the user to replace; a network that fails on the way may work later; neither made a job."""
    refused = outcome(auth_errors.RefreshError("invalid_grant"), creating=True)
    failed = outcome(auth_errors.TransportError("no route"), creating=True)
    assert type(refused) is EnvironmentLacks
    assert type(failed) is TransientError


def test_no_token_stands_in_an_error(stand_in: StandIn) -> None:
    """A key that the provider repeats is left out of the message."""
    fault = stand_in.api.faults.order("refuse", "probe", value=f"token {KEY} is odd")
    with pytest.raises(SpecError, match=r"token \[key\] is odd") as caught:
        stand_in.tuner.probe(stand_in.model, "supervised")
    assert fault.fired == 1
    assert KEY not in f"{caught.value!r} {caught.value.__context__!r} {caught.value.__cause__!r}"


def test_default_credentials_go_to_google_alone(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a token nothing is sent to another address, nor to a storage emulator; at Google's, what is missing is said."""
    address = stand_in.tuner.options.base_url
    access = stand_in.tuner._connection.access
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    with pytest.raises(EnvironmentLacks, match="401"):
        Bucket("gs://tickets-tuning", "tickets", Access(access.credentials, "", "default")).put(path, "rows.jsonl")
    monkeypatch.delenv("GOOGLE_OAUTH_ACCESS_TOKEN")
    with pytest.raises(EnvironmentLacks, match="not Google's"):
        open_tuner("vertex", options(address))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(EnvironmentLacks, match="there are no Google credentials"):
        open_tuner("vertex", options(address).model_copy(update={"base_url": None}))
    monkeypatch.setenv("GOOGLE_OAUTH_ACCESS_TOKEN", "two words")
    with pytest.raises(EnvironmentLacks, match="holds spaces"):
        open_tuner("vertex", options(address))


def test_what_is_missing_is_named(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields of the spec, a bucket that is none of Cloud Storage's, and the extra."""
    given = stand_in.tuner.options
    with pytest.raises(SpecError, match=r"provider\.bucket"):
        VertexTuner(given.model_copy(update={"bucket": None}))
    with pytest.raises(SpecError, match=r"gs://bucket/prefix"):
        VertexTuner(given.model_copy(update={"bucket": "s3://tickets"}))
    with pytest.raises(SpecError, match=r"provider\.region"):
        VertexTuner(Provider(project="tickets", bucket="gs://tickets"))
    monkeypatch.setitem(sys.modules, "google.genai", None)
    with pytest.raises(EnvironmentLacks, match=r"pip install 'prooftune\[vertex\]'"):
        VertexTuner(given)


def test_google_has_an_address_for_every_region() -> None:
    """Regions, multi-regions and the global one."""
    assert google_address("europe-west4") == "https://europe-west4-aiplatform.googleapis.com"
    assert google_address("eu") == "https://aiplatform.eu.rep.googleapis.com"
    assert google_address("global") == "https://aiplatform.googleapis.com"
