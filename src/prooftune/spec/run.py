"""The spec as a whole."""

from __future__ import annotations

from typing import Self

import yaml
from pydantic import ValidationError, model_validator

from prooftune.errors import Problem, SpecError
from prooftune.spec.data import Data, Split
from prooftune.spec.evaluation import Baseline, Gate, General, Judge, LearningCurve, Task
from prooftune.spec.fields import Name
from prooftune.spec.provider import Budget, Cluster, Provider
from prooftune.spec.training import WARM, Backend, ProviderName, Store, Tracking
from prooftune.spec.use import Use
from prooftune.spec.watching import Retrain, Watch
from prooftune.types import Frozen


class Alternative(Frozen):
    """Another backend for the same task."""

    backend: Backend
    provider: Provider = Provider()


class RunSpec(Frozen):
    """Everything a run depends on. ``name``, ``data.source`` and what differs from the defaults are enough."""

    name: Name
    """Name of the task: lower case, digits, dashes. Champions are kept under it."""
    data: Data
    task: Task = Task()
    baseline: Baseline = Baseline()
    backend: Backend = Backend()
    provider: Provider = Provider()
    alternatives: dict[ProviderName, Alternative] = {}
    """Further backends, by provider, for `prooftune compare`; a run of its own uses none of them."""
    budget: Budget = Budget()
    gate: Gate = Gate()
    judge: Judge = Judge()
    general: General = General()
    learning_curve: LearningCurve = LearningCurve()
    use: Use = Use()
    watch: Watch = Watch()
    retrain: Retrain = Retrain()
    store: Store = Store()
    tracking: Tracking = Tracking()

    @property
    def title(self) -> str:
        """What its run is called where runs are listed: the task, and what becomes of which base model."""
        backend = self.backend
        model = backend.model.rstrip("/").rpartition("/")[2]  # a folder's or a hub id's own name
        if backend.managed:
            return f"{self.name}: {model} at {backend.provider}"
        how = "full training" if backend.method.kind == "full" else backend.method.kind
        return f"{self.name}: {how} of {model}" + ("" if backend.provider == "local" else f" on {backend.provider}")

    @property
    def of_contest(self) -> RunSpec:
        """What of it a comparison of two tuned models depends on: task, backend, gate, the seed and the rules of where data may go."""
        given = self.data
        data = Data(
            source="-",
            pii=given.pii,
            residency=given.residency,
            max_retention_days=given.max_retention_days,
            split=Split(seed=given.split.seed),
        )
        return RunSpec(name=self.name, data=data, task=self.task, backend=self.backend, provider=self.provider, gate=self.gate)

    @model_validator(mode="after")
    def _what_decides_is_there(self) -> Self:
        for metric, option in (("json_schema", self.task.json_schema), ("regex_match", self.task.pattern)):
            if metric in self.gate.metrics and option is None:
                raise ValueError(f"gate.metrics has {metric}, which needs task.{'json_schema' if metric == 'json_schema' else 'pattern'}")
        if self.judge.decides and self.judge.model is None:
            raise ValueError("judge.decides: true needs judge.model")
        if self.retrain.warm_start and self.backend.provider not in WARM:
            provider = self.backend.provider
            raise ValueError(f"retrain.warm_start is for {', '.join(WARM)}; backend.provider {provider} starts from a base model")
        if self.gate.max_payback_months is not None and self.use.requests_per_month is None:
            raise ValueError("gate.max_payback_months needs use.requests_per_month: without a volume nothing is paid back by a date")
        return self

    @model_validator(mode="after")
    def _alternatives_are_named_right(self) -> Self:
        for name, alternative in self.alternatives.items():
            if alternative.backend.provider != name:
                raise ValueError(f"alternatives.{name} has backend.provider {alternative.backend.provider}; both must be the same")
        return self

    @property
    def cluster(self) -> Cluster | None:
        """Where it trains on Ray; None = not on Ray."""
        if self.backend.provider != "ray":
            return None
        provider = self.provider
        return Cluster(address=provider.base_url, cpus=provider.cpus, gpus=provider.gpus, hold_minutes=provider.hold_minutes)

    def on_backend(self, provider: str) -> RunSpec:
        """Return the spec as it runs on another of its backends.

        Raises:
            SpecError: it has no such backend, or what that one needs is not set.
        """
        if provider == self.backend.provider:
            return self.model_copy(update={"alternatives": {}})
        alternative = next((found for name, found in self.alternatives.items() if name == provider), None)
        if alternative is None:
            known = ", ".join([self.backend.provider, *self.alternatives])
            raise SpecError(f"the spec has no backend {provider!r}; it has {known}: add it under alternatives.{provider}")
        changed = {"backend": alternative.backend.model_dump(), "provider": alternative.provider.model_dump(), "alternatives": {}}
        try:
            return RunSpec.model_validate(self.model_dump() | changed)
        except ValidationError as error:
            reasons = tuple(Problem(f"alternatives.{provider}", item["msg"]) for item in error.errors(include_url=False))
            raise SpecError(f"the backend {provider} is not usable:", reasons) from None

    @model_validator(mode="after")
    def _provider_has_what_it_needs(self) -> Self:
        needs = {
            "azure": ("base_url", "resource"),
            "bedrock": ("region", "bucket", "role_arn"),
            "vertex": ("project", "region", "bucket"),
            "fireworks": ("project",),
        }
        if self.backend.managed and self.learning_curve.shares:
            raise ValueError(
                f"learning_curve.shares trains on this machine; backend.provider {self.backend.provider} does not: set it to []"
            )
        if self.backend.managed and self.gate.looks > 1:
            raise ValueError(
                f"gate.looks is {self.gate.looks}, and backend.provider {self.backend.provider} hands on one model: set it to 1"
            )
        missing = [f"provider.{field}" for field in needs.get(self.backend.provider, ()) if getattr(self.provider, field) is None]
        if missing:
            raise ValueError(f"backend.provider {self.backend.provider} needs {', '.join(missing)}")
        if (self.backend.objective == "reinforcement") != bool(self.provider.grader):
            raise ValueError("backend.objective reinforcement and provider.grader go together: one is set without the other")
        if self.provider.training_hours is not None and self.backend.objective != "reinforcement":
            raise ValueError(
                f"provider.training_hours is set, and backend.objective is {self.backend.objective}; only reinforcement is billed by time"
            )
        return self

    def resolved_yaml(self) -> str:
        """The spec with every default filled in, as it is saved beside each artifact."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
