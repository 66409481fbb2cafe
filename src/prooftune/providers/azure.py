"""Azure OpenAI's fine-tuning: OpenAI's API at the address of a resource, and deployments through Azure's management API.

What differs from OpenAI: files begin with a byte-order mark, jobs have a training type, lists of jobs may know no metadata, and nothing
answers without a deployment, not even a base model. Batches go to a deployment of another kind, which answers nothing directly and which
tuned models cannot have.
Sources: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning and …/how-to/batch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prooftune.errors import EnvironmentLacks, SpecError
from prooftune.providers.azure_management import AccountModel, DeploymentAnswer, Management
from prooftune.providers.chat import ChatModel
from prooftune.providers.openai import OpenAIChat
from prooftune.providers.openai_answers import CheckpointAnswer
from prooftune.providers.openai_rows import Rules
from prooftune.providers.openai_tuning import FAMILIES, STATUSES, OpenAITuner, family_of
from prooftune.providers.tuning import MARK, Capability, Deployment, Files, Order, Status, suffix_of
from prooftune.spec import Objective, Provider

AZURE_STATUSES: Mapping[str, Status] = {
    **STATUSES,
    "pending": "waiting",
    "notRunning": "waiting",
    "pausing": "running",
    "resuming": "waiting",
    "canceled": "cancelled",
}
"""Azure's own API has words besides OpenAI's; jobs of the developer tier are interrupted and go on."""
TRAINING_TYPES = {"standard": "Standard", "global_standard": "GlobalStandard", "developer": "developerTier"}
"""Microsoft's guide calls the last one ``Developer`` in a comment; its example that sends it, and its SDK's tests, write it so."""
SKUS = {"standard": "standard", "global_standard": "globalstandard", "developer": "developertier"}
"""Of a tuned model's deployment. What answers at the developer tier lives for 24 hours and is billed by the token alone."""
CAPACITY = 50
"""In thousands of tokens a minute; a limit of the rate, not a price."""
BATCH_SKU = "GlobalBatch"
BATCH_CAPACITY = 5_000
"""In thousands of tokens that may wait at once; no price either. The least that Azure grants a paying subscription is tens of millions.
Source: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/batch#batch-quota."""
SUFFIX_MAX = 40
FAILED = ("Failed", "Canceled", "Disabled")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,63}")
_VERSIONED = re.compile(r"(?P<name>.+)-(?P<version>\d{4}-\d{2}-\d{2})")
_TUNED = re.compile(r".+\.ft-.+|ftchkpt-.+")


class AzureTuner(OpenAITuner):
    """Azure OpenAI's fine-tuning."""

    provider = "azure"
    statuses = AZURE_STATUSES
    rules = Rules(file_bytes=512 * 2**20, byte_order_mark=True)

    def __init__(self, options: Provider) -> None:
        missing = [f"provider.{name}" for name in ("base_url", "resource") if getattr(options, name) is None]
        if missing:
            raise SpecError(f"backend.provider azure needs {' and '.join(missing)}: the resource's address and its id")
        super().__init__(options)
        self.management = Management(options.resource or "")

    def probe(self, model: str, objective: Objective) -> Capability:
        """Ask the management API whether the resource may tune the model: so its token is known to be good before money is spent."""
        name, version = split_version(model)
        offered = [one for one in self.management.models() if one.name == name and version in (None, one.version)]
        tunable = [one for one in offered if (one.capabilities or {}).get("fineTune", "").lower() == "true"]
        if not tunable:
            found = "offers the model, and not its fine-tuning" if offered else "does not offer the model"
            return Capability(tunable=False, why=f"the resource {found}: {model}")
        objectives = FAMILIES.get(family_of(model), (("supervised",), None))[0]
        return Capability(
            tunable=objective in objectives,
            why=f"the resource offers {' and '.join(objectives)} fine-tuning of {model}",
            objectives=objectives,
            last_job=_latest(tunable, "fine_tune"),
            shutdown=_latest(tunable, "inference"),
            limits=self._limits(),
        )

    def deploy(self, model: str, name: str) -> Deployment | None:
        """Make the deployment through which a tuned model answers, or a base model.

        Raises:
            EnvironmentLacks: Azure could not make it.
        """
        if not _NAME.fullmatch(name):
            raise SpecError(
                f"{name!r} cannot be the name of a deployment; Azure takes 2 to 64 letters, digits, dots, dashes and underscores"
            )
        if _TUNED.fullmatch(model):
            sku, what = {"name": SKUS[self.options.tier], "capacity": CAPACITY}, {"name": model, "version": "1"}
        else:
            base, version = split_version(model)
            sku, what = self._base_sku(), {"name": base} | ({"version": version} if version else {})
        body = {"sku": sku, "properties": {"model": {"format": "OpenAI", **what}}}
        made = self.management.deploy(name, body)
        if made.properties.state in FAILED:
            raise EnvironmentLacks(f"Azure's deployment {name} of {model} is {made.properties.state}; its page in the portal says why")
        return _told(made)

    def deployments(self) -> list[Deployment]:
        """Return the resource's deployments under names of ours."""
        return [_told(one) for one in self.management.deployments() if one.name.startswith(f"{MARK}-")]

    def take_down(self, name: str) -> None:
        """Delete a deployment; one that is gone is fine."""
        self.management.delete(name)

    def _base_sku(self) -> dict[str, Any]:
        tier = self.options.tier
        # The developer tier is for tuned models alone.
        return {"name": SKUS["global_standard" if tier == "developer" else tier], "capacity": CAPACITY}

    def _body(self, order: Order, files: Files) -> dict[str, Any]:
        return super()._body(order, files) | {"extra_body": {"trainingType": TRAINING_TYPES[self.options.tier]}}

    def _suffix(self, order: Order) -> str:
        return suffix_of(order, SUFFIX_MAX).replace(".", "-")

    def _filter(self, order: Order) -> dict[str, Any]:
        return {}

    def _checkpoint(self, saved: CheckpointAnswer) -> str:
        return saved.id


class AzureBatchTuner(AzureTuner):
    """The same resource, where a base model is deployed to take batches."""

    def __init__(self, options: Provider, direct: str) -> None:
        """``direct`` is the base model's deployment that answers directly: the first question, and what a batch leaves unanswered."""
        super().__init__(options)
        self._direct = direct

    def chat(self, model: str) -> ChatModel:
        """Return the client of the base model whose batches go to this deployment."""
        return OpenAIChat(self._direct, self._key, self.address, self.provider, batches_at=model)

    def _base_sku(self) -> dict[str, Any]:
        return {"name": BATCH_SKU, "capacity": BATCH_CAPACITY}


def split_version(model: str) -> tuple[str, str | None]:
    """Return a base model's name and the date that is its version."""
    found = _VERSIONED.fullmatch(model)
    return (found["name"], found["version"]) if found else (model, None)


def _latest(models: list[AccountModel], use: str) -> Any:
    dates = [getattr(one.deprecation, use) for one in models if one.deprecation]
    return max((found.date() for found in dates if found), default=None)


def _told(found: DeploymentAnswer) -> Deployment:
    state = found.properties.state
    return Deployment(
        name=found.name,
        model=found.properties.model.name,
        ready=state == "Succeeded",
        told=state,
        chat=found.name,
        created_at=found.system.created if found.system else None,
        failed=state in ("Failed", "Canceled"),
    )
