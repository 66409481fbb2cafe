"""What a retraining is made from, and the weights that it goes on from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from fixtures_old import CHAMPION, NEW, OLD_EXAMPLES, crown, rewritten, spec_of

from prooftune.data.lines import write_lines
from prooftune.errors import IntegrityError, SpecError
from prooftune.providers.collection import ManagedModel
from prooftune.retraining.admission import Admission
from prooftune.retraining.composition import Composition, compose, keep_composition, kept_composition
from prooftune.spec import Backend, Method, Old, RunSpec
from prooftune.storage.local import LocalStore
from prooftune.training.start import start_folder, start_model, start_ref
from prooftune.types import Example, ModelRef
from prooftune.watching.signals import Signal
from tasks.retraining import begun_before

pytest_plugins = ["fixtures_old"]


def composed(store: LocalStore, tmp_path: Path, examples: Sequence[Example], spec: RunSpec, left: float | None = None) -> Composition:
    """Compose from a source's examples."""
    write_lines(tmp_path / "examples.jsonl", examples)
    return compose(store, spec, tmp_path / "examples.jsonl", left)


def test_the_first_training_is_from_the_source_alone(store: LocalStore, tmp_path: Path) -> None:
    """Without a champion there is nothing old, and the spec stays what it is."""
    made = composed(store, tmp_path, NEW, spec_of())
    assert (made.champion, made.new, made.nothing_new, made.spec) == (None, 80, False, spec_of())


def test_the_spec_says_all_of_it(store: LocalStore, tmp_path: Path) -> None:
    """Whose examples, how many of them, from which weights, and what may be spent; what is new is counted by content."""
    crown(store, tmp_path / "run", spec_of())
    spec = spec_of(retrain={"keep_old": 0.5, "warm_start": True})
    made = composed(store, tmp_path, [*OLD_EXAMPLES, *NEW[:7]], spec, left=3.0)
    assert (made.new, made.known, made.text) == (7, 120, "7 new examples")
    assert made.spec.data.old == Old(run=CHAMPION, keep=0.5)
    assert made.spec.backend.start_from == CHAMPION
    assert made.spec.budget.max_usd == 3.0
    cold = composed(store, tmp_path, NEW, spec_of())
    assert cold.spec.backend.start_from is None


def test_what_is_only_written_otherwise_is_not_new(store: LocalStore, tmp_path: Path) -> None:
    """An export in another case holds what a run would drop as duplicates; the same prompt with another target is new."""
    crown(store, tmp_path / "run", spec_of())
    shouted = [rewritten(one) for one in OLD_EXAMPLES]
    assert composed(store, tmp_path, shouted, spec_of()).nothing_new
    made = composed(store, tmp_path, [*shouted[:-3], *(rewritten(one, "corrected") for one in OLD_EXAMPLES[-3:])], spec_of())
    assert (made.new, made.known) == (3, 117)


def test_the_champion_is_not_made_again(store: LocalStore, tmp_path: Path) -> None:
    """No new example: nothing new; unless the base model or the method is another one, as after a sunset."""
    crown(store, tmp_path / "run", spec_of())
    assert composed(store, tmp_path, OLD_EXAMPLES, spec_of(retrain={"warm_start": True})).nothing_new
    successor = composed(store, tmp_path, OLD_EXAMPLES, spec_of(backend={"model": "owner/successor"}))
    assert not successor.nothing_new
    assert "owner/successor" in successor.text


def test_what_was_composed_is_kept_for_whoever_goes_on(store: LocalStore, tmp_path: Path) -> None:
    """Under the occurrence, whatever a webhook calls it; damaged, it is told and not guessed."""
    made = composed(store, tmp_path, NEW, spec_of())
    signal = Signal(kind="request", task="toy", digest="../we:ird/id", reason="because", at="2026-11-26T00:00:00+00:00")
    assert kept_composition(store, signal) is None
    keep_composition(store, signal, made)
    assert kept_composition(store, signal) == made
    [key] = store.list("retrains/toy/")
    store.put(key, b"{}")
    with pytest.raises(IntegrityError, match="is no composition"):
        kept_composition(store, signal)


def test_what_a_failed_attempt_had_composed_is_not_gone_on_with(store: LocalStore, tmp_path: Path) -> None:
    """A start after a failure composes anew; where it dies before it has, its successor finds nothing of days ago."""
    spec = spec_of(store={"uri": store.uri})
    made = composed(store, tmp_path, NEW, spec)
    signal = Signal(kind="data", task="toy", digest="d1", reason="because", at="2026-11-26T00:00:00+00:00")
    keep_composition(store, signal, made)
    resumed, anew = (Admission(decision="start", reason="", resumes=resumes) for resumes in (True, False))
    assert begun_before(spec, signal, resumed) == made
    assert begun_before(spec, signal, anew) is None
    assert begun_before(spec, signal, resumed) is None


# What it goes on from


def test_weights_to_go_on_from_are_found_by_run(store: LocalStore, tmp_path: Path) -> None:
    """Of a run with the same base model and the same shape of adapter."""
    weights = {"adapter/adapter_model.safetensors": "w", "adapter/adapter_config.json": "{}", "adapter/tokenizer.json": "{}"}
    crown(store, tmp_path / "run", spec_of(), weights=weights)
    folder = start_folder(store, CHAMPION, Backend(), ModelRef(name="smollm2-135m-instruct", revision="", sha256="base"))
    assert {path.name for path in folder.iterdir()} >= {"adapter_model.safetensors", "adapter_config.json"}
    assert start_ref(store, CHAMPION, Backend()).path == CHAMPION


@pytest.mark.parametrize(
    ("backend", "named"),
    [
        (Backend(method=Method(r=8)), "r 16 there, 8 here"),
        (Backend(method=Method(kind="full")), "kind lora there, full here"),
        (Backend(model="owner/other"), "tuned from smollm2-135m-instruct, and backend.model is owner/other"),
        (Backend(provider="openai", model="gpt-4.1"), "trained by local, and backend.provider is openai"),
    ],
)
def test_weights_of_another_shape_are_refused(store: LocalStore, tmp_path: Path, backend: Backend, named: str) -> None:
    """The message names both values and the fields to change, of which a retraining sets one, before anything is trained."""
    crown(store, tmp_path / "run", spec_of())
    with pytest.raises(SpecError, match=named) as told:
        start_ref(store, CHAMPION, backend)
    assert told.value.problems[0].where == "backend.start_from"
    assert "retrain.warm_start: false" in told.value.problems[0].reason


def test_weights_of_another_base_model_under_the_same_name_are_refused(store: LocalStore, tmp_path: Path) -> None:
    """A folder's content may have changed since."""
    crown(store, tmp_path / "run", spec_of())
    with pytest.raises(IntegrityError, match="was tuned from smollm2-135m-instruct with SHA-256 base"):
        start_folder(store, CHAMPION, Backend(), ModelRef(name="smollm2-135m-instruct", revision="", sha256="changed"))


def test_a_tuned_model_is_gone_on_from_where_it_lives(store: LocalStore, tmp_path: Path) -> None:
    """By its provider's own name for it, at the same address alone."""
    spec = spec_of(backend={"provider": "openai", "model": "gpt-4.1"}, learning_curve={"shares": []})
    known = {"base_model": "gpt-4.1", "model": "ft:gpt-4.1:x", "job": "j", "key": "k", "shutdown": None, "owns_weights": False}
    managed = ManagedModel.model_validate({"provider": "openai", "address": "https://a"} | known)
    crown(store, tmp_path / "run", spec, weights={"model/managed.json": managed.model_dump_json()})
    assert start_model(store, CHAMPION, spec.backend, "https://a") == "ft:gpt-4.1:x"
    with pytest.raises(SpecError, match="lives at https://a"):
        start_model(store, CHAMPION, spec.backend, "https://b")


@pytest.mark.parametrize("block", ["backend", "retrain"])
def test_where_nobody_can_go_on_the_spec_says_so(block: str) -> None:
    """A provider that tunes base models alone is refused with the field's name."""
    provider = {"provider": "together", "model": "x"}
    fields = {"backend": provider | {"start_from": "run"}} if block == "backend" else {"backend": provider, "retrain": {"warm_start": True}}
    with pytest.raises(SpecError, match=r"(start_from|warm_start) is for local, openai, azure"):
        spec_of(**fields, learning_curve={"shares": []})


def test_what_decides_no_result_is_in_no_key() -> None:
    """Who must approve a promotion changes no stage's key, and what is not gone on from changes no order's."""
    from tasks.policies import _content

    asked = spec_of(gate={"approve_promotion": True, "approve_within_hours": 1})
    assert _content(asked) == _content(spec_of())
    assert _content(asked.gate) == _content(spec_of().gate)
    assert "approve_promotion" not in json.dumps(_content(spec_of().gate))
