"""What Bedrock refuses, and what is missing, as errors of ours: with the meaning of each, and without any key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fixtures_bedrock
import pytest
from fixtures_bedrock import ACCESS_KEY, ACCOUNT, MODEL, SECRET, options, ordered
from fixtures_stand_ins import StandIn

from prooftune.errors import EnvironmentLacks, IntegrityError, SpecError, StoreUnavailable
from prooftune.providers.bedrock import BedrockTuner
from prooftune.providers.bedrock_connection import read
from prooftune.providers.calls import NotFoundError
from prooftune.providers.tuning import open_tuner
from prooftune.types import Message

boto = pytest.importorskip("botocore.exceptions")
parsers = pytest.importorskip("botocore.parsers")
PROMPT = (Message(role="system", content="Sort the ticket."), Message(role="user", content="ticket 4 about login, please help"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in with canned answers."""
    with fixtures_bedrock.stand_in(tmp_path, monkeypatch) as found:
        yield found


def test_other_bytes_are_not_taken_for_ours_and_a_missing_bucket_is_said(here: StandIn, tmp_path: Path) -> None:
    """A name that is taken by other bytes is an error; a bucket that is not there names the spec's field."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"x")
    uri = here.tuner.upload(path, "prooftune-1", "train")
    assert here.api.storage.read(uri) == b"x"
    assert here.tuner.upload(path, "prooftune-1", "train") == uri
    path.write_bytes(b"y")
    with pytest.raises(IntegrityError, match="holds other bytes"):
        here.tuner.upload(path, "prooftune-1", "train")
    here.api.storage.missing.add("tickets-tuning")
    with pytest.raises(StoreUnavailable, match=r"provider\.bucket"):
        here.tuner.upload(path, "prooftune-2", "train")


@pytest.mark.parametrize("operation", ["probe", "chat", "create_job"])
def test_an_unknown_key_is_not_accepted_and_stands_in_no_error(here: StandIn, operation: str) -> None:
    """Whatever is asked for, the account's credentials are named by where they come from."""
    order, files = ordered(here)
    here.api.access_keys = {"another"}
    ask = {
        "probe": lambda: here.tuner.probe(MODEL, "supervised"),
        "chat": lambda: here.tuner.chat(MODEL).ask(PROMPT, 50),
        "create_job": lambda: here.tuner.create(order, files),
    }[operation]
    with pytest.raises(EnvironmentLacks, match=r"AWS credentials \(found by env\).*UnrecognizedClientException") as caught:
        ask()
    assert not any(secret in f"{caught.value!r} {caught.value.__context__!r}" for secret in (SECRET, ACCESS_KEY))
    assert here.jobs == 0


def test_a_key_that_the_server_repeats_is_taken_out(here: StandIn) -> None:
    """A server's message may hold what it was sent."""
    here.api.faults.order("refuse", "probe", value=f"the key {ACCESS_KEY} with {SECRET} is not liked")
    with pytest.raises(SpecError, match=r"the key \[key\] with \[key\]"):
        here.tuner.probe(MODEL, "supervised")


def test_requests_are_signed_also_where_there_is_a_bedrock_key(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Bedrock API key would travel as it is, to whoever answers; it is not used."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bearer-canary")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:9")
    tuner = open_tuner("bedrock", here.tuner.options)
    sent: list[Any] = []
    tuner._connection.bedrock.meta.events.register("before-send.*", lambda request, **_: sent.append(request))
    assert tuner.probe(MODEL, "supervised").tunable
    assert b"AWS4-HMAC-SHA256" in sent[0].headers["Authorization"]
    assert tuner.address == f"{here.tuner.options.base_url}/us-east-1/{ACCOUNT}"


def test_what_is_missing_is_said_before_anything_is_sent(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields, forms and credentials."""
    good = here.tuner.options
    for changes, told in (
        ({"role_arn": None, "bucket": None}, r"provider\.bucket, provider\.role_arn"),
        ({"region": "Oregon"}, "no AWS region"),
        ({"role_arn": "tuning"}, "arn:aws:iam::123456789012:role/NAME"),
        ({"bucket": "gs://tickets"}, r"provider\.bucket is 'gs://tickets'"),
    ):
        with pytest.raises(SpecError, match=told):
            open_tuner("bedrock", good.model_copy(update=changes))
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:9")
    assert BedrockTuner(options(None)).address == f"https://bedrock.us-east-1.amazonaws.com/us-east-1/{ACCOUNT}"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(EnvironmentLacks, match="no AWS credentials"):
        open_tuner("bedrock", good)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(EnvironmentLacks, match="ProfileNotFound"):
        open_tuner("bedrock", good)


def refusal(code: str, status: int) -> Exception:
    """Return an error as botocore makes it of a refusal."""
    meta: Any = {"HTTPStatusCode": status, "HTTPHeaders": {"retry-after": "7"}}
    found: Exception = boto.ClientError({"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": meta}, "Converse")
    return found


@pytest.mark.parametrize(
    ("error", "status", "transient", "surely_not_done"),
    [
        (refusal("ThrottlingException", 429), 429, True, True),
        (refusal("ConflictException", 400), 409, True, False),
        (refusal("ServiceQuotaExceededException", 400), 403, False, True),
        (refusal("ModelErrorException", 424), 500, True, False),
        (refusal("ExpiredTokenException", 403), 401, False, True),
        (refusal("NeverHeardOfException", 418), 418, False, False),
        (boto.EndpointConnectionError(endpoint_url="https://x"), None, True, True),
        (boto.ConnectTimeoutError(endpoint_url="https://x"), None, True, True),
        (boto.ReadTimeoutError(endpoint_url="https://x"), None, True, False),
        (boto.ConnectionClosedError(endpoint_url="https://x"), None, True, False),
        (boto.NoCredentialsError(), 401, False, True),
        (boto.UnauthorizedSSOTokenError(), 401, False, True),
        (boto.ProxyConnectionError(proxy_url="http://x"), None, True, True),
        (boto.ParamValidationError(report="jobName"), 400, False, True),
        (parsers.ResponseParserError("half an answer"), None, True, False),
        (json.JSONDecodeError("no", "", 0), None, True, False),
    ],
)
def test_every_kind_of_error_has_a_meaning(error: Exception, status: int | None, transient: bool, surely_not_done: bool) -> None:
    """Refusals by their code, and what the SDK raises by whether anything was sent."""
    failure = read((), error)
    assert (failure.status, failure.transient, failure.surely_not_done) == (status, transient, surely_not_done)
    if isinstance(error, boto.ClientError):
        assert (failure.retry_after_s, failure.message.endswith(": no")) == (7.0, True)


def test_a_job_that_is_not_there_is_not_found(here: StandIn) -> None:
    """By name and by ARN."""
    for name in ("prooftune-nowhere", f"arn:aws:bedrock:us-east-1:{ACCOUNT}:model-customization-job/{MODEL}/abcdefghijkl"):
        with pytest.raises(NotFoundError, match="ResourceNotFoundException"):
            here.tuner.job(name)
