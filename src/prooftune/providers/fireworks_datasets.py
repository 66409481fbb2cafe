"""Datasets at Fireworks: each is made once under an id of ours, however often it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prooftune.errors import DataError, IntegrityError
from prooftune.providers.fireworks_answers import Links, Resource
from prooftune.providers.fireworks_connection import Connection, parsed, until
from prooftune.providers.fireworks_links import LinkRefused, SignedLinks

DIRECT_BYTES = 150 * 10**6
"""Largest file that is sent in one request to the API; a larger one goes to a signed link."""


class Datasets:
    """The datasets of one account."""

    def __init__(self, api: Connection, links: SignedLinks) -> None:
        self._api = api
        self._links = links

    def ensure(self, dataset: str, path: Path) -> str:
        """Return the name of the dataset with this id, which holds the rows of the file; one that was uploaded before is left as it is.

        Raises:
            IntegrityError: there is such a dataset, and it has another number of rows.
            DataError: Fireworks refuses the rows.
            TransientError: it did not get ready in time; another call goes on where this one was.
        """
        with path.open("rb") as lines:
            rows = sum(1 for _ in lines)
        made = {"user_uploaded": {}, "example_count": str(rows)}
        self._api.make(lambda: self._raw.create(dataset_id=dataset, dataset=made))
        found = self._get(dataset)
        if found.example_count not in (None, str(rows)):
            raise IntegrityError(
                f"Fireworks has a dataset {dataset} of {found.example_count} rows, and {path.name} has {rows}: somebody else made it. "
                "Delete it at Fireworks, then run the same command again"
            )
        if found.state != "READY":
            self._send(dataset, path)
            found = until(lambda: self._get(dataset), lambda seen: seen.state == "READY" or seen.failed, f"the dataset {dataset}")
        if found.state != "READY":
            raise DataError(f"Fireworks refuses {path.name}: {found.told}")
        return found.name

    def text(self, dataset: str, ending: str) -> str:
        """Return what the dataset's files with such an ending hold, one after the other."""

        def request() -> str:
            links = parsed(Links, self._raw.get_download_endpoint(dataset)).filename_to_signed_urls
            return "".join(self._links.text(link, name) for name, link in sorted(links.items()) if name.endswith(ending))

        return self._api.call(request)

    @property
    def _raw(self) -> Any:
        return self._api.client.datasets.with_raw_response

    def _get(self, dataset: str) -> Resource:
        return self._api.read(Resource, lambda: self._raw.get(dataset))

    def _send(self, dataset: str, path: Path) -> None:
        """Upload the file; one that was uploaded in part is replaced."""
        name = f"{dataset}.jsonl"

        def direct() -> None:
            with path.open("rb") as file:
                self._raw.upload(dataset, file=(name, file))

        def by_link() -> None:
            sizes = {name: str(path.stat().st_size)}
            links = parsed(Links, self._raw.get_upload_endpoint(dataset, filename_to_size=sizes)).filename_to_signed_urls
            if name not in links:
                raise LinkRefused(f"Fireworks gave no link for {name}")
            self._links.put(links[name], path)
            self._raw.validate_upload(dataset, body={})

        def request() -> None:
            # An attempt before this one may have done it, and only its answer got lost.
            if parsed(Resource, self._raw.get(dataset)).state != "READY":
                (direct if path.stat().st_size <= DIRECT_BYTES else by_link)()

        self._api.call(request)
