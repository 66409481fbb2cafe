"""Fireworks AI: fine-tuning jobs under ids of ours, adapters on deployments of ours.

The only file that imports the SDK ``fireworks-ai``.
Source: https://docs.fireworks.ai/api-reference.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prooftune.errors import EnvironmentLacks, ModelUnavailable, OutcomeUnknown, Problem, SpecError, TransientError
from prooftune.providers import fireworks_connection as connection
from prooftune.providers import fireworks_rows as rows
from prooftune.providers.calls import TIMEOUT_S, Caller, NotFoundError
from prooftune.providers.chat import KEYS, ChatModel, read_key
from prooftune.providers.fireworks_answers import CheckpointPage, JobAnswer, Link, Links, Model, last
from prooftune.providers.fireworks_batch import FireworksChat
from prooftune.providers.fireworks_connection import Connection, parsed
from prooftune.providers.fireworks_datasets import Datasets
from prooftune.providers.fireworks_deployments import Deployments
from prooftune.providers.fireworks_jobs import COLLECTIONS, capability_of, owner_of, request_of
from prooftune.providers.fireworks_links import LinkRefused, SignedLinks, file_name
from prooftune.providers.fireworks_metrics import events_of
from prooftune.providers.tuning import Capability, Checkpoint, Deployment, Event, Files, Job, Order
from prooftune.spec import Objective, Provider

log = logging.getLogger(__name__)

ADDRESS = "https://api.fireworks.ai"
METRICS = "metrics.jsonl"
_ID = re.compile(r"[a-z0-9-]{1,63}")
_READABLE = (".safetensors", ".json", ".jinja", ".txt", ".model")
"""Endings of a model's files that are downloaded: no pickle is, since reading one runs what it holds."""


class FireworksTuner:
    """Fireworks' fine-tuning API.

    A job has the run key as its id, so that a second request under it creates nothing: Fireworks answers 409. Its API takes no seed:
    ``Order.seed`` is in the run key and is not sent, and a tuning cannot be repeated bit by bit. A preference job takes no validation file.
    """

    provider = "fireworks"
    creates_once = True

    def __init__(self, options: Provider) -> None:
        """Open the client; nothing is sent yet.

        Raises:
            SpecError: ``provider.project`` names no account.
            EnvironmentLacks: the key or the SDK is missing.
        """
        self.account = options.project or ""
        if not _ID.fullmatch(self.account):
            raise SpecError(
                f"provider.project is {options.project!r}; set it to the id of the Fireworks account, which is lower-case letters, digits "
                "and dashes: `firectl whoami` prints it"
            )
        key = read_key(self.provider)
        try:
            from fireworks import APIError, ConflictError, Fireworks
        except ImportError:
            raise EnvironmentLacks("the SDK fireworks-ai is not installed; run: pip install 'prooftune[fireworks]'") from None
        base = (options.base_url or ADDRESS).rstrip("/")
        self.address = f"{base}/v1/accounts/{self.account}"
        client = Fireworks(api_key=key, account_id=self.account, base_url=base, max_retries=0, timeout=TIMEOUT_S)
        call = Caller(f"fireworks account {self.account}", KEYS[self.provider], key, (APIError, LinkRefused))
        self.api = Connection(client, call, ConflictError)
        self._inference = f"{base}/inference/v1" if options.base_url else None
        self._links = SignedLinks(base)
        self._datasets = Datasets(self.api, self._links)
        self._deployments = Deployments(self.api)

    def probe(self, model: str, objective: Objective) -> Capability:
        """Ask whether the model is tunable, and until when Fireworks' own deployment of it answers."""
        owner, name = owner_of(model)
        try:
            found = self.api.read(Model, lambda: self.api.client.models.with_raw_response.get(name, account_id=owner))
        except NotFoundError:
            return Capability(tunable=False, why=f"Fireworks knows no model {model}")
        return capability_of(found, objective)

    def write_rows(self, examples: Path, system: str, objective: Objective, out: Path, model: str | None = None) -> None:
        """Write examples as Fireworks' rows."""
        rows.write_rows(examples, system, objective, out)

    def check_rows(self, path: Path, order: Order, role: Literal["train", "validation"]) -> list[Problem]:
        """Return what Fireworks would refuse in the rows."""
        return rows.check_rows(path, order, role)

    def upload(self, path: Path, key: str, role: Literal["train", "validation"]) -> str:
        """Make the rows a dataset, named by run key and role; return its name once Fireworks says that it is ready."""
        return self._datasets.ensure(f"{key}-{role}", path)

    def estimate(self, order: Order, files: Files) -> float | None:
        """Return nothing: Fireworks says it of a job alone."""
        return None

    def create(self, order: Order, files: Files) -> Job:
        """Create the job under the run key; where it exists already, return it as it is."""
        arguments = request_of(order, files, self.account)
        if order.objective == "preference" and files.validation is not None:
            log.warning("Fireworks' preference jobs take no validation file: that of %s is not used", order.key)

        def request() -> Job | None:
            try:
                answer = self._jobs(COLLECTIONS[order.objective]).create(**arguments)
            except self.api.conflict:
                return None
            return parsed(JobAnswer, answer).job()

        return self.api.call.create(request) or self._existing(order, files)

    def _existing(self, order: Order, files: Files) -> Job:
        """Return the job that a create request was refused for."""
        try:
            found = self.find(order, files)
        except TransientError as error:
            raise OutcomeUnknown(f"Fireworks says that {order.key} exists, and could not be asked for it ({error})") from None
        if not found:
            raise EnvironmentLacks(
                f"Fireworks says that {order.key} exists, and has no such job: probably the job was deleted and its model was not. Delete "
                f"accounts/{self.account}/models/{order.key} at Fireworks, then run the same command again"
            )
        return found[0]

    def find(self, order: Order, files: Files) -> list[Job]:
        """Return the job with the run key as its id, if there is one."""
        try:
            return [self.job(f"accounts/{self.account}/{COLLECTIONS[order.objective]}/{order.key}")]
        except NotFoundError:
            return []

    def job(self, job: str) -> Job:
        """Return the job as it is now."""
        return self._job(job).job()

    def events(self, job: str, after: str | None) -> list[Event]:
        """Return a row of the metrics file as an event. Fireworks has no others, and no metrics of reinforcement jobs by API."""
        return events_of(self._metrics(self._job(job)), after)

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """Return the checkpoints of which Fireworks can make a model, by step.

        None can be asked directly: one is promoted to a model first, at Fireworks. A reinforcement job lists none.
        """
        if _collection_of(job) == COLLECTIONS["reinforcement"]:
            return []
        found: list[Checkpoint] = []
        token: str | None = ""
        while token is not None:
            page = self.api.call(partial(self._checkpoint_page, job, token))
            found += [Checkpoint(id=one.name, step=_step_of(last(one.name))) for one in page.checkpoints if one.promotable]
            token = page.next_page_token or None
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def _checkpoint_page(self, job: str, token: str) -> CheckpointPage:
        """Ask for checkpoints by path: only the SDK's ``training.sdk``, which is a client of its own, has a method for them."""
        import httpx

        query = {"pageSize": connection.PAGE, **({"pageToken": token} if token else {})}
        answer = self.api.client.get(f"/v1/{job}/checkpoints", cast_to=httpx.Response, options={"params": query})
        return CheckpointPage.model_validate_json(answer.text)

    def download(self, job: str, out: Path) -> list[str]:
        """Write metrics and, of a job that succeeded, the adapter's files into the folder; return their names.

        Raises:
            ModelUnavailable: the weights are there as pickles only.
        """
        found, written = self._job(job), list[str]()
        if text := self._metrics(found):
            (out / METRICS).write_text(text, encoding="utf-8")
            written.append(METRICS)
        tuned = found.job().model
        if tuned is None:
            return written
        wanted = {name: file_name(name) for name in sorted(self.api.call(partial(self._weights, tuned))) if name.endswith(_READABLE)}
        if not any(name.endswith(".safetensors") for name in wanted):
            raise ModelUnavailable(f"{tuned} has no weights as safetensors; others are not downloaded, since reading them may run code")
        for name, target in wanted.items():
            self.api.call(partial(self._fetch, tuned, name, out / target))
        return written + list(wanted.values())

    def _weights(self, tuned: str) -> dict[str, str]:
        owner, name = owner_of(tuned)
        return parsed(Links, self.api.client.models.with_raw_response.get_download_endpoint(name, account_id=owner)).filename_to_signed_urls

    def _fetch(self, tuned: str, name: str, target: Path) -> None:
        # With a new link for each file: one lasts minutes, and the file before may have taken longer.
        self._links.fetch(self._weights(tuned)[name], target)

    def cancel(self, job: str) -> Job:
        """Ask Fireworks to end the job; one that has ended is fine."""
        found = self.job(job)
        if found.ended:
            return found
        try:
            self.api.call(lambda: self._jobs(_collection_of(job)).cancel(last(job), body={}))
        except SpecError:
            if not self.job(job).ended:  # it may have ended between the two requests
                raise
        return self.job(job)

    def deploy(self, model: str, name: str) -> Deployment | None:
        """Start a deployment of the adapter's base model, wait until it runs, and load the adapter; a base model answers as it is.

        Deploying again goes on where the call before was.

        Raises:
            EnvironmentLacks: the deployment failed to start.
            TransientError: it did not start within half an hour.
        """
        owner, short = owner_of(model)
        found = self.api.read(Model, lambda: self.api.client.models.with_raw_response.get(short, account_id=owner))
        return self._deployments.ensure(model, found.peft_details.base_model, name) if found.peft_details else None

    def deployments(self) -> list[Deployment]:
        """Return the deployments whose id is of ours."""
        return self._deployments.running()

    def take_down(self, name: str) -> None:
        """Delete a deployment, with the adapters on it."""
        self._deployments.delete(name)

    def chat(self, model: str) -> ChatModel:
        """Return the client of a model, or, as ``MODEL#DEPLOYMENT``, of an adapter on a deployment."""
        return FireworksChat(model, self._inference, self.api, self._datasets)

    def _job(self, job: str) -> JobAnswer:
        return self.api.read(JobAnswer, lambda: self._jobs(_collection_of(job)).get(last(job)))

    def _jobs(self, collection: str) -> Any:
        """Return the SDK's methods for jobs of a kind; their answers are as they came."""
        kinds = {
            COLLECTIONS["supervised"]: self.api.client.supervised_fine_tuning_jobs,
            COLLECTIONS["preference"]: self.api.client.dpo_jobs,
            COLLECTIONS["reinforcement"]: self.api.client.reinforcement_fine_tuning_jobs,
        }
        return kinds[collection].with_raw_response

    def _metrics(self, found: JobAnswer) -> str:
        """Return the metrics file as far as it is written."""

        def request() -> str:
            link = found.metrics_file_signed_url
            if _collection_of(found.name) == COLLECTIONS["preference"]:
                link = parsed(Link, self.api.client.dpo_jobs.with_raw_response.get_metrics_file_endpoint(last(found.name))).signed_url
            return self._links.text(link, METRICS) if link else ""

        try:
            return self.api.call(request)
        except NotFoundError:  # the job is there, its metrics are not yet
            return ""


def _collection_of(job: str) -> str:
    parts = job.split("/")
    if len(parts) != 4 or parts[2] not in COLLECTIONS.values():
        raise SpecError(f"{job[:120]!r} is no job at Fireworks; one is of the form accounts/ACCOUNT/supervisedFineTuningJobs/ID")
    return parts[2]


def _step_of(checkpoint: str) -> int:
    numbers = re.findall(r"\d+", checkpoint)
    return int(numbers[-1]) if numbers else 0
