"""What doctor looks at, and that it leaves nothing behind and shows no secret."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import flows.doctor
from flows.cli import main
from flows.doctor import examine
from flows.local_server import healthy


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with an empty home folder, no credentials and no Prefect configured."""
    home = tmp_path / "home"
    home.mkdir()
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "AWS_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return home


def item(answer: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the item of that name."""
    return next(one for one in answer["items"] if one["name"] == name)


def test_a_store_that_is_not_there_is_tried_and_not_made(tmp_path: Path) -> None:
    """Every item has its fields; the store's folder and those above it are as they were."""
    answer = examine(str(tmp_path / "new" / "store"))
    assert item(answer, "store")["status"] == "ok"
    assert not (tmp_path / "new").exists()
    names = [one["name"] for one in answer["items"]]
    assert names[:5] == ["Python", "CPU", "memory", "disk", "GPU"]
    assert all(set(one) == {"name", "status", "found", "needed", "todo"} for one in answer["items"])
    json.dumps(answer)


def test_an_existing_store_is_left_as_it_was(tmp_path: Path) -> None:
    """The trial write leaves no file."""
    (tmp_path / "store").mkdir()
    assert examine(str(tmp_path / "store"))["items"]
    assert list((tmp_path / "store").iterdir()) == []


def test_a_store_that_cannot_be_made_fails_with_what_to_do(tmp_path: Path) -> None:
    """A file in the way is a failed item, exit code 3, and the document is whole."""
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["doctor", "--json", "--store", str(tmp_path / "file" / "store")])
    assert result.exit_code == 3
    answer = json.loads(result.stdout)
    assert not answer["ok"]
    assert answer["failed"] >= 1
    assert item(answer, "store")["todo"]


def test_credentials_are_found_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted key and secret are in no part of the answer; an unreachable bucket is a failed item."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPLANTED")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    answer = examine("s3://bucket/prefix", "http://127.0.0.1:9")
    assert item(answer, "AWS credentials")["status"] == "ok"
    assert item(answer, "store")["status"] == "fail"
    assert "PLANTED" not in json.dumps(answer).upper()


def test_an_s3_store_without_credentials_says_which_to_set() -> None:
    """No credentials: both the store and the credentials fail, with the variables to set."""
    answer = examine("s3://bucket/prefix", "http://127.0.0.1:9")
    assert item(answer, "AWS credentials")["status"] == "fail"
    assert "AWS_ACCESS_KEY_ID" in item(answer, "AWS credentials")["todo"]


@pytest.fixture
def prefect_api() -> Iterator[tuple[str, list[int]]]:
    """A server whose health route answers with the code in the list."""
    codes = [200]

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(codes[0] if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = HTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api", codes
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_configured_server_is_asked(prefect_api: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A healthy server is ok, also one that wants a key; one with errors is not; user and password are not shown."""
    url, codes = prefect_api
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert flows.doctor._server().status == "ok"
    codes[0] = 401
    assert healthy(url)
    codes[0] = 500
    assert flows.doctor._server().status == "fail"
    assert flows.doctor.shown("http://anna:secret@host/api") == "http://host/api"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/api", "nonsense", "http://[bad/api", "file:///etc/passwd", ""])
def test_a_server_that_is_none_is_not_healthy(url: str) -> None:
    """Refused connections and addresses that are none are answered with no, not with an exception."""
    assert not healthy(url)


def test_a_missing_or_old_library_fails_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the metadata asks for and is not there is named, with what is needed."""
    monkeypatch.setattr(flows.doctor, "requires", lambda _: ["no-such-package>=1", "click>=999", "pytest>=999; extra == 'dev'"])
    found = flows.doctor._libraries()
    assert found.status == "fail"
    assert "no-such-package is missing" in found.found
    assert "needed >=999" in found.found
    assert "pytest" not in found.found


def test_the_demo_model_is_looked_for_and_not_converted(user: Path) -> None:
    """In an empty home the package may be installed, but nothing is written."""
    found = flows.doctor._demo_model()
    assert found.status in ("ok", "warn")
    assert not (user / ".cache" / "prooftune").exists()
