"""The run spec: what a user writes. Importing it costs neither torch nor prefect.

``load_spec`` reads YAML, applies ``key=value`` overrides and reports every problem at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from prooftune.errors import Problem, SpecError
from prooftune.types import Frozen

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Lower case, digits and dashes: it becomes part of paths, artifact keys and run ids."""
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Amount = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0.0, lt=1.0)]
"""A count of examples (an integer) or a share of them (between 0 and 1)."""


def _without_credentials(address: str) -> str:
    """Refuse an address with a user or password in it: specs are stored, shown and published."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*@", address):
        raise ValueError("an address may hold no user or password: a spec is stored and shown; put credentials in the environment")
    return address


Address = Annotated[str, AfterValidator(_without_credentials)]
"""A path or URI without credentials."""

MetricName = Literal["exact_match", "label_accuracy", "macro_f1", "json_field_accuracy", "rouge_l"]


class Columns(Frozen):
    """Which columns of a table hold the prompt and the target (``shape: table``)."""

    prompt: str = "prompt"
    """Column with the user's text."""
    target: str = "target"
    """Column with the answer to learn. An object or list is written as JSON."""


class Split(Frozen):
    """How examples are divided. Near-duplicates always stay together."""

    holdout: Amount = 0.25
    """Sealed for evaluation: a share (0.25) or a number of examples (500)."""
    validation: Amount = 0.1
    """For validation loss and few-shot choices: a share or a number."""
    train: Annotated[int, Field(ge=1)] | None = None
    """At most this many training examples; null = all that are left."""
    seed: int = 7
    """The same seed and the same examples give the same split, on every machine."""
    group_by: str | None = None
    """Metadata column whose equal values must stay in one split, such as ``customer``."""
    stratify_by: str | None = None
    """Metadata column to keep in proportion; null = the target, where it has few values."""
    time_by: str | None = None
    """Metadata column to sort by, so that the holdout is the newest; null = random."""

    @model_validator(mode="after")
    def _shares_leave_training_data(self) -> Self:
        shares = [x for x in (self.holdout, self.validation) if isinstance(x, float)]
        if sum(shares) >= 1.0:
            raise ValueError(f"holdout {self.holdout} + validation {self.validation} leave nothing to train on; their sum must be below 1")
        return self


class Data(Frozen):
    """What to learn from, and what to do about its flaws."""

    source: Address
    """A file (JSONL, JSON, CSV, Parquet; .gz too), a glob, a folder, ``s3://bucket/key``, or a hub data set as ``hf://owner/name``.

    A relative path is looked up beside the spec.
    """
    shape: Literal["auto", "chat", "alpaca", "sharegpt", "prompt_completion", "table"] = "auto"
    """Form of the records; ``auto`` decides by the fields of the first records and says so."""
    columns: Columns = Columns()
    """Only for ``shape: table``."""
    on_invalid: Literal["fail", "skip"] = "fail"
    """``fail`` stops with every problem listed; ``skip`` drops the invalid rows and lists them in the report."""
    pii: Literal["allow", "redact", "drop", "stop"] = "redact"
    """E-mail addresses, phone numbers, IBANs and card numbers: keep them, put ``[EMAIL]`` and the like in their place, drop the example, or
    stop the run."""
    contradictions: Literal["keep", "drop"] = "drop"
    """Same prompt, different targets: drop all of them, or keep them (they are listed either way)."""
    min_examples: Annotated[int, Field(ge=2)] = 50
    """Fewer training examples than this end in ``do_not_fine_tune``."""
    split: Split = Split()


class Task(Frozen):
    """What the model is to do, and how an answer is judged."""

    system: str = ""
    """System message of training and of the tuned model; empty = none. Records that bring their own keep it."""
    metric: MetricName = "exact_match"
    """The metric that the gate decides on; the others are reported."""
    target: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """A baseline that reaches this makes tuning pointless: ``do_not_fine_tune``."""
    max_answer_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Limit on generated tokens; null = half as long again as the longest training target."""


class Baseline(Frozen):
    """The prompt-only contestants that a candidate must beat."""

    ladder: tuple[Literal["zero_shot", "few_shot"], ...] = ("zero_shot", "few_shot")
    """Rungs, in order."""
    shots: Annotated[int, Field(ge=1, le=64)] = 8
    """Demonstrations in the few-shot prompt, taken from the training split."""
    system: str | None = None
    """A fuller instruction for prompting, where the tuned model gets by with a short one; null = ``task.system``."""
    model: str | None = None
    """Base model to prompt; null = the candidate's own."""


class Method(Frozen):
    """How the model is trained."""

    kind: Literal["lora", "qlora", "full"] = "lora"
    """``lora``: adapters on frozen weights; ``qlora``: the same on 4-bit NF4 weights (Dettmers et al., 2023); ``full``: all weights."""
    r: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank of the adapter matrices (Hu et al., 2021)."""
    alpha: Annotated[int, Field(ge=1)] = 32
    """Adapter scale: updates are multiplied by alpha / r."""
    dropout: Share = 0.0
    """Share of the adapter's inputs that is dropped in training."""
    layers: Annotated[int, Field(ge=1)] | None = None
    """Put adapters on the last so many layers only: less to compute in the backward pass; null = every layer."""
    epochs: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Passes over the training split."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1.0e-3
    """Peak, cosine schedule with 5 % warm-up."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Global batch size: per-device × accumulation × devices, in examples."""
    max_length: Annotated[int, Field(ge=16)] = 1024
    """Tokens per example; a longer one is cut, and preflight says how many answers that touches."""
    early_stopping: Annotated[int, Field(ge=1)] | None = 3
    """Stop after so many validation checks without a lower loss; null = never."""
    checks_per_epoch: Annotated[int, Field(ge=1)] = 3
    """Validation loss and a checkpoint this often."""
    seed: int = 7
    """Of the adapter's first weights and the order of examples."""


class Backend(Frozen):
    """Where and what to train."""

    provider: Literal["local"] = "local"
    """``local`` = this machine: CPU, or a CUDA GPU where there is one."""
    model: str = "smollm2-135m-instruct"
    """The demo model, a hub id (``owner/name``) or a folder with safetensors."""
    revision: str | None = None
    """Commit of the hub model; null = the hub's current one. Required with ``trust_remote_code``."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose code you have read."""
    method: Method = Method()

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        if self.trust_remote_code and self.revision is None:
            raise ValueError("trust_remote_code: true needs backend.revision, the commit whose code you have read")
        return self


class Gate(Frozen):
    """What a candidate must show to be promoted."""

    min_effect: Share = 0.02
    """Smallest gain over the best baseline that is worth a new model, in units of the metric (0.02 = 2 points)."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Two-sided significance level."""
    min_holdout: Annotated[int, Field(ge=2)] = 30
    """Fewer held-out examples than this end in ``do_not_fine_tune``: no result could be told from luck."""


class Store(Frozen):
    """Where everything that must last is kept."""

    uri: Address = "./prooftune-store"
    """A folder (relative to where the command runs) or ``s3://bucket/prefix``."""
    endpoint_url: Address | None = None
    """For S3-compatible servers; null = AWS, or what AWS_ENDPOINT_URL says."""


class Tracking(Frozen):
    """Experiment trackers that get training metrics as well."""

    mlflow: Address | None = None
    """Tracking URI; needs the package ``mlflow``."""
    wandb: str | None = None
    """Project name; needs the package ``wandb`` and WANDB_API_KEY in the environment."""


class RunSpec(Frozen):
    """Everything a run depends on. Six lines are enough: ``name``, ``data.source`` and what differs from the defaults."""

    name: Name
    """Name of the task: lower case, digits, dashes. Champions are kept under it."""
    data: Data
    task: Task = Task()
    baseline: Baseline = Baseline()
    backend: Backend = Backend()
    gate: Gate = Gate()
    store: Store = Store()
    tracking: Tracking = Tracking()

    def resolved_yaml(self) -> str:
        """The spec with every default filled in, as it is saved beside each artifact."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def digest(value: object) -> str:
    """SHA-256 hex of a JSON-able value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def load_spec(path: Path | str, overrides: Sequence[str] = ()) -> RunSpec:
    """Read a YAML spec and apply ``dotted.key=value`` overrides (values are YAML).

    A relative ``data.source`` in the file is looked up beside the file, one in an override from the current folder.

    Raises:
        SpecError: with every problem found, each with its dotted field.
    """
    path = Path(path)
    raw = _read_yaml(path)
    data = raw.get("data")
    if isinstance(data, dict) and isinstance(source := data.get("source"), str) and _is_relative_path(source):
        data["source"] = str(path.parent.resolve() / source)
    for key, value in _parse_overrides(overrides):
        if key == "data.source" and isinstance(value, str) and _is_relative_path(value):
            value = str(Path.cwd() / value)
        _set(raw, key, value)
    return parse_spec(raw, where=str(path))


def parse_spec(raw: dict[str, object], where: str = "spec") -> RunSpec:
    """Turn a nested mapping into a spec.

    Raises:
        SpecError: with every problem found.
    """
    try:
        return RunSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(f"{where} is not a usable spec:", tuple(_problems(error))) from None


def store_at(uri: str, endpoint_url: str | None = None) -> Store:
    """Return the store block for an address given on the command line.

    Raises:
        SpecError: the address cannot be one.
    """
    try:
        return Store(uri=uri, endpoint_url=endpoint_url)
    except ValidationError as error:
        raise SpecError("the store's address is not usable:", tuple(_problems(error))) from None


def _read_yaml(path: Path) -> dict[str, object]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SpecError(f"no spec at {path}; `prooftune init DIR` writes one to start from") from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a folder; a spec is a YAML file") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SpecError(f"{path} is nested too deeply to be a spec") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # of a scalar that looks like a date or number and is none, such as 2026-13-01
        raise SpecError(f"{path} holds a value that YAML cannot read: {error}; quote it if it is text") from None
    if not isinstance(raw, dict):
        raise SpecError(f"{path} holds {type(raw).__name__}; a spec is a mapping that starts with `name:`")
    return raw


def _is_relative_path(source: str) -> bool:
    return "://" not in source and not Path(source).is_absolute()


def _parse_overrides(overrides: Iterable[str]) -> Iterable[tuple[str, object]]:
    for text in overrides:
        key, sign, value = text.partition("=")
        if not sign or not re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", key):
            raise SpecError(f"--set {text!r} is not of the form dotted.key=value, such as data.split.seed=3")
        try:
            yield key, yaml.safe_load(value)
        except yaml.YAMLError:
            raise SpecError(f"--set {key}: {value!r} is not a YAML value; quote it if it is text") from None


def _set(raw: dict[str, object], key: str, value: object) -> None:
    *parents, leaf = key.split(".")
    node = raw
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise SpecError(f"--set {key}: {parent} is {child!r} and has no fields")
        node = child
    node[leaf] = value


def _problems(error: ValidationError) -> Iterable[Problem]:
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"]) or "spec"
        # What stands in an unknown field, or in an address that was refused, may be a secret.
        shown = item["type"] not in ("missing", "extra_forbidden") and "credentials" not in item["msg"]
        found = f" (found {_shorten(item['input'])})" if shown else ""
        yield Problem(where, f"{item['msg'].removeprefix('Value error, ')}{found}", code=item["type"])


def _shorten(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
