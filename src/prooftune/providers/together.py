"""Together AI: fine-tuning jobs known by suffix, file and seed; tuned models on endpoints of ours. The only file that imports the SDK.

Source: https://docs.together.ai/reference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from prooftune.errors import EnvironmentLacks, ModelUnavailable, Problem, SpecError, TransientError
from prooftune.providers import together_rows as rows
from prooftune.providers.calls import TIMEOUT_S, Caller
from prooftune.providers.chat import KEYS, ChatModel, read_key
from prooftune.providers.listing import Unreadable, surely
from prooftune.providers.together_answers import (
    CheckpointList,
    FileAnswer,
    JobAnswer,
    JobList,
    Limits,
    Price,
)
from prooftune.providers.together_batch import TogetherChat
from prooftune.providers.together_connection import Connection, read_failure
from prooftune.providers.together_endpoints import Endpoints
from prooftune.providers.together_events import EventList, MetricList, events_of
from prooftune.providers.together_files import download_adapter, upload
from prooftune.providers.tuning import Capability, Checkpoint, Deployment, Event, Files, Job, Order, suffix_of
from prooftune.spec import Objective, Provider

ADDRESS = "https://api.together.ai"
METRICS = "metrics.jsonl"


class TogetherTuner:
    """Together's fine-tuning API.

    It takes no idempotency key, and a job shows no metadata: it is known again by its suffix, which ends in digits of the run key, its
    training file and its seed. All jobs stand in one list without pages.
    """

    provider = "together"
    creates_once = False

    def __init__(self, options: Provider) -> None:
        """Open the client; nothing is sent yet.

        Raises:
            EnvironmentLacks: the key or the SDK is missing.
        """
        key = read_key(self.provider)
        try:
            import httpx
            from together import APIError, Together
        except ImportError:
            raise EnvironmentLacks("the SDK together is not installed; run: pip install 'prooftune[together]'") from None
        base = (options.base_url or ADDRESS).rstrip("/").removesuffix("/v1")
        self._inference = f"{base}/v1"
        self.address = f"{base}/v2/projects/{options.project}" if options.project else self._inference
        client = Together(api_key=key, base_url=base, max_retries=0, timeout=TIMEOUT_S)
        # The SDK's uploads raise httpx' errors as they are.
        call = Caller(f"together at {base}", KEYS[self.provider], key, (APIError, httpx.HTTPError), read_failure)
        self.api = Connection(client, call, _sender(client), options.project)
        self._endpoints = Endpoints(self.api)

    def probe(self, model: str, objective: Objective) -> Capability:
        """Ask for the limits of tuning the model. Together tells no day on which a model ends."""
        listing = self.api.client.fine_tuning.with_raw_response.model_limits
        try:
            limits = self.api.read(Limits, lambda: listing(model_name=model))
        except SpecError as error:
            return Capability(tunable=False, why=f"Together tells no limits of tuning {model}: {error}", owns_weights=True)
        lora = limits.lora_training
        preference = limits.max_seq_length_dpo > 0 and lora.max_batch_size_dpo > 0
        objectives: tuple[Objective, ...] = ("supervised", "preference") if preference else ("supervised",)
        dpo = objective == "preference"
        return Capability(
            tunable=objective in objectives,
            why=f"Together tunes {model} by {' and '.join(objectives)} fine-tuning, as an adapter",
            objectives=objectives,
            owns_weights=True,
            limits={
                "rows_min": 1,
                "file_bytes": rows.FILE_BYTES,
                "tokens_per_example": limits.max_seq_length_dpo if dpo else limits.max_seq_length_sft,
                "epochs_max": limits.max_num_epochs,
                "batch_size_min": lora.min_batch_size,
                "batch_size_max": lora.max_batch_size_dpo if dpo else lora.max_batch_size,
                "adapter_rank_max": lora.max_rank,
                "learning_rate_min": limits.min_learning_rate,
                "learning_rate_max": limits.max_learning_rate,
            },
        )

    def write_rows(self, examples: Path, system: str, objective: Objective, out: Path, model: str | None = None) -> None:
        """Write examples as Together's rows."""
        rows.write_rows(examples, system, objective, out)

    def check_rows(self, path: Path, order: Order, role: Literal["train", "validation"]) -> list[Problem]:
        """Return what Together would refuse in the rows."""
        return rows.check_rows(path, order, role)

    def upload(self, path: Path, key: str, role: Literal["train", "validation"]) -> str:
        """Upload rows and wait until Together has checked them. The same bytes are one file, whatever run they are of."""
        return upload(self.api, path, f"{key}-{role}.jsonl", "fine-tune")

    def estimate(self, order: Order, files: Files) -> float | None:
        """Return what Together estimates that the order costs, in USD; None = it cannot tell. Creates nothing.

        Together takes an order whose estimate is beyond the account's limit all the same, and cancels the job later.

        Raises:
            EnvironmentLacks: the account may not spend so much.
        """
        wanted = rows.estimate_of(order, files)
        price = self.api.read(Price, lambda: self.api.client.fine_tuning.with_raw_response.estimate_price(**wanted))
        if price.allowed_to_proceed is False:
            usd = "an unknown sum" if price.estimated_total_price is None else f"{price.estimated_total_price:.2f} USD"
            limit = "its limit" if price.user_limit is None else f"its limit of {price.user_limit:.2f} USD"
            raise EnvironmentLacks(f"Together estimates {usd} for {order.key}, and the account may not spend that ({limit}); add credit")
        return price.estimated_total_price if price.estimation_available else None

    def create(self, order: Order, files: Files) -> Job:
        """Create the job with one request. The SDK's own method asks for the price as well, and creates the job whatever the answer is."""
        import httpx

        body = rows.request_of(order, files)

        def request() -> Job:
            answer = self.api.client.post("/v1/fine-tunes", body=body, cast_to=httpx.Response)
            return JobAnswer.model_validate_json(answer.text).job()

        return self.api.call.create(request)

    def find(self, order: Order, files: Files) -> list[Job]:
        """Return every job with the order's suffix, training file and seed.

        Raises:
            TransientError: there is none, and one that cannot be read may be the order's.
        """
        suffix = suffix_of(order, rows.SUFFIX_MAX)
        wanted, jobs = (suffix, files.train, order.seed), self._all()
        found = [job.job() for job in _readable(jobs) if (job.suffix, job.training_file, job.random_seed) == wanted]
        unreadable = [job for job in jobs if isinstance(job, Unreadable)]
        hidden = [job for job in unreadable if job.may_be(suffix=suffix, training_file=files.train, random_seed=order.seed)]
        return surely(found, hidden, order)

    def job(self, job: str) -> Job:
        """Return the job as it is now; why it failed stands among its events."""
        found = self.api.read(JobAnswer, lambda: self._jobs.retrieve(job)).job()
        return found.model_copy(update={"error": self._events(job).why}) if found.status == "failed" else found

    def events(self, job: str, after: str | None) -> list[Event]:
        """Return what the job reported and measured after an event, oldest first."""
        return events_of(self._events(job), self._metrics(job), after)

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """Return what was saved so far, by step. A checkpoint can be downloaded and trained on; it is not asked directly."""
        found = self.api.read(CheckpointList, lambda: self._jobs.list_checkpoints(job))
        return [Checkpoint(id=f"{job}:{step}", step=step) for step in sorted({one.step for one in found.data})]

    def download(self, job: str, out: Path) -> list[str]:
        """Write metrics and, of a job that succeeded, the adapter's files into the folder; return their names.

        Raises:
            ModelUnavailable: the weights are there as pickles only.
        """
        out.mkdir(parents=True, exist_ok=True)
        measured = self._metrics(job).metrics or []
        (out / METRICS).write_text("".join(json.dumps(row) + "\n" for row in measured), encoding="utf-8")
        return [METRICS, *(download_adapter(self.api, job, out) if self.job(job).status == "succeeded" else ())]

    def cancel(self, job: str) -> Job:
        """Ask Together to end the job; one that has ended is fine. What was trained until then is billed."""
        found = self.job(job)
        if found.ended:
            return found
        try:
            self.api.call(lambda: self._jobs.cancel(job))
        except SpecError:
            if not self.job(job).ended:  # it may have ended between the two requests
                raise
        return self.job(job)

    def deploy(self, model: str, name: str) -> Deployment | None:
        """Serve a tuned model from an endpoint of that name, and wait until it answers; a base model answers as it is.

        Raises:
            ModelUnavailable: the tuned model is not in Together's registry, or no hardware is offered for it.
            EnvironmentLacks: the deployment failed to start.
            TransientError: it did not start within half an hour, or the job that made it cannot be read.
        """
        made = self._made(model)
        if made is None:
            return None
        found = self.api.read(JobAnswer, lambda: self._jobs.retrieve(made))
        # An adapter alone is merged into its base model when its deployment starts.
        identity = found.model_object_id or found.adapter_object_id
        if not identity:
            raise ModelUnavailable(f"Together's registry has no model of {made}, so that it cannot be deployed; download its weights")
        return self._endpoints.ensure(f"projects/{self.api.project}/models/{identity}", name)

    def deployments(self) -> list[Deployment]:
        """Return the endpoints whose name is of ours."""
        return self._endpoints.running()

    def take_down(self, name: str) -> None:
        """Stop and delete an endpoint with what runs behind it."""
        self._endpoints.delete(name)

    def chat(self, model: str) -> ChatModel:
        """Return the client of a model that Together serves, or of a deployment."""
        return TogetherChat(model, self._inference, self.api)

    @property
    def _jobs(self) -> Any:
        return self.api.client.fine_tuning.with_raw_response

    def _all(self) -> list[JobAnswer | Unreadable]:
        return self.api.read(JobList, lambda: self._jobs.list()).data

    def _made(self, model: str) -> str | None:
        """Return the job that made a tuned model; None = none did: it is a base model.

        Raises:
            TransientError: none that shows its model did, and one of the others may have.
        """
        jobs = self._all()
        for job in jobs:
            if model == (job.field("model_output_name") if isinstance(job, Unreadable) else job.model_output_name):
                return job.id
        if hidden := [job.id for job in jobs if isinstance(job, Unreadable) and job.may_be(model_output_name=model)]:
            raise TransientError(
                f"together lists {', '.join(hidden)} in a form that cannot be read, and that may have made {model}; it was not deployed. "
                "Run the same command again later, or with a newer version of Prooftune"
            )
        return None

    def _events(self, job: str) -> EventList:
        return self.api.read(EventList, lambda: self._jobs.list_events(job))

    def _metrics(self, job: str) -> MetricList:
        return self.api.read(MetricList, lambda: self._jobs.list_metrics(job))


def _readable(jobs: list[JobAnswer | Unreadable]) -> list[JobAnswer]:
    return [job for job in jobs if not isinstance(job, Unreadable)]


def _sender(client: Any) -> Any:
    """Return what uploads a file: the SDK's way in three requests, without its check, which passes nonsense."""
    from together import APIStatusError
    from together.lib import UploadManager
    from together.lib.resources.files import FileAlreadyExistsError

    def send(path: Path, purpose: str) -> FileAnswer:
        try:
            sent = UploadManager(client).upload("/v1/files", path, purpose)
        except FileAlreadyExistsError as error:
            return FileAnswer(id=error.file_id)
        except KeyError as error:  # a conflict that names no file, and the SDK takes it for granted that each does
            if isinstance(error.__context__, APIStatusError):
                raise error.__context__ from None
            raise
        return FileAnswer.model_validate(sent.model_dump(include={"id", "processing_status"}))

    return send
