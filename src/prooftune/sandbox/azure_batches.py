"""Batches of Azure's stand-in: the questions name a deployment, of the kind that takes batches and nothing else.

What is wrong with the questions comes to light when they are read: the batch is made, and fails.
Source of the codes: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/batch#error-codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request
from prooftune.sandbox.openai_batches import Batch, Batches, Complete
from prooftune.sandbox.openai_files import FileStore

SKU = "globalbatch"
NO_NAME = (
    "Validation failed: A valid model deployment name couldn't be extracted from the input file. Please ensure that each row in the input "
    "file has a valid deployment name specified in the 'model' field, and that the deployment name is consistent across all rows."
)


class AzureBatches(Batches):
    """The batches of a resource; ``sku_of`` says of which kind a deployment is, None = there is none of that name."""

    def __init__(
        self, files: FileStore, complete: Complete, refused: Callable[[Refused], Reply], pace_s: float, sku_of: Callable[[str], str | None]
    ) -> None:
        super().__init__(files, complete, refused, pace_s)
        self._sku_of = sku_of

    def create(self, request: Request) -> Reply:
        """Create a batch from a file that has been read and begins with no byte-order mark."""
        file = self._files.get(str(request.json.get("input_file_id")), "input_file_id")
        if self._files.shown(file)["status"] != "processed":
            raise Refused(400, f"The file {file.id} is not processed yet.", "invalidPayload", "input_file_id")
        if file.content().startswith(b"\xef\xbb\xbf"):
            raise Refused(400, NO_NAME, "invalidPayload", "input_file_id")
        return super().create(request)

    def unfit(self, lines: list[dict[str, Any]]) -> tuple[str, str] | None:
        """Return what is wrong with the deployment that the questions name."""
        names = {str(line["body"].get("model")) for line in lines}
        if len(names) > 1:
            return "model_mismatch", "All requests of a batch must name the same deployment in their 'model'."
        [name] = names
        sku = self._sku_of(name)
        if sku is None:
            return "model_not_found", f"The deployment '{name}' that the input file names was not found."
        if sku != SKU:
            return "invalid_request", f"The SKU '{sku}' of the deployment '{name}' is invalid: batches take one of the SKU '{SKU}'."
        return super().unfit(lines)

    def shown(self, batch: Batch) -> dict[str, Any]:
        """Return a batch as the API shows it: while its questions are read it has neither counts nor an endpoint."""
        shown = super().shown(batch)
        if batch.status != "validating":
            return shown
        return shown | {"endpoint": None, "request_counts": {"total": None, "completed": None, "failed": None}}
