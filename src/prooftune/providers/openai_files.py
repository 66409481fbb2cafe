"""Files at OpenAI and Azure: each is made once under a name of ours, sent in one request or, above what one may hold, in parts.

Source: https://developers.openai.com/api/reference/resources/files and https://developers.openai.com/api/reference/resources/uploads.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prooftune.errors import DataError, TransientError
from prooftune.providers.calls import Caller
from prooftune.providers.openai_answers import FileAnswer, Object, Page, UploadAnswer, readable

if TYPE_CHECKING:
    from openai import OpenAI

DIRECT_BYTES = 512 * 2**20
"""Largest file that is sent in one request; a larger one goes in parts."""
PART_BYTES = 64 * 2**20
READY_WITHIN_S = 1800.0
POLL_S = 1.0


class TuningFiles:
    """The files for fine-tuning in one account."""

    def __init__(self, provider: str, client: OpenAI, call: Caller) -> None:
        self.provider = provider
        self.call = call
        self._files = client.files.with_raw_response
        self._uploads = client.uploads.with_raw_response
        self._parts = client.uploads.parts.with_raw_response

    def upload(self, path: Path, name: str) -> str:
        """Make a file, unless one of the same name and size is there; return its id once the provider has read it.

        Raises:
            DataError: the provider finds the file unfit.
        """
        size = path.stat().st_size
        look = partial(self._there, name, size)
        if size > DIRECT_BYTES:
            file = self.call(look) or self._sent_in_parts(path, name, look)
        else:
            file = self.call(lambda: look() or self._sent(path, name))
        return self._processed(file.id, path)

    def _there(self, name: str, size: int) -> FileAnswer | None:
        """Return the file, if it is there. In one attempt with what makes it: where that answer was lost, the next attempt finds it."""
        for found in readable(partial(self._files.list, purpose="fine-tune"), Page[FileAnswer], once):
            if found.filename == name and found.bytes == size and found.status != "error":
                return found
        return None

    def _sent(self, path: Path, name: str) -> FileAnswer:
        with path.open("rb") as file:
            return FileAnswer.model_validate_json(self._files.create(file=(name, file), purpose="fine-tune").text)

    def _sent_in_parts(self, path: Path, name: str, look: Callable[[], FileAnswer | None]) -> FileAnswer:
        """Send a file of up to 8 GB. Only the last request makes it; what comes before is gone after an hour if that never comes."""
        size = path.stat().st_size
        about: dict[str, Any] = {"bytes": size, "filename": name, "mime_type": "text/jsonl", "purpose": "fine-tune"}
        upload = self.call(lambda: Object.model_validate_json(self._uploads.create(**about).text)).id
        digest, parts = hashlib.md5(usedforsecurity=False), []
        with path.open("rb") as file:
            while chunk := file.read(PART_BYTES):
                digest.update(chunk)
                parts.append(self.call(partial(self._part, upload, chunk)))

        def complete() -> FileAnswer:
            answer = self._uploads.complete(upload, part_ids=parts, md5=digest.hexdigest())
            return UploadAnswer.model_validate_json(answer.text).file

        return self.call(lambda: look() or complete())

    def _part(self, upload: str, chunk: bytes) -> str:
        return Object.model_validate_json(self._parts.create(upload, data=chunk).text).id

    def _processed(self, file: str, path: Path) -> str:
        started = time.monotonic()
        while True:
            found = self.call(lambda: FileAnswer.model_validate_json(self._files.retrieve(file).text))
            if found.status == "error":
                raise DataError(f"{self.provider} finds {path.name} unfit ({file}): {found.status_details or 'it does not say why'}")
            if found.status in (None, "processed"):
                return file
            if time.monotonic() - started > READY_WITHIN_S:
                raise TransientError(
                    f"{self.provider}'s file {file} is {found.status} after {READY_WITHIN_S / 60:.0f} minutes; run the same "
                    "command again later: it is not uploaded again"
                )
            time.sleep(POLL_S)


def once(request: Callable[[], Any]) -> Any:
    """Make a request as it is: what fails is for the attempt around it."""
    return request()
