"""What a run would take: the figures of ``prooftune plan``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from flows.rehearsal import Rehearsal
from prooftune.economics import estimate, lengths
from prooftune.economics.policy import by_code, check_policy, told_kept
from prooftune.economics.prices import load_prices
from prooftune.models.demo import DEMO_MODEL, DEMO_REVISION, MANIFEST
from prooftune.models.resolve import cache_dir
from prooftune.spec import Backend, RunSpec
from prooftune.types import SplitName

STAGES = {
    "probe": "ask the provider whether it tunes the model, and until when",
    "model": "find the base model and digest it",
    "ingest": "read the source into records",
    "validate": "clean, de-duplicate, check with Great Expectations",
    "split": "divide by near-duplicate group, seal the holdout",
    "format": "write the training files",
    "tokens": "count with the model's tokenizer",
    "preflight": "check what would be trained",
    "estimate": "say what it may cost, and refuse what is above the limit",
    "hold": "hold the estimate in the project's month",
    "approval": "wait for a person's yes to the estimate",
    "baselines": "prompt the base model on the holdout",
    "advise": "stop here unless training can pay",
    "submit": "upload the rows, see to it that there is one job, and wait for it",
    "train": "train the candidate",
    "evaluate": "score the candidate on the holdout",
    "champion": "meet the champion in use, if there is one",
    "costs": "price every way to serve the task",
    "forgetting": "put the general suite to it, before and after",
    "judge": "let a language model compare answers",
    "learn": "train on shares of the data",
    "failures": "cluster what it gets wrong",
    "learning_curve": "say whether more examples would help",
    "gate": "decide on the paired evidence",
    "settle": "replace what is held by what was billed",
    "report": "HTML report and model card",
    "upload": "publish the files, the manifest last",
    "register": "enter the run in the registry",
}
"""In order; seconds of those without an estimate are a fraction of one."""
AT_PROVIDER = ("probe", "estimate", "hold", "approval", "submit", "settle")
"""Stages of a managed run alone."""


def plan(spec: RunSpec, found: Rehearsal, splits: Mapping[SplitName, Path]) -> dict[str, Any]:
    """Return tokens, sizes, seconds by stage and cost of a run whose data stages were rehearsed.

    Raises:
        SpecError: of a managed run, a price is missing; or a provider may not get the data.
    """
    if spec.backend.managed:
        from flows.planning_managed import plan_managed

        return plan_managed(spec, found, splits)
    prices = load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())
    check_policy(spec, prices, by_code(found.figures["validate"]["findings"]))
    method = spec.backend.method
    folder = local_folder(spec.backend)
    encode = lengths.exact_encoder(folder) if folder else None
    counted = lengths.count_lengths(splits, spec.task, method.max_length, encode or lengths.guess)
    size = _size(spec.backend, folder)
    gpu = shutil.which("nvidia-smi") is not None
    gflops = estimate.measure_gflops()
    seconds = dict(found.seconds)
    if size and not gpu:
        seconds |= estimate.estimate_seconds(spec, size, counted, gflops)
    known = size is not None and not gpu
    train = counted["train"]
    return {
        "name": spec.name,
        "data": data_of(spec, found),
        "tokens": {
            "exact": encode is not None,
            "how": "counted with the model's tokenizer and chat template" if encode else _GUESSED,
            **{name: asdict(split) for name, split in counted.items()},
        },
        "model": {
            "name": spec.backend.model,
            "here": folder is not None,
            "parameters": size.parameters if size else None,
            "trained": estimate.trained_parameters(size, method) if size else None,
            "method": method.kind,
        },
        "training": {
            "steps": estimate.training_steps(method, train.examples),
            "epochs": method.epochs,
            "tokens": round(train.total * method.epochs),
        },
        "machine": {"device": "cuda" if gpu else "cpu", "cores": estimate.cores(), "gflops": round(gflops, 1)},
        "stages": [
            {"name": name, "what": what, "seconds": _rounded(seconds, name, known)} for name, what in STAGES.items() if _happens(name, spec)
        ],
        "seconds": round(sum(seconds.values()), 1) if known else None,
        "seconds_note": None if known else (_ON_GPU if gpu else "the base model is not on this machine, so its size is not known"),
        "cost_usd": None if (asked := _paid(spec)) else 0.0,
        "cost_reason": f"{' and '.join(asked)}; what answers cost is known when they are there" if asked else _FREE,
        "kept": told_kept(spec),
    }


def data_of(spec: RunSpec, found: Rehearsal) -> dict[str, Any]:
    """Return what the data stages found."""
    validated = found.figures["validate"]
    return {
        "source": spec.data.source,
        **{name: validated[name] for name in ("rows", "kept", "shape")},
        "split": found.figures["split"]["counts"],
    }


_GUESSED = f"guessed at {lengths.CHARACTERS_PER_TOKEN} characters a token: the model's tokenizer is not on this machine yet"
_ON_GPU = "there is a GPU, whose speed a plan does not measure; expect a small part of what CPU cores take"
_MODEL_STAGES = ("model", "tokens", "preflight", "baselines", "train", "evaluate", "champion", "forgetting", "judge", "learn")


_FREE = "backend.provider is local: the run uses this machine and pays no provider"


def _paid(spec: RunSpec) -> list[str]:
    """Return what a run asks of providers that bill."""
    judge, larger = spec.judge, spec.baseline.larger
    asked = []
    if "larger_model" in spec.baseline.ladder and larger.provider != "local":
        asked.append(f"the rung larger_model asks {larger.provider} {larger.model} each held-out question once")
    if judge.model is not None:
        asked.append(f"the judge {judge.provider} {judge.model} is asked at most {2 * judge.max_pairs} times")
    return asked


def _happens(stage: str, spec: RunSpec) -> bool:
    """Return whether a run of the spec on this machine has the stage."""
    wanted = {
        **dict.fromkeys(AT_PROVIDER, False),
        "forgetting": spec.general.measures,
        "judge": spec.judge.model is not None,
        "learn": bool(spec.learning_curve.shares),
        "learning_curve": bool(spec.learning_curve.shares),
    }
    return wanted.get(stage, True)


def _rounded(seconds: Mapping[str, float], name: str, known: bool) -> float | None:
    """Seconds of a stage; None where they are not known."""
    if name in seconds:
        return round(seconds[name], 1)
    if name == "judge":
        return None  # how fast its server answers is not known
    return 0.5 if known or name not in _MODEL_STAGES else None


def local_folder(backend: Backend) -> Path | None:
    """Return the folder of the base model if it is on this machine already; nothing is converted or downloaded."""
    if backend.managed:
        return None
    if backend.model == DEMO_MODEL:
        folder = cache_dir() / "models" / f"{DEMO_MODEL}-{DEMO_REVISION}"
        return folder if (folder / MANIFEST).is_file() else None
    if (folder := Path(backend.model).expanduser()).is_dir():
        return folder
    return _in_hub_cache(backend)


def _in_hub_cache(backend: Backend) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(backend.model, "config.json", revision=backend.revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _size(backend: Backend, folder: Path | None) -> estimate.ModelSize | None:
    if folder and any(folder.glob("*.safetensors")):
        return estimate.read_model_size(folder)
    return estimate.DEMO_SIZE if backend.model == DEMO_MODEL else None
