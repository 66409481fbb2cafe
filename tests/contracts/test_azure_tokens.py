"""Tokens of Azure's management API: where they come from, and where they go."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from fixtures_azure import TOKEN, stand_in
from fixtures_stand_ins import StandIn

from prooftune.errors import EnvironmentLacks

SECRET = "principal-canary-31b0aa4f"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Azure's stand-in, and the adapter."""
    monkeypatch.setattr("prooftune.providers.calls.time.sleep", lambda seconds: None)
    with stand_in(tmp_path, monkeypatch) as found:
        yield found


def test_without_a_token_nothing_is_deployed(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to set, and it comes with the probe, before money is spent."""
    monkeypatch.delenv("AZURE_MANAGEMENT_TOKEN")
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EnvironmentLacks, match="neither AZURE_MANAGEMENT_TOKEN nor AZURE_TENANT_ID"):
        here.tuner.probe(here.model, "supervised")


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """Azure's sign-in, on a real socket; gives the forms that it got."""
    got: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            got.append({name: values[0] for name, values in form.items()} | {"path": self.path})
            right = got[-1]["client_secret"] == SECRET
            answer: dict[str, Any] = {"access_token": TOKEN, "expires_in": 3600}
            body = json.dumps(
                answer if right else {"error": "invalid_client", "error_description": f"wrong: {got[-1]['client_secret']}"}
            ).encode()
            self.send_response(200 if right else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.delenv("AZURE_MANAGEMENT_TOKEN", raising=False)
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
    monkeypatch.setenv("AZURE_CLIENT_ID", "client")
    yield got
    server.shutdown()
    server.server_close()


def test_a_service_principal_signs_in_once(here: StandIn, authority: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token in the environment the service principal gets one, and keeps it while it lasts."""
    monkeypatch.setenv("AZURE_CLIENT_SECRET", SECRET)
    assert here.tuner.probe(here.model, "supervised").tunable
    assert here.tuner.deployments() == []
    [form] = authority
    assert (form["path"], form["grant_type"]) == ("/tenant/oauth2/v2.0/token", "client_credentials")
    assert form["scope"] == "https://management.azure.com/.default"


def test_a_wrong_secret_is_told_without_it(here: StandIn, authority: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sign-in's own message is kept, and the secret in it is not."""
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong-canary-9d")
    with pytest.raises(EnvironmentLacks, match=r"AZURE_CLIENT_SECRET is not accepted.*wrong: \[key\]"):
        here.tuner.deployments()
    assert len(authority) == 1


def test_the_token_goes_to_no_other_host(here: StandIn) -> None:
    """A next page at another host is not followed."""
    management = here.tuner.management
    assert management._next(f"{management.address}/next") == f"{management.address}/next"
    with pytest.raises(EnvironmentLacks, match="another host"):
        management._next("https://elsewhere.example/next")
