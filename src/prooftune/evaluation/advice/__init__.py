"""The advise stage: is training worth it, and if so, how? Before any money is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from prooftune.economics.estimate import DEMO_SIZE, read_model_size
from prooftune.economics.machine import Machine, this_machine
from prooftune.economics.prices import load_prices
from prooftune.evaluation.advice.case import Case
from prooftune.evaluation.advice.diversity import diversity_of
from prooftune.evaluation.advice.findings import RULES
from prooftune.evaluation.advice.recommendation import recommend
from prooftune.evaluation.gate import worth_training
from prooftune.evidence import Advice
from prooftune.models.demo import DEMO_MODEL
from prooftune.spec import Backend, RunSpec
from prooftune.types import Decision, Evaluation

__all__ = ["Case", "advise", "diversity_of", "weigh"]


def advise(
    spec: RunSpec,
    train: Path,
    counts: Mapping[str, int],
    data_figures: Mapping[str, Any],
    tokens_figures: Mapping[str, Any],
    baselines: Sequence[Evaluation] = (),
    machine: Machine | None = None,
) -> tuple[Advice, Decision | None]:
    """Weigh data, baselines, power, use and money; return the advice, and the decision that ends the run where training is not worth it.

    ``counts`` holds the examples of the splits ``train`` and ``holdout``, ``data_figures`` and ``tokens_figures`` are those of the stages
    validate and tokens. Works before any model has run (no baselines). ``machine``: None = this one.

    Raises:
        SpecError: ``use.prices`` is not a usable price list.
    """
    case = Case(
        spec=spec,
        n_train=int(counts["train"]),
        n_holdout=int(counts["holdout"]),
        data=data_figures,
        tokens=tokens_figures,
        baselines=baselines,
        diversity=diversity_of(train),
        machine=machine or this_machine(),
        parameters=parameters_of(spec.backend),
        prices=load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today()),
    )
    return weigh(case)


def weigh(case: Case) -> tuple[Advice, Decision | None]:
    """Return the advice on a case, and the decision that ends the run where training is not worth it."""
    decision = worth_training(case.n_train, case.n_holdout, case.baselines, case.spec)
    recommendation, why = recommend(case, decision)
    findings = tuple(finding for rule in RULES for finding in rule(case))
    return Advice(recommendation=recommendation, why=why, findings=findings), decision


def parameters_of(backend: Backend) -> int | None:
    """Return how many parameters the base model has; None where it is not on this machine. Nothing is downloaded."""
    if backend.managed:
        return None
    if backend.model == DEMO_MODEL:
        return DEMO_SIZE.parameters
    folder = Path(backend.model).expanduser()
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            found = try_to_load_from_cache(backend.model, "config.json", revision=backend.revision)
        except HFValidationError:
            return None
        folder = Path(found).parent if isinstance(found, str) else folder
    return read_model_size(folder).parameters or None if any(folder.glob("*.safetensors")) else None
