"""Hub models are fetched from a server that speaks the hub's few endpoints."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMMIT = "a" * 40
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "modeling_own.py": b"print('code')",
    "onnx/model.json": b"{}",
}


class Hub(BaseHTTPRequestHandler):
    """One public model, one gated one, and one on which the server fails."""

    fetched: list[str] = []

    def do_HEAD(self) -> None:
        """Answer with the file's headers."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Answer with the listing or the file."""
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Be quiet."""

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        error = ""
        if "gone" in path:
            status, content, error = 404, b"{}", "RepoNotFound"
        elif "gated" in path:
            status, content, error = 403, b"{}", "GatedRepo"
        elif "broken" in path:
            status, content = 500, b"{}"
        elif path.startswith("/api/models/owner/good/revision/no-such"):
            status, content, error = 404, b"{}", "RevisionNotFound"
        elif path.startswith("/api/models/owner/good/tree/"):
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha256(data).hexdigest()[:40]}
                for name, data in FILES.items()
            ]
            status, content = 200, json.dumps(rows).encode()
        elif path.startswith("/api/models/owner/good"):
            listing = {"id": "owner/good", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            status, content = 200, json.dumps(listing).encode()
        else:
            name = path.partition(f"/resolve/{COMMIT}/")[2]
            status, content = (200, FILES[name]) if name in FILES else (404, b"")
            error = "" if name in FILES else "EntryNotFound"
            if body and name:
                self.fetched.append(name)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()[:40]}"')
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Address of the hub."""
    Hub.fetched.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def resolve(home: Path, endpoint: str, *arguments: object, **environment: str) -> dict[str, str]:
    """Resolve a model in a process of its own, because huggingface_hub reads its environment at import."""
    code = (
        "import json, sys\n"
        "from prooftune.models.resolve import resolve_model\n"
        "from prooftune.errors import ProoftuneError\n"
        "try:\n"
        "    found = resolve_model(*json.loads(sys.argv[1]))\n"
        "    print(json.dumps({'path': str(found.path), 'revision': found.revision}))\n"
        "except ProoftuneError as error:\n"
        "    print(json.dumps({'error': type(error).__name__, 'text': str(error)}))\n"
    )
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()},
        "HF_HOME": str(home / "hf"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], env=variables, capture_output=True, text=True, check=True, timeout=120
    )
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def test_only_safe_files_are_fetched_and_the_commit_is_known(tmp_path: Path, endpoint: str) -> None:
    """Safetensors, configuration and tokenizer; no pickle, no code, no other format; offline it is found again."""
    found = resolve(tmp_path, endpoint, "owner/good")
    assert found["revision"] == COMMIT
    assert sorted(set(Hub.fetched)) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert resolve(tmp_path, endpoint, "owner/good", HF_HUB_OFFLINE="1") == found


def test_code_is_fetched_only_where_it_is_trusted(tmp_path: Path, endpoint: str) -> None:
    """trust_remote_code adds *.py, pinned to the commit."""
    resolve(tmp_path, endpoint, "owner/good", COMMIT, True)
    assert "modeling_own.py" in Hub.fetched
    assert "pytorch_model.bin" not in Hub.fetched


@pytest.mark.parametrize(
    ("model", "revision", "error", "text"),
    [
        ("owner/gone", None, "ModelUnavailable", "is not on the hub, or is private"),
        ("owner/gated", None, "ModelUnavailable", "is gated"),
        ("owner/good", "no-such", "ModelUnavailable", "backend.revision"),
    ],
)
def test_what_cannot_be_had_is_explained(tmp_path: Path, endpoint: str, model: str, revision: str | None, error: str, text: str) -> None:
    """Each with what to do."""
    found = resolve(tmp_path, endpoint, model, revision)
    assert found["error"] == error
    assert text in found["text"]


def test_trouble_that_may_pass_is_transient_and_offline_is_not(tmp_path: Path, endpoint: str) -> None:
    """Retries look for TransientError; no retry helps a machine told to stay offline."""
    assert resolve(tmp_path, endpoint, "owner/broken")["error"] == "TransientError"
    assert resolve(tmp_path, "http://127.0.0.1:9", "owner/good")["error"] == "TransientError"
    assert resolve(tmp_path, endpoint, "owner/good", HF_HUB_OFFLINE="1")["error"] == "ModelUnavailable"
