"""What a user is told when a run cannot go on: exit 3 for the environment, exit 2 for spec and data, and nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_s3 import S3Server
from tests_support import prooftune

from prooftune.spec import Store
from prooftune.storage.manifest import verify_manifest
from prooftune.storage.objects import open_store

pytest_plugins = ["fixtures_s3"]

EARLY_END = ["--set", "data.min_examples=1000"]
"""Ends before training: these tests are about what surrounds it."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_loses_nothing(small_disk: Path, toy_folder: Path, server: dict[str, Any], home: dict[str, str]) -> None:
    """On a full disk the run ends with exit 3 and says so; with room again the same command goes on to its verdict."""
    command = ["run", str(toy_folder / "spec.yaml"), "--json", "--set", f"store.uri={small_disk / 'store'}", *EARLY_END]
    full = prooftune(*command, env=home)
    assert full.returncode == 3, full.stderr
    assert "space" in json.loads(full.stdout)["message"]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = prooftune(*command, env=home)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["verdict"] == "do_not_fine_tune"


def test_a_store_that_is_a_file_is_refused(tmp_path: Path, toy_folder: Path, home: dict[str, str]) -> None:
    """A store that cannot be written is found before anything is run."""
    (tmp_path / "store").write_text("in the way")
    done = prooftune("run", str(toy_folder / "spec.yaml"), "--json", "--set", f"store.uri={tmp_path / 'store'}", env=home)
    assert done.returncode == 3
    assert "store" in json.loads(done.stdout)["message"]
    assert "Traceback" not in done.stderr


def test_a_store_that_cannot_be_reached_is_refused(toy_folder: Path, home: dict[str, str]) -> None:
    """An S3 endpoint where nobody answers ends in exit 3 with its address."""
    settings = ["--set", "store.uri=s3://bucket/prefix", "--set", "store.endpoint_url=http://127.0.0.1:9"]
    keys = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "canary-77aa01"}
    done = prooftune("run", str(toy_folder / "spec.yaml"), "--json", *settings, env=home | keys)
    assert done.returncode == 3
    assert "127.0.0.1:9" in json.loads(done.stdout)["message"]
    assert "canary-77aa01" not in done.stdout + done.stderr


def test_every_bad_row_is_listed_at_once(tmp_path: Path, home: dict[str, str]) -> None:
    """Under on_invalid: fail the answer lists each bad row with line and reason, exit 2, no traceback."""
    rows = ['{"prompt": "a", "completion": "b"}'] * 3 + ["{broken", '{"prompt": "", "completion": "x"}', '{"prompt": "c"}']
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    (tmp_path / "spec.yaml").write_text("name: bad\ndata: {source: data.jsonl}\n")
    done = prooftune("validate", str(tmp_path / "spec.yaml"), "--json", env=home)
    assert done.returncode == 2, done.stderr
    problems = json.loads(done.stdout)["problems"]
    assert [problem["where"] for problem in problems if problem["where"].endswith((":4", ":5", ":6"))] == [
        "data.jsonl:4",
        "data.jsonl:5",
        "data.jsonl:6",
    ]
    assert "Traceback" not in done.stderr


def test_a_run_stops_at_bad_data_with_everything_wrong(
    tmp_path: Path, toy_folder: Path, server: dict[str, Any], home: dict[str, str]
) -> None:
    """``run`` under on_invalid: fail stops with exit 2 and names all bad rows, those that do not parse and those that do not fit."""
    good = (toy_folder / "toy.jsonl").read_text().splitlines()
    (tmp_path / "data.jsonl").write_text("\n".join([*good, "{broken", '{"prompt": "", "completion": "x"}']))
    settings = ["--set", f"data.source={tmp_path / 'data.jsonl'}", "--set", "data.on_invalid=fail"]
    done = prooftune("run", str(toy_folder / "spec.yaml"), "--json", *settings, env=home)
    assert done.returncode == 2, done.stderr
    assert [problem["where"] for problem in json.loads(done.stdout)["problems"]] == ["data.jsonl:241", "data.jsonl:242"]


@pytest.mark.slow
def test_a_run_publishes_to_s3(toy_folder: Path, server: dict[str, Any], home: dict[str, str], s3_uri: str, s3_server: S3Server) -> None:
    """The whole run works with its store on a real S3 server, and what it published verifies."""
    keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    settings = ["--set", f"store.uri={s3_uri}", "--set", f"store.endpoint_url={s3_server.endpoint}"]
    done = prooftune("run", str(toy_folder / "spec.yaml"), "--json", *settings, env=home | keys)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["verdict"] == "promote", result["reasons"]
    assert result["report"].startswith("s3://")
    store = open_store(Store(uri=s3_uri, endpoint_url=s3_server.endpoint))
    assert verify_manifest(store, result["run_id"]) == []


def test_a_wrong_key_is_refused_without_showing_it(toy_folder: Path, home: dict[str, str], s3_uri: str, s3_server: S3Server) -> None:
    """A store that knows another key ends the run with exit 3 before anything is run, and the key is not shown."""
    keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")} | {"AWS_SECRET_ACCESS_KEY": "canary-5512ef"}
    settings = ["--set", f"store.uri={s3_uri}", "--set", f"store.endpoint_url={s3_server.endpoint}"]
    done = prooftune("run", str(toy_folder / "spec.yaml"), "--json", *settings, env=home | keys)
    assert done.returncode == 3, done.stderr
    assert "AWS_SECRET_ACCESS_KEY" in json.loads(done.stdout)["message"]
    assert "canary-5512ef" not in done.stdout + done.stderr


def test_a_secret_in_the_spec_is_refused_unseen(toy_folder: Path, home: dict[str, str]) -> None:
    """Credentials in an address, and whatever stands in an unknown field, are refused without being repeated."""
    for setting in (
        "tracking.mlflow=http://me:canary-90ee@127.0.0.1:5000",
        "data.source=s3://me:canary-90ee@bucket/data.jsonl",
        "store.endpoint_url=http://me:canary-90ee@127.0.0.1:9",
        "store.secret_access_key=canary-90ee",
    ):
        done = prooftune("run", str(toy_folder / "spec.yaml"), "--json", "--set", setting, env=home)
        assert done.returncode == 2, (setting, done.stderr)
        assert "canary-90ee" not in done.stdout + done.stderr
    shown = prooftune("show", "--store", "s3://me:canary-90ee@bucket", env=home)
    assert shown.returncode == 2
    assert "canary-90ee" not in shown.stdout + shown.stderr


@pytest.mark.slow
def test_a_server_that_goes_away_costs_nothing_that_was_done(tmp_path: Path, toy_folder: Path, home: dict[str, str]) -> None:
    """Prefect's server is killed in the middle of a run: the run ends well or with exit 3, and the next one goes on from what is done."""
    own = home | {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    command = ["prooftune", "run", str(toy_folder / "spec.yaml"), "--json", "--set", f"store.uri={tmp_path / 'store'}", *EARLY_END]
    try:
        up = prooftune("up", "--json", env=own)
        assert up.returncode == 0, up.stderr
        run = subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert run.stderr is not None
        killed = False
        for line in run.stderr:
            if not killed and line.startswith("validate: started"):
                os.kill(json.loads(up.stdout)["pid"], signal.SIGKILL)
                killed = True
        assert killed, "the server was to be killed while a stage was under way"
        assert run.wait(timeout=300) in (0, 3)
        again = subprocess.run(command, env=own, capture_output=True, text=True, timeout=300, check=False)
        assert again.returncode == 0, again.stderr
        cached = {stage["name"]: stage["cached"] for stage in json.loads(again.stdout)["stages"]}
        assert cached["ingest"]
        assert cached["validate"]
    finally:
        prooftune("down", env=own)
