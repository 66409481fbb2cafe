"""A stand-in's server on its socket: what it does with a body that it does not take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from prooftune.sandbox import http
from prooftune.sandbox.models import CannedBrain
from prooftune.sandbox.openai import OpenAIApi

HEADERS = {"Authorization": "Bearer k", "Content-Type": "application/json"}


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPConnection]:
    """One to a stand-in that takes a thousand bytes."""
    monkeypatch.setattr(http, "LARGEST_BODY", 1000)
    with http.serving(OpenAIApi(CannedBrain(), tmp_path)) as address:
        found = HTTPConnection(address.removeprefix("http://"))
        yield found
        found.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_and_the_connection_closed(connection: HTTPConnection, chunked: bool) -> None:
    """413 in the API's own form, and nothing of the body passes for another request."""
    body = b"POST /v1/files HTTP/1.1\r\n\r\n" * 100_000
    connection.request("POST", "/v1/files", iter([body]) if chunked else body, HEADERS, encode_chunked=chunked)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("connection")) == (413, "close")
    assert "at most 1,000 bytes" in json.load(answer)["error"]["message"]


def test_a_body_that_fits_is_read_whole_and_the_connection_kept(connection: HTTPConnection) -> None:
    """The next request on the same connection is answered."""
    for _ in range(2):
        connection.request("POST", "/v1/fine_tuning/jobs", json.dumps({"model": "x" * 900}), HEADERS)
        answer = connection.getresponse()
        assert answer.status == 400
        assert answer.getheader("connection") is None
        answer.read()
