"""An S3 proxy that misbehaves on order: what stands between boto3 and the real server in fault tests."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Fault:
    """What to do to the next requests of a kind."""

    kind: str
    """``503``, ``reset``, ``stall``, ``corrupt``, ``lose answer``, ``cut answer``, ``ignore condition``, ``set answer header``."""
    times: int
    method: str
    containing: str
    header: tuple[str, str] = ("", "")


@dataclass
class Proxy:
    """Forwards to the server, byte for byte, but for the faults that were ordered."""

    upstream: int
    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def order(self, kind: str, times: int = 10**6, method: str = "PUT", containing: str = "", header: tuple[str, str] = ("", "")) -> None:
        """Order a fault for the next ``times`` requests with this method whose path contains the text."""
        self.faults.append(Fault(kind, times, method, containing, header))

    def due(self, method: str, path: str) -> Fault | None:
        """The fault for this request, if one is due; it counts as fired."""
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and fault.containing in path:
                    fault.times -= 1
                    self.fired[fault.kind] += 1
                    return fault
        return None


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            fault = proxy.due(self.command, self.path)
            kind = fault.kind if fault else ""
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.close_connection = bool(fault)
            if kind == "stall":
                time.sleep(2.5)
            elif kind == "reset":
                self._reset()
            elif kind == "503":
                self.send_response(503, "Slow Down")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._answer(kind, fault, *self._forward(bytes([body[0] ^ 1]) + body[1:] if kind == "corrupt" else body))

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_request  # noqa: N815 - the names that http.server looks for

        def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=30)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            data = response.read()
            connection.close()
            return response, data

        def _answer(self, kind: str, fault: Fault | None, response: http.client.HTTPResponse, data: bytes) -> None:
            if kind == "lose answer":
                self._reset()
                return
            headers = dict(response.getheaders())
            if fault and kind == "set answer header":
                headers = {name: value for name, value in headers.items() if name.lower() != fault.header[0]}
                headers |= {fault.header[0]: fault.header[1]} if fault.header[1] else {}
            if fault and kind == "ignore condition" and fault.header[0] in self.headers and response.status == 412:
                response.status, headers, data = 200, {"ETag": '"any"'}, b""
            self.send_response_only(response.status)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if kind == "cut answer" else data)

        def _reset(self) -> None:
            # Closing with nothing to linger for sends RST, which is what a crashed load balancer looks like.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.rfile, self.wfile = open("/dev/null", "rb"), open("/dev/null", "wb")  # noqa: PTH123, SIM115 - closed by http.server

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def s3_proxy(s3_server: Any) -> Iterator[Proxy]:
    """A proxy in front of the server that does nothing wrong yet."""
    proxy = Proxy(s3_server.port)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy))
    server.daemon_threads = True
    proxy.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield proxy
    server.shutdown()
    server.server_close()
