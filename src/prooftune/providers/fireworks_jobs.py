"""What is ordered from Fireworks, and what it says that it takes.

Source: https://docs.fireworks.ai/fine-tuning/fine-tuning-models, and the types of the SDK ``fireworks-ai`` 1.2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prooftune.errors import Problem, SpecError
from prooftune.providers.fireworks_answers import Model
from prooftune.providers.tuning import Capability, Files, Order, suffix_of
from prooftune.spec import Objective

ROWS_MIN = 3
ROWS_MAX = 3_000_000
"""Of a dataset, and of a dataset's rows times epochs."""
COLLECTIONS: Mapping[Objective, str] = {
    "supervised": "supervisedFineTuningJobs",
    "preference": "dpoJobs",
    "reinforcement": "reinforcementFineTuningJobs",
}
"""Each objective has jobs of a kind of its own."""
RANKS = (4, 8, 16, 32, 64)
"""Of an adapter: powers of two for training, 4 to 64 for serving."""
BETA_BELOW = 0.5
_GRADER = {"evaluator", "inference_parameters"}
_FIELD = "provider.hyperparameters."


def owner_of(model: str) -> tuple[str, str]:
    """Return account and id of a model.

    Raises:
        SpecError: it is not named as Fireworks names models.
    """
    parts = model.split("/")
    if len(parts) != 4 or (parts[0], parts[2]) != ("accounts", "models") or not all(parts):
        raise SpecError(f"backend.model {model!r} is no model's name at Fireworks; one is of the form accounts/fireworks/models/NAME")
    return parts[1], parts[3]


def require_settings(order: Order) -> None:
    """Check what is ordered against what Fireworks takes.

    Raises:
        SpecError: with a problem for each field that Fireworks cannot take, or for the grader.
    """
    chosen, problems = order.hyperparameters, list[Problem]()

    def refuse(field: str, reason: str) -> None:
        problems.append(Problem(f"{_FIELD}{field}", reason, "hyperparameter"))

    if chosen.learning_rate_multiplier is not None:
        refuse("learning_rate_multiplier", "Fireworks has no learning rate of its own to multiply; set learning_rate, or leave both out")
    if chosen.adapter_alpha is not None:
        refuse("adapter_alpha", "Fireworks chooses the adapter's scale by itself; leave it out")
    if chosen.adapter_rank is not None and chosen.adapter_rank not in RANKS:
        refuse("adapter_rank", f"it is {chosen.adapter_rank}; Fireworks takes {', '.join(map(str, RANKS))}")
    if chosen.beta is not None and order.objective != "preference":
        refuse("beta", f"it belongs to the objective preference, and the objective is {order.objective}; leave it out")
    elif chosen.beta is not None and chosen.beta >= BETA_BELOW:
        refuse("beta", f"it is {chosen.beta:g}; Fireworks takes values below {BETA_BELOW:g}")
    if problems:
        raise SpecError("Fireworks cannot train with these settings:", tuple(problems))
    if order.objective == "reinforcement":
        _grader(order)


def request_of(order: Order, files: Files, account: str) -> dict[str, Any]:
    """Return the arguments of the SDK's ``create`` for a job, under the run key as its id.

    Without ``eval_auto_carveout: False`` Fireworks takes training rows away where there is no validation file.

    Raises:
        SpecError: the order holds what Fireworks cannot take.
    """
    require_settings(order)
    common: dict[str, Any] = {"dataset": files.train, "display_name": suffix_of(order, 63)}
    training = _training(order, account)
    if order.objective == "preference":
        # Without a method of its own a preference job is trained by GRPO.
        dpo = {} if order.hyperparameters.beta is None else {"dpo": {"beta": order.hyperparameters.beta}}
        return common | {"dpo_job_id": order.key, "training_config": training, "loss_config": {"method": "DPO", **dpo}}
    common["eval_auto_carveout"] = False
    if files.validation is not None:
        common["evaluation_dataset"] = files.validation
    if order.objective == "reinforcement":
        return common | {"reinforcement_fine_tuning_job_id": order.key, "training_config": training, **_grader(order)}
    return common | {"supervised_fine_tuning_job_id": order.key, **training}


def _training(order: Order, account: str) -> dict[str, Any]:
    chosen = order.hyperparameters
    wanted = {
        "base_model": order.model,
        "output_model": f"accounts/{account}/models/{order.key}",
        "epochs": chosen.epochs,
        "learning_rate": chosen.learning_rate,
        "lora_rank": chosen.adapter_rank,
        "batch_size_samples": chosen.batch_size,  # `batch_size` counts tokens
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _grader(order: Order) -> dict[str, Any]:
    grader = json.loads(order.grader or "{}")
    unknown = sorted(set(grader) - _GRADER)
    if not grader.get("evaluator") or unknown:
        found = f"it holds {', '.join(unknown)}" if unknown else "it names no evaluator"
        raise SpecError(
            f"provider.grader cannot be passed to Fireworks: {found}; it is of the form "
            "{evaluator: accounts/ACCOUNT/evaluators/NAME, inference_parameters: {…}}, and the second is optional"
        )
    return dict(grader)


def capability_of(found: Model, objective: Objective) -> Capability:
    """Return what a model's entry says of tuning it.

    Its deprecation date is when Fireworks takes its own, serverless deployment down: from then on there is no baseline to compare with.
    """
    offered: tuple[Objective, ...] = ("supervised", "preference") if found.tunable else ()
    offered += ("reinforcement",) if found.rl_tunable else ()
    until, adapter = found.serverless_until, found.peft_details is not None
    tokens = found.training_context_length or found.context_length
    if adapter:
        why = f"{found.name} is an adapter, and we make adapters of base models"
    elif objective in offered:
        why = f"Fireworks lists {found.name} as tunable" + (f"; its serverless deployment ends on {until}" if until else "")
    else:
        why = f"Fireworks lists {found.name} as tunable for {' and '.join(offered) or 'nothing'}; the objective is {objective}"
    return Capability(
        tunable=objective in offered and not adapter,
        why=why,
        objectives=offered,
        shutdown=until,
        owns_weights=True,
        limits={
            "rows_min": ROWS_MIN,
            "rows_max": ROWS_MAX,
            "rows_times_epochs_max": ROWS_MAX,
            "adapter_rank_max": RANKS[-1],
            "beta_below": BETA_BELOW,
            **({"tokens_per_example": tokens} if tokens else {}),
        },
    )
