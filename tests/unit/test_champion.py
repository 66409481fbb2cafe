"""The candidate against the champion: both holdouts, nothing that either was trained on, and no answer asked for twice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from fixtures_runs import Trained, examples_of, train_toy
from pydantic import BaseModel
from tests_support import toy_rows

from prooftune.data.lines import read_lines, write_lines
from prooftune.errors import DataError, IntegrityError
from prooftune.evaluation.champion import FOLDER, evaluate_against_champion, not_compared
from prooftune.evaluation.champion_files import champion_files, check_champion, opponent
from prooftune.evidence import Champion, Rival
from prooftune.spec import RunSpec
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish
from prooftune.storage.objects import NoSuchObject
from prooftune.storage.registry import register
from prooftune.types import Decision, Example, Prediction

CHAMPION = "toy-champion"
OLD, NEW = toy_rows(240, seed=0), toy_rows(240, seed=1)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trained:
    """A candidate that learned the task from the old data."""
    return train_toy(tmp_path_factory.mktemp("champion") / "run", tiny_model, OLD)


@pytest.fixture(scope="module")
def challenger(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trained:
    """A candidate that hardly learned anything, from data of which a half is the champion's, split in another way."""
    return train_toy(tmp_path_factory.mktemp("challenger") / "run", tiny_model, OLD[:120] + NEW[:120], seed=8, epochs=0.3)


@pytest.fixture
def store(tmp_path: Path, champion: Trained) -> LocalStore:
    """A store with the champion's run."""
    store = LocalStore(tmp_path / "store")
    publish(store, CHAMPION, champion.files(), {"name": "toy"})
    return store


def meet(store: LocalStore, challenger: Trained, out: Path) -> dict[str, Rival]:
    """The comparisons by holdout, as ``champion.json`` has them."""
    out.mkdir()
    folder = challenger.folder
    answers = folder / "candidate.predictions.jsonl"
    seal = challenger.holdout_sha256
    train, validation, holdout = (folder / f"{name}.jsonl" for name in ("train", "validation", "holdout"))
    figures = evaluate_against_champion(
        store, CHAMPION, train, validation, holdout, seal, answers, *challenger.opened, challenger.spec, out
    )
    written = Champion.model_validate_json((out / "champion.json").read_bytes())
    assert written.model_dump(mode="json") == figures
    assert written.run_id == CHAMPION
    return {rival.holdout: rival for rival in written.rivals}


def texts(*files: Path) -> set[str]:
    """Prompts of files of examples."""
    return {example.prompt[-1].content for file in files for example in read_lines(file, Example)}


def learnt_by(trained: Trained) -> set[str]:
    """Prompts that it was trained on, or had its checkpoint chosen by."""
    return texts(trained.folder / "train.jsonl", trained.folder / "validation.jsonl")


def with_files(trained: Trained, folder: Path, spec: RunSpec | None = None, **splits: Iterable[BaseModel]) -> Trained:
    """The same run with other lines in some of its files, by name without ``.jsonl``, and under another spec."""
    folder.mkdir()
    for path in trained.folder.iterdir():
        if path.name.removesuffix(".jsonl") not in splits:
            (folder / path.name).symlink_to(path)
    for name, lines in splits.items():
        write_lines(folder / f"{name}.jsonl", lines)
    return Trained(folder, spec or trained.spec, trained.model, trained.counts)


def test_both_holdouts_are_compared_without_what_either_was_trained_on(
    store: LocalStore, champion: Trained, challenger: Trained, tmp_path: Path
) -> None:
    """Each side's training and validation examples are left out of the other's holdout; the champion's lead shows on both, by McNemar."""
    from scipy.stats import binomtest

    rivals = meet(store, challenger, tmp_path / "out")
    for which, holdout, learnt in (("old", champion, challenger), ("new", challenger, champion)):
        rival = rivals[which]
        asked, trained = texts(holdout.folder / "holdout.jsonl"), learnt_by(learnt)
        assert asked & texts(learnt.folder / "validation.jsonl")
        assert rival.seen == len(asked & trained) > 0
        assert rival.n == len(asked - trained)
        assert rival.holdout_sha256 == holdout.holdout_sha256
        assert rival.champion_value > rival.candidate_value + 0.3
        assert rival.ci_high < 0
        assert rival.difference == pytest.approx(rival.candidate_value - rival.champion_value)
        lost = round(-rival.difference * rival.n)
        if rival.champion_value == 1.0:  # then every differing pair is one that the candidate lost
            assert rival.p_value == pytest.approx(binomtest(0, lost).pvalue)


def test_only_what_is_not_known_yet_is_asked(store: LocalStore, champion: Trained, challenger: Trained, tmp_path: Path) -> None:
    """The champion answers the new holdout and the candidate the old one; each one's answers to its own are taken as published."""
    meet(store, challenger, tmp_path / "out")
    folder = tmp_path / "out" / FOLDER
    written = {path.name for path in folder.glob("*.predictions.jsonl")}
    assert written == {"champion_new.predictions.jsonl", "candidate_old.predictions.jsonl"}
    asked = {one.prompt for one in read_lines(folder / "champion_new.predictions.jsonl", Prediction)}
    assert asked <= texts(challenger.folder / "holdout.jsonl")
    asked = {one.prompt for one in read_lines(folder / "candidate_old.predictions.jsonl", Prediction)}
    assert asked <= texts(champion.folder / "holdout.jsonl")


def test_one_holdout_is_compared_once_and_nobody_is_asked(store: LocalStore, champion: Trained, tmp_path: Path) -> None:
    """The same seal: one comparison, of published answers alone; a model against itself differs by nothing."""
    rivals = meet(store, champion, tmp_path / "out")
    assert list(rivals) == ["new"]
    rival = rivals["new"]
    assert (rival.difference, rival.p_value, rival.n, rival.seen) == (0.0, 1.0, 60, 0)
    assert Champion.model_validate_json((tmp_path / "out" / "champion.json").read_bytes()).same_holdout
    assert not (tmp_path / "out" / FOLDER).exists()


def test_the_champions_old_answers_are_scored_anew(store: LocalStore, champion: Trained, tmp_path: Path) -> None:
    """Scores in the champion's file count for nothing: its answers are judged by the new run's task."""
    files = champion.files()
    lines = [
        one.model_copy(update={"scores": {"exact_match": 0.0}}) for one in read_lines(files["candidate.predictions.jsonl"], Prediction)
    ]
    tampered = tmp_path / "tampered.jsonl"
    write_lines(tampered, lines)
    other = LocalStore(tmp_path / "other")
    publish(other, CHAMPION, files | {"candidate.predictions.jsonl": tampered}, {"name": "toy"})
    assert meet(other, champion, tmp_path / "out")["new"].champion_value > 0.9


@pytest.mark.parametrize("split", ["train", "validation"])
def test_near_duplicates_count_as_seen(store: LocalStore, champion: Trained, challenger: Trained, tmp_path: Path, split: str) -> None:
    """An old question with one word more among what the candidate or its checkpoint was made by is no question any more."""
    held_out = list(read_lines(champion.folder / "holdout.jsonl", Example))
    before = meet(store, challenger, tmp_path / "before")["old"]
    fresh = next(example for example in held_out if example.prompt[-1].content not in learnt_by(challenger))
    [twin] = examples_of([{"prompt": f"{fresh.prompt[-1].content}  PLEASE", "completion": fresh.target}])
    known = list(read_lines(challenger.folder / f"{split}.jsonl", Example))
    taught = with_files(challenger, tmp_path / "run", **{split: [*known, twin]})
    after = meet(store, taught, tmp_path / "after")["old"]
    assert (after.seen, after.n) == (before.seen + 1, before.n - 1)


def test_a_champion_without_published_validation_is_met_all_the_same(champion: Trained, challenger: Trained, tmp_path: Path) -> None:
    """Then its training examples alone are known to be no questions for it."""
    store = LocalStore(tmp_path / "store")
    publish(store, CHAMPION, {name: path for name, path in champion.files().items() if name != "validation.openai.jsonl"}, {})
    rival = meet(store, challenger, tmp_path / "out")["new"]
    assert rival.seen == len(texts(challenger.folder / "holdout.jsonl") & texts(champion.folder / "train.jsonl"))


def test_a_metric_that_does_not_fit_the_old_targets_gives_no_comparison(store: LocalStore, challenger: Trained, tmp_path: Path) -> None:
    """A task that has come to ask for numbers is compared on the new holdout alone, and the candidate is not asked in vain."""
    rows = [{"prompt": f"how much is {at} and {at}", "completion": str(2 * at)} for at in range(12)]
    holdout = examples_of(rows)
    [known, *_] = read_lines(challenger.folder / "candidate.predictions.jsonl", Prediction)
    answers = [
        known.model_copy(
            update={"example_id": one.id, "prompt": one.prompt[-1].content, "target": one.target, "answer": one.target, "scores": {}}
        )
        for one in holdout
    ]
    spec = challenger.spec.model_copy(update={"task": challenger.spec.task.model_copy(update={"metric": "numeric_tolerance"})})
    changed = with_files(challenger, tmp_path / "run", spec, **{"holdout": holdout, "candidate.predictions": answers})
    rivals = meet(store, changed, tmp_path / "out")
    assert list(rivals) == ["new"]
    assert (rivals["new"].metric, rivals["new"].n, rivals["new"].candidate_value) == ("numeric_tolerance", 12, 1.0)
    assert (tmp_path / "out" / FOLDER / "candidate_old.predictions.jsonl").read_bytes() == b"", "nothing was asked, and the file says so"


def test_nothing_unseen_gives_no_comparison(store: LocalStore, champion: Trained, challenger: Trained, tmp_path: Path) -> None:
    """A candidate that was trained on the whole old holdout is compared on the new one alone."""
    taught = with_files(challenger, tmp_path / "run", train=read_lines(champion.folder / "holdout.jsonl", Example))
    rivals = meet(store, taught, tmp_path / "out")
    assert list(rivals) == ["new"]


def test_without_a_champion_the_file_says_so(tmp_path: Path) -> None:
    """The first run of a task meets nobody."""
    assert not_compared(Champion(run_id=None), tmp_path) == {"run_id": None, "rivals": [], "same_holdout": False, "reason": ""}
    assert Champion.model_validate_json((tmp_path / "champion.json").read_bytes()) == Champion(run_id=None)


def test_a_champion_that_kept_too_little_is_named(champion: Trained, tmp_path: Path) -> None:
    """What is missing of its run is listed; a run that is gone is named."""
    store = LocalStore(tmp_path / "store")
    files = {name: path for name, path in champion.files().items() if name not in ("holdout.jsonl", "train.openai.jsonl")}
    publish(store, CHAMPION, files, {})
    with pytest.raises(DataError, match=r"toy-champion has published no train\.openai\.jsonl, holdout\.jsonl"):
        champion_files(store, CHAMPION)
    with pytest.raises(NoSuchObject):
        champion_files(store, "toy-gone")


def test_another_base_model_of_the_same_name_is_refused(champion: Trained, tmp_path: Path) -> None:
    """An adapter on other weights than it was tuned from would be another model."""
    store = LocalStore(tmp_path / "store")
    spec = champion.spec.model_copy(
        update={
            "backend": champion.spec.backend.model_copy(update={"method": champion.spec.backend.method.model_copy(update={"kind": "lora"})})
        }
    )
    (tmp_path / "spec.yaml").write_text(spec.resolved_yaml())
    publish(store, CHAMPION, champion.files() | {"spec.yaml": tmp_path / "spec.yaml"}, {"lineage": {"model": {"sha256": "0" * 64}}})
    with pytest.raises(IntegrityError, match=r"was tuned from .* with SHA-256 0000"):
        champion_files(store, CHAMPION)


def published_with(champion: Trained, home: Path, fault: str) -> LocalStore:
    """A store whose champion has a fault, registered."""
    store, files = LocalStore(home / "store"), champion.files()
    text = champion.spec.resolved_yaml()
    if fault == "a spec of another version":
        text += "unheard_of: 1\n"
    elif fault == "no base model":
        text = text.replace("kind: full", "kind: lora").replace(str(champion.model), str(home / "gone"))
    (home / "spec.yaml").write_text(text)
    manifest = publish(store, CHAMPION, files | {"spec.yaml": home / "spec.yaml"}, {"name": "toy"})
    register(store, "toy", CHAMPION, manifest, Decision(verdict="promote", reasons=("Because.",)))
    weights = next(key for key in store.list(f"runs/{CHAMPION}/") if key.endswith(".safetensors"))
    if fault == "no weights":
        store.delete(weights)
    elif fault == "damaged weights":
        store.put(weights, b"damaged")
    elif fault == "no manifest":
        store.delete(f"runs/{CHAMPION}/manifest.json")
    return store


@pytest.mark.parametrize(
    ("fault", "reason", "seen_before"),
    [
        ("no weights", "model.safetensors", True),
        ("damaged weights", "model.safetensors", False),
        ("no manifest", "toy-champion", True),
        ("a spec of another version", "unheard_of", True),
        ("no base model", "gone", True),
    ],
)
def test_a_champion_that_cannot_be_used_ends_in_a_reason(
    champion: Trained, challenger: Trained, tmp_path: Path, fault: str, reason: str, seen_before: bool
) -> None:
    """Training is paid for by then: no comparison and why, by the stage and before it; what needs no weights is known before training."""
    store = published_with(champion, tmp_path, fault)
    assert meet(store, challenger, tmp_path / "out") == {}
    written = Champion.model_validate_json((tmp_path / "out" / "champion.json").read_bytes())
    assert reason in written.reason
    assert opponent(store, CHAMPION) == written
    assert (reason in check_champion(store, "toy")) is seen_before


def test_a_champion_that_can_be_used_has_no_reason(champion: Trained, tmp_path: Path) -> None:
    """Nor has a task without one."""
    store = published_with(champion, tmp_path, "none")
    assert check_champion(store, "toy") == check_champion(store, "another") == ""
    assert opponent(store, CHAMPION) == Champion(run_id=CHAMPION)
    assert opponent(store, None) == Champion(run_id=None)
