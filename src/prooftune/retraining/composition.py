"""What a retraining is made from: all that is new, a share of what the champion was trained on, and the champion's holdout, still sealed.

It is said in fields of the spec (``data.old``, ``backend.start_from``), which the stages understand: the published run shows them, its
lineage has the digests of what they name, and the same spec makes the same run again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml
from pydantic import ValidationError

from prooftune.data.lines import read_lines
from prooftune.errors import IntegrityError
from prooftune.retraining.claims import FOLDER
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.manifest import find_run
from prooftune.storage.objects import NoSuchObject, ObjectStore
from prooftune.storage.registry_document import read_document
from prooftune.types import Example, Frozen
from prooftune.watching.looks import new_ones, tried_runs
from prooftune.watching.signals import Signal


class Composition(Frozen):
    """What a retraining is made from."""

    champion: str | None
    """Whose examples are learnt from again; None = there is no champion yet, and all is new."""
    new: int
    """Valid examples of the source that no champion was made from, and no run since."""
    known: int
    """Valid examples of the source that are not new."""
    keep_old: float
    """Share of the champion's training examples that is learnt from again."""
    same_method: bool
    """Whether it would be trained from the same base model, in the same way, for the same task as the champion."""
    warm: bool
    """Whether it goes on from the champion's weights."""
    spec: RunSpec
    """Says it all."""

    @property
    def nothing_new(self) -> bool:
        """Whether it would only make the champion again."""
        return self.champion is not None and self.new == 0 and self.same_method

    @property
    def text(self) -> str:
        """It in a few words, to stand behind the task: ``120 new examples``."""
        if self.champion is None:
            return f"{self.new:,} examples, the first ones"
        news = f"{self.new:,} new example{'' if self.new == 1 else 's'}"
        return news if self.new or self.same_method else f"{self.spec.backend.model} instead of the champion's base model or method"


def compose(store: ObjectStore, spec: RunSpec, examples: Path, left_usd: float | None = None) -> Composition:
    """Return what a retraining of the task is made from.

    Args:
        store: Where the registry and the published runs are.
        spec: Of the task.
        examples: The source's valid examples, ``examples.jsonl`` of its validation.
        left_usd: What the task's retrainings may still cost this month; None = ``budget`` alone says.

    Raises:
        NoSuchObject: the champion is no longer published.
        DataError: it was published without its examples.
        SpecError: its weights cannot be gone on from.
    """
    registry, _ = read_document(store, spec.name)
    champion = registry.champion
    valid = list(read_lines(examples, Example))
    ids, new = {example.id for example in valid}, new_ones(store, tried_runs(registry), valid)
    fields = spec.model_dump()
    if champion is not None:
        fields["data"]["old"] = {"run": champion, "keep": spec.retrain.keep_old}
        fields["backend"]["start_from"] = champion if spec.retrain.warm_start else spec.backend.start_from
    if left_usd is not None:
        fields["budget"]["max_usd"] = min(spec.budget.max_usd, left_usd)
    return Composition(
        champion=champion,
        new=len(new),
        known=len(ids - new),
        keep_old=spec.retrain.keep_old,
        same_method=champion is not None and _basis(spec) == _basis(_spec_of(store, champion)),
        warm=champion is not None and spec.retrain.warm_start,
        spec=parse_spec(fields),
    )


def keep_composition(store: ObjectStore, signal: Signal, made: Composition) -> None:
    """Keep what a retraining is made from, so that whoever goes on with it after a crash makes the same run."""
    store.put(_key_of(signal), (made.model_dump_json(indent=1) + "\n").encode())


def forget_composition(store: ObjectStore, signal: Signal) -> None:
    """Keep it no longer."""
    store.delete(_key_of(signal))


def kept_composition(store: ObjectStore, signal: Signal) -> Composition | None:
    """Return what was kept, or None.

    Raises:
        IntegrityError: it is damaged, or of another version.
    """
    key = _key_of(signal)
    try:
        return Composition.model_validate_json(store.get(key))
    except NoSuchObject:
        return None
    except ValidationError as error:
        raise IntegrityError(f"{store.uri}: {key} is no composition ({error.error_count()} problems); delete it to compose anew") from None


def _key_of(signal: Signal) -> str:
    named = hashlib.sha256(signal.digest.encode()).hexdigest()[:24]  # a webhook's id may be no key
    return f"{FOLDER}{signal.task}/{signal.kind}-{named}.json"


def _basis(spec: RunSpec) -> tuple[object, ...]:
    """Return what a candidate depends on besides its examples and the weights that it goes on from."""
    backend = spec.backend.model_copy(update={"start_from": None})
    return backend, spec.provider.hyperparameters, spec.provider.grader, spec.task.of_training


def _spec_of(store: ObjectStore, run_id: str) -> RunSpec:
    file = store.fetch(find_run(store, run_id).files["spec.yaml"])
    return parse_spec(yaml.safe_load(file.read_text(encoding="utf-8")), where=f"spec.yaml of {run_id}")
