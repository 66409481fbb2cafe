"""A server on a real socket that speaks OpenAI's and Anthropic's chat and batch protocols, and misbehaves on order."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from prooftune.providers.chat import ChatModel, open_chat
from prooftune.types import Message

Chat = list[dict[str, str]]
Json = dict[str, Any]


@dataclass
class Fault:
    """What to do to the next requests whose path, and whose body, contains a text."""

    kind: str
    """``reset``, ``malformed``, ``not a reply``, ``cut``, ``lose answer``, ``refusal``, ``truncated``, or an HTTP status."""
    times: int
    containing: str
    message: str
    headers: dict[str, str]
    more: Json
    method: str
    asking: str


@dataclass
class ChatServer:
    """Answers by ``answer``, remembers everything, and forgets nothing."""

    answer: Callable[[Chat], str] = lambda chat: f"echo: {chat[-1]['content']}"
    key: str = "sk-canary-3f9c1e77"
    """The key that the server accepts, and that may stand nowhere else."""
    port: int = 0
    seen: list[tuple[str, str, Json]] = field(default_factory=list)
    """Method, path and JSON body of each request, in order of arrival."""
    sent: list[tuple[str, Json]] = field(default_factory=list)
    """Path and JSON body of each answer."""
    times: list[float] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    batches: dict[str, Json] = field(default_factory=dict)
    """Each with its requests, ``polls`` until it ends, and how it ends."""
    polls: int = 1
    ending: str = "completed"
    skip: Callable[[str], bool] = lambda custom_id: False
    """Requests of a batch that are not answered, by custom id."""
    page: int = 100
    delay: Callable[[Chat], float] = lambda chat: 0.0
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def order(
        self,
        kind: str,
        times: int = 1,
        containing: str = "",
        message: str = "no",
        headers: Json | None = None,
        more: Json | None = None,
        method: str = "",
        asking: str = "",
    ) -> None:
        """Order a fault for the next ``times`` requests whose path contains the text; ``more`` goes into the error's body."""
        self.faults.append(Fault(kind, times, containing, message, headers or {}, more or {}, method, asking))

    def due(self, method: str, path: str, body: Json) -> Fault | None:
        """Return the fault for this request, if one is due."""
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.containing in path and fault.method in method and fault.asking in str(body):
                    fault.times -= 1
                    return fault
        return None

    def asked(self, path: str, method: str = "POST") -> list[Json]:
        """Return the bodies of requests to this path."""
        return [body for how, where, body in self.seen if where == path and how == method]

    @property
    def openai(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def anthropic(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def completion(server: ChatServer, body: Json, kind: str = "") -> Json:
    """Return OpenAI's answer to one request."""
    text = server.answer(body["messages"])
    message: Json = {"role": "assistant", "content": text, "refusal": None}
    if kind == "refusal":
        message |= {"content": None, "refusal": "I cannot help with that."}
    choice = {"index": 0, "message": message, "finish_reason": "length" if kind == "truncated" else "stop", "logprobs": None}
    count = sum(len(turn["content"].split()) for turn in body["messages"])
    usage = {"prompt_tokens": count, "completion_tokens": len(text.split()), "total_tokens": count + len(text.split())}
    return {"id": "c-1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice], "usage": usage}


def reply(server: ChatServer, body: Json, kind: str = "") -> Json:
    """Return Anthropic's answer to one request."""
    system = [{"role": "system", "content": body["system"]}] if "system" in body else []
    text = server.answer(system + body["messages"])
    stop = {"refusal": "refusal", "truncated": "max_tokens"}.get(kind, "end_turn")
    count = sum(len(turn["content"].split()) for turn in system + body["messages"])
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [{"type": "text", "text": "" if kind == "refusal" else text}],
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": count, "output_tokens": len(text.split()), "cache_read_input_tokens": None},
    }


def openai_batch(server: ChatServer, batch: Json) -> Json:
    """Return a batch as OpenAI shows it; a look brings it one step nearer to its end."""
    ended = batch["polls"] <= 0
    shown = {
        "id": batch["id"],
        "object": "batch",
        "endpoint": batch["endpoint"],
        "completion_window": "24h",
        "input_file_id": batch["input_file_id"],
        "status": server.ending if ended else "in_progress",
        "created_at": batch["created_at"],
        "metadata": batch["metadata"],
        "request_counts": {"total": batch["total"], "completed": batch["total"] if ended else 0, "failed": 0},
    }
    if ended and server.ending in ("completed", "expired"):
        lines = [json.loads(line) for line in server.files[batch["input_file_id"]].splitlines()]
        rows = [
            {"id": "r", "custom_id": line["custom_id"], "error": None, "response": {"status_code": 200, "request_id": "q", "body": answer}}
            for line in reversed(lines)
            if not server.skip(line["custom_id"])
            for answer in [completion(server, line["body"])]
        ]
        shown["output_file_id"] = f"{batch['id']}-output"
        server.files[shown["output_file_id"]] = "".join(json.dumps(row) + "\n" for row in rows)
    if ended and server.ending == "failed":
        shown["errors"] = {"object": "list", "data": [{"code": "token_limit", "message": "enqueued token limit reached", "line": None}]}
    return shown


def anthropic_batch(server: ChatServer, batch: Json) -> Json:
    """Return a batch as Anthropic shows it."""
    ended, total = batch["polls"] <= 0, len(batch["requests"])
    cancelled = total if ended and server.ending == "cancelled" else 0
    counts = {"processing": 0 if ended else total, "succeeded": total - cancelled if ended else 0, "canceled": cancelled}
    return {
        "id": batch["id"],
        "type": "message_batch",
        "processing_status": "ended" if ended else "in_progress",
        "created_at": datetime.fromtimestamp(batch["created_at"], UTC).isoformat(),
        "expires_at": datetime.fromtimestamp(batch["created_at"] + 86_400, UTC).isoformat(),
        "request_counts": counts | {"errored": 0, "expired": 0},
    }


def anthropic_results(server: ChatServer, batch: Json) -> str:
    """Return a batch's results, in another order than the requests'."""
    rows = []
    for request in reversed(batch["requests"]):
        missed: Json = {"type": "errored", "error": {"type": "error", "error": {"type": "api_error", "message": "x"}}}
        found = {"type": "succeeded", "message": reply(server, request["params"])}
        rows.append({"custom_id": request["custom_id"], "result": missed if server.skip(request["custom_id"]) else found})
    return "".join(json.dumps(row) + "\n" for row in rows)


def paged(server: ChatServer, batches: list[Json], after: str | None) -> Json:
    """Return a page of batches, newest first."""
    newest = batches[::-1]
    start = next((n + 1 for n, batch in enumerate(newest) if batch["id"] == after), 0)
    return {"object": "list", "data": newest[start : start + server.page], "has_more": start + server.page < len(newest)}


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_request(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            address = urlsplit(self.path)
            body = json.loads(raw) if self.headers.get("Content-Type", "").startswith("application/json") and raw else {"raw": raw}
            with server.lock:
                server.seen.append((self.command, address.path, body))
                server.times.append(time.monotonic())
                server.under_way += 1
                server.most_under_way = max(server.most_under_way, server.under_way)
            try:
                self._handle(address.path, parse_qs(address.query), body)
            finally:
                with server.lock:
                    server.under_way -= 1

        do_GET = do_POST = handle_request  # noqa: N815 - the names that http.server looks for

        def _handle(self, path: str, query: dict[str, list[str]], body: Json) -> None:
            given = self.headers.get("x-api-key") or self.headers.get("Authorization", "").removeprefix("Bearer ")
            if given != server.key:
                self._send(401, json.dumps({"error": {"message": f"Incorrect API key provided: {given}", "type": "x", "code": None}}))
                return
            fault = server.due(self.command, path, body)
            kind = fault.kind if fault else ""
            if kind == "reset":
                self._reset()
            elif kind == "malformed":
                self._send(200, '{"choices": [')
            elif kind == "not a reply":
                self._send(200, '{"choices": [], "content": null}')
            elif fault and kind.isdigit():
                error = {"message": fault.message, "type": "error", "param": None, "code": None} | fault.more
                self._send(int(kind), json.dumps({"type": "error", "error": error}), fault.headers)
            else:
                answer = self._answer(path, query, body, kind)
                text = answer if isinstance(answer, str) else json.dumps(answer)
                if kind == "lose answer":
                    self._reset()
                else:
                    if not isinstance(answer, str):
                        server.sent.append((f"{self.command} {path}", answer))
                    self._send(200, text, cut=kind == "cut")

        def _answer(self, path: str, query: dict[str, list[str]], body: Json, kind: str) -> Json | str:
            parts = path.removeprefix("/v1/").split("/")
            if parts in (["chat", "completions"], ["messages"]):
                time.sleep(server.delay(body["messages"]))
                return completion(server, body, kind) if parts[0] == "chat" else reply(server, body, kind)
            if parts == ["files"]:
                return self._upload(body["raw"])
            if parts[0] == "files":
                return server.files[parts[1]]
            return self._openai_batches(parts, query, body) if parts[0] == "batches" else self._anthropic_batches(parts, query, body)

        def _openai_batches(self, parts: list[str], query: dict[str, list[str]], body: Json) -> Json:
            if self.command == "POST":
                name = f"batch_{len(server.batches)}"
                total = len(server.files[body["input_file_id"]].splitlines())
                made = {"id": name, "created_at": int(time.time()), "polls": server.polls, "total": total}
                server.batches[name] = body | made
                return openai_batch(server, server.batches[name])
            if len(parts) == 1:
                shown = [openai_batch(server, batch) for batch in server.batches.values()]
                return paged(server, shown, query.get("after", [None])[0])
            server.batches[parts[1]]["polls"] -= 1
            return openai_batch(server, server.batches[parts[1]])

        def _anthropic_batches(self, parts: list[str], query: dict[str, list[str]], body: Json) -> Json | str:
            if self.command == "POST":
                name = f"msgbatch_{len(server.batches)}"
                server.batches[name] = body | {"id": name, "created_at": time.time(), "polls": server.polls}
                return anthropic_batch(server, server.batches[name])
            if len(parts) == 2:
                shown = [anthropic_batch(server, batch) for batch in server.batches.values()]
                return paged(server, shown, query.get("after_id", [None])[0])
            batch = server.batches[parts[2]]
            if parts[-1] == "results":
                return anthropic_results(server, batch)
            batch["polls"] -= 1
            return anthropic_batch(server, batch)

        def _upload(self, raw: bytes) -> Json:
            found = re.search(rb'filename="([^"]*)".*?\r\n\r\n(.*)\r\n--', raw, re.DOTALL)
            assert found
            assert b'name="purpose"\r\n\r\nbatch\r\n' in raw
            name = f"file-{len(server.files)}"
            server.files[name] = found[2].partition(b"\r\n--")[0].decode()
            size = len(server.files[name])
            made = {"id": name, "object": "file", "bytes": size, "created_at": 1, "expires_at": 2, "status": "processed"}
            return made | {"filename": found[1].decode(), "purpose": "batch"}

        def _send(self, status: int, text: str, headers: Json | None = None, *, cut: bool = False) -> None:
            data = text.encode()
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.close_connection = cut
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)

        def _reset(self) -> None:
            # Closing with nothing to linger for sends RST, which is what a crashed load balancer looks like.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            self.rfile, self.wfile = open("/dev/null", "rb"), open("/dev/null", "wb")  # noqa: PTH123, SIM115 - closed by http.server

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def chat_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A server that does nothing wrong yet, its key in the environment, and clients that wait little."""
    from prooftune.providers import batches, calls

    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.01)
    server = ChatServer()
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(variable, server.key)
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    listening.daemon_threads = True
    server.port = listening.server_port
    threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    listening.shutdown()
    listening.server_close()


PROVIDERS = ["openai", "anthropic"]


PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


CREATED = {"openai": "/v1/batches", "anthropic": "/v1/messages/batches"}


Open = Callable[[str], ChatModel]


def prompts(count: int) -> list[list[Message]]:
    """Return prompts with a system message."""
    return [[Message(role="system", content="Be brief."), Message(role="user", content=f"question {n}")] for n in range(count)]


@pytest.fixture
def opened(chat_server: ChatServer) -> Open:
    """Open a client of the server by the provider's name."""
    return lambda provider: open_chat(provider, "judge-1", getattr(chat_server, provider))


def batched(provider: str, server: ChatServer) -> list[Json]:
    """Return the requests inside the batches."""
    if provider == "openai":
        return [json.loads(line)["body"] for name, text in server.files.items() if name.startswith("file-") for line in text.splitlines()]
    return [request["params"] for batch in server.batches.values() for request in batch["requests"]]
