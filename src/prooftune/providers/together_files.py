"""Files at Together: rows that are uploaded, and the adapter of a job that is downloaded."""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import IO, Any

from prooftune.errors import DataError, EnvironmentLacks, IntegrityError, ModelUnavailable
from prooftune.providers.together_answers import FileAnswer
from prooftune.providers.together_connection import Connection, until

READY_WITHIN_S = 1800.0
UNFIT = ("FAILED", "INVALID_FORMAT")
READABLE = (".safetensors", ".json", ".jinja", ".txt", ".model")
"""Endings of an adapter's files that are kept: no pickle is, since reading one runs what it holds."""
MOST_UNPACKED, SMALL = 20, 2**30
"""Times its own size that an archive may grow to, and bytes that it may grow to in any case: weights hardly compress."""
_ZSTD = b"\x28\xb5\x2f\xfd"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


def upload(api: Connection, path: Path, name: str, purpose: str) -> str:
    """Upload a file under a name of ours, wait until Together has checked it, and return its id.

    Raises:
        DataError: Together finds the file unfit.
        TransientError: it has not looked at it for half an hour.
    """
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / name
        named.symlink_to(path.resolve())
        sent = api.call(lambda: api.send(named, purpose))
    checked = until(
        lambda: api.read(FileAnswer, lambda: api.client.files.with_raw_response.retrieve(sent.id)),
        lambda file: file.processing_status in (None, "COMPLETED", *UNFIT),
        lambda file: f"the file {sent.id} is {file.processing_status}",
        READY_WITHIN_S,
    )
    if checked.processing_status in UNFIT:
        why = checked.validation_report.error if checked.validation_report else None
        raise DataError(f"Together finds {path.name} unfit ({sent.id}, {checked.processing_status}): {why or 'it does not say why'}")
    return sent.id


def download_adapter(api: Connection, job: str, out: Path) -> list[str]:
    """Write the files of a job's adapter into the folder and return their names.

    Raises:
        ModelUnavailable: the weights are there as pickles only.
        IntegrityError: the archive is broken, or grows beyond measure.
        EnvironmentLacks: it is packed with Zstandard, which cannot be read here.
    """
    archive = out / "adapter.part"
    try:
        api.call(lambda: _fetch(api.client, job, archive))
        return _unpack(archive, out)
    finally:
        archive.unlink(missing_ok=True)


def _fetch(client: Any, job: str, target: Path) -> None:
    with client.fine_tuning.with_streaming_response.content(ft_id=job, checkpoint="adapter") as answer, target.open("wb") as file:
        for chunk in answer.iter_bytes():
            file.write(chunk)


def _unpack(archive: Path, out: Path) -> list[str]:
    left = max(MOST_UNPACKED * archive.stat().st_size, SMALL)
    names: list[str] = []
    try:
        with _opened(archive) as members:
            for member in members:
                name = PurePosixPath(member.name).name
                if not member.isfile() or not name.endswith(READABLE):
                    continue
                if not _NAME.fullmatch(name) or name in names:
                    raise IntegrityError(f"Together's archive has a file {member.name[:80]!r}, which none of ours may be called")
                left -= member.size
                if left < 0:
                    raise IntegrityError(f"Together's archive of {archive.stat().st_size:,} bytes grows beyond measure; nothing was kept")
                _keep(members.extractfile(member), out / name)
                names.append(name)
    except (tarfile.TarError, EOFError) as error:
        raise IntegrityError(f"Together's archive of the adapter cannot be read ({error}); run the same command again") from None
    if not any(name.endswith(".safetensors") for name in names):
        raise ModelUnavailable("Together's archive has no weights as safetensors; others are not kept, since reading them may run code")
    return sorted(names)


def _keep(source: IO[bytes] | None, target: Path) -> None:
    if source is None:  # a link, which isfile() has ruled out
        return
    part = target.with_name(f"{target.name}.part")
    with part.open("wb") as file:
        while chunk := source.read(2**20):
            file.write(chunk)
    part.replace(target)


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open the archive to be read once, from front to back."""
    with archive.open("rb") as file:
        packed = file.read(len(_ZSTD)) == _ZSTD
        file.seek(0)
        if not packed:
            with tarfile.open(fileobj=file, mode="r|*") as members:
                yield members
            return
        zstandard = _zstandard()
        try:
            with zstandard.ZstdDecompressor().stream_reader(file) as plain, tarfile.open(fileobj=plain, mode="r|") as members:
                yield members
        except zstandard.ZstdError as error:
            raise tarfile.ReadError(str(error)) from None


def _zstandard() -> Any:
    try:
        return import_module("zstandard")
    except ImportError:
        raise EnvironmentLacks("Together packed the adapter with Zstandard, which needs a library; run: pip install zstandard") from None
