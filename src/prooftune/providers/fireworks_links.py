"""Signed links, by which Fireworks takes and gives large files. A link is a key by itself: it stands in no message of ours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prooftune.errors import EnvironmentLacks, IntegrityError
from prooftune.providers.calls import TIMEOUT_S

if TYPE_CHECKING:
    import httpx

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


class LinkRefused(Exception):
    """A signed link that was not answered as it should be: it may have expired, so that a new one may do."""


class SignedLinks:
    """Requests to signed links. They go without the API's key, which is none of the storage's business."""

    def __init__(self, base_url: str) -> None:
        """``base_url``: of the API. Only one that is itself without TLS, such as a stand-in, may give links without TLS."""
        self._schemes = {"https", urlsplit(base_url).scheme}
        self._client: httpx.Client | None = None

    def put(self, link: str, path: Path) -> None:
        """Upload a file.

        Raises:
            LinkRefused: it did not get there.
        """
        size = path.stat().st_size
        # Both headers are part of what is signed.
        headers = {"Content-Type": "application/octet-stream", "X-Goog-Content-Length-Range": f"{size},{size}", "Content-Length": str(size)}
        with path.open("rb") as file, self._answer("PUT", link, path.name, headers=headers, content=file):
            pass

    def text(self, link: str, name: str) -> str:
        """Return a file's text; empty where there is no such file yet.

        Raises:
            LinkRefused: the storage did not give it.
        """
        with self._answer("GET", link, name, absent=True) as answer:
            answer.read()
            return "" if answer.status_code == 404 else answer.text

    def fetch(self, link: str, target: Path) -> None:
        """Download a file; it appears when it is whole.

        Raises:
            LinkRefused: the storage did not give it, or not all of it.
        """
        part = target.with_name(f"{target.name}.part")
        with self._answer("GET", link, target.name) as answer, part.open("wb") as file:
            for chunk in answer.iter_bytes():
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)

    @contextmanager
    def _answer(self, method: str, link: str, name: str, *, absent: bool = False, **options: Any) -> Iterator[httpx.Response]:
        import httpx

        if urlsplit(link).scheme not in self._schemes:
            raise EnvironmentLacks(f"Fireworks gave a link to {name} without TLS, by which nothing is sent; ask Fireworks' support")
        self._client = self._client or httpx.Client(timeout=TIMEOUT_S)
        failed = ""
        try:
            with self._client.stream(method, link, **options) as answer:
                if not (answer.is_success or (absent and answer.status_code == 404)):
                    failed = f"answers {answer.status_code}"
                else:
                    yield answer
        except httpx.HTTPError as error:
            failed = type(error).__name__
        if failed:  # outside of the except clause: httpx' errors hold the link
            raise LinkRefused(f"the storage behind Fireworks' link to {name}: {failed}")


def file_name(name: str) -> str:
    """Return the last part of a file's name at Fireworks, which may be a path.

    Raises:
        IntegrityError: it is none that a file may have here.
    """
    found = PurePosixPath(name).name
    if not _FILE_NAME.fullmatch(found):
        raise IntegrityError(f"Fireworks gave a file the name {name[:80]!r}, which none of ours may have; nothing was written")
    return found
