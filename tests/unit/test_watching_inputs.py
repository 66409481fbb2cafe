"""Input drift: laws of the two measures, and what a look at the traffic says."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fixtures_models import make_model
from fixtures_watching import CHAMPION, drop, promoted, rows, spec_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import toy_rows, write_jsonl

from prooftune.models.resolve import resolve_model
from prooftune.spec import Baseline, RunSpec
from prooftune.storage.local import LocalStore
from prooftune.watching.drift import embedding_drift, feature_drift, psi
from prooftune.watching.inputs import look_at_inputs
from prooftune.watching.looks import Quiet
from prooftune.watching.signals import Signal

COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=10).filter(any)
TEXTS = st.lists(st.text(alphabet="abcde ", min_size=1, max_size=30).filter(str.strip), min_size=4, max_size=60)


def prompts(count: int, seed: int) -> list[str]:
    """Return prompts of the toy task."""
    return [row["prompt"] for row in toy_rows(count, seed)]


def others(count: int) -> list[str]:
    """Return prompts about something else, and longer."""
    words = "invoice refund parcel courier warranty password login receipt voucher subscription".split()  # noqa: SIM905 - reads better
    rng = random.Random(1)
    return [" ".join(rng.choices(words, k=40)) for _ in range(count)]


@given(COUNTS)
def test_equal_distributions_have_index_zero(counts: list[int]) -> None:
    """The index is 0 for the same shares, whatever the sizes of the samples."""
    assert psi(counts, counts, sum(counts)) == 0
    assert psi(counts, [3 * count for count in counts], sum(counts)) == pytest.approx(0, abs=1e-12)


@given(st.integers(2, 10).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 500), min_size=n, max_size=n).filter(any)] * 2)))
def test_the_index_is_symmetric_and_never_negative(sides: tuple[list[int], list[int]]) -> None:
    """It is Jeffreys' divergence: no side is the true one."""
    before, now = sides
    smaller = min(sum(before), sum(now))
    assert psi(before, now, smaller) == pytest.approx(psi(now, before, smaller))
    assert psi(before, now, smaller) >= 0


def test_the_index_by_hand() -> None:
    """Shares of 50/50 against 80/20: 0.3 · ln 1.6 - 0.3 · ln 0.4."""
    assert psi([50, 50], [80, 20], 100) == pytest.approx(0.3 * 0.470004 + 0.3 * 0.916291, abs=1e-5)


@settings(max_examples=20)
@given(TEXTS, st.randoms(use_true_random=False))
def test_the_same_texts_in_another_order_have_not_drifted(texts: list[str], rng: random.Random) -> None:
    """Of a set and itself, shuffled, every measure is 0, and no measure depends on an order."""
    shuffled = rng.sample(texts, len(texts))
    assert [one.value for one in feature_drift(texts, shuffled, 0.25)] == [0, 0]
    assert embedding_drift(texts, shuffled, None, 0.1, seed=0).value == pytest.approx(0, abs=1e-9)
    more = [*texts, "abc"]
    assert feature_drift(texts, more, 0.25) == feature_drift(shuffled, more[::-1], 0.25)
    assert embedding_drift(texts, more, None, None, seed=0) == embedding_drift(shuffled, more[::-1], None, None, seed=0)


def test_a_shifted_sample_fires() -> None:
    """Prompts about something else are beyond every limit."""
    before, now = prompts(400, 0), others(200)
    found = [*feature_drift(before, now, 0.25), embedding_drift(before, now, None, None, seed=7)]
    assert all(one.value > one.limit for one in found)


def test_a_sample_of_the_same_kind_seldom_fires() -> None:
    """Of 40 fresh samples from the same source none is beyond the index's limits, and at most 2 beyond the distance's."""
    before = prompts(400, 0)
    samples = [prompts(200, seed) for seed in range(1, 41)]
    assert not any(one.value > one.limit for now in samples for one in feature_drift(before, now, 0.25))
    beyond = [embedding_drift(before, now, None, None, seed=7) for now in samples]
    assert sum(one.value > one.limit for one in beyond) <= 2


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer made here, found as the spec's ``baseline.embedding`` is."""
    return resolve_model(str(make_model(tmp_path_factory.mktemp("encoder") / "model"))).path


def test_a_models_embeddings_tell_a_shift_from_chance(encoder: Path) -> None:
    """Of 10 fresh samples from the same source at most one is beyond the limit, and none comes near prompts about something else."""
    before = prompts(400, 0)
    drifted = embedding_drift(before, others(200), encoder, None, seed=7)
    like = [embedding_drift(before, prompts(200, seed), encoder, None, seed=7) for seed in range(1, 11)]
    assert sum(one.value > one.limit for one in like) <= 1
    assert drifted.value > 10 * max(drifted.limit, *(one.value for one in like))


def test_a_models_embeddings_say_the_same_each_time(encoder: Path, tmp_path: Path) -> None:
    """To the last digit, in whichever order the texts come; another model, and none, say something else."""
    before, now = prompts(120, 0), prompts(80, 1)
    found = embedding_drift(before, now, encoder, None, seed=7)
    assert embedding_drift(before[::-1], now[::-1], encoder, None, seed=7) == found
    elsewhere = [embedding_drift(before, now, folder, None, seed=7) for folder in (make_model(tmp_path / "model", layers=1), None)]
    assert len({found.value, *(one.value for one in elsewhere)}) == 3


def test_small_samples_need_a_larger_index() -> None:
    """What 20 prompts differ by from 30 is chance for the most part: the limit is that of chance, above the spec's."""
    assert feature_drift(prompts(30, 0), prompts(20, 1), 0.25)[0].limit > 1.5
    assert feature_drift(prompts(900, 0), prompts(900, 1), 0.25)[0].limit == 0.25


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store with a champion that was trained on the toy task."""
    store = LocalStore(tmp_path / "store")
    drop(tmp_path, "a.jsonl", rows(300))
    promoted(store, spec_of(tmp_path), tmp_path)
    return store


def with_traffic(folder: Path, texts: list[str], **watch: object) -> RunSpec:
    """Write the texts as traffic and return the spec that names it."""
    write_jsonl(folder / "traffic.jsonl", [{"prompt": text} for text in texts])
    return spec_of(folder, watch={"traffic": str(folder / "traffic.jsonl"), **watch})


def test_drifted_traffic_is_a_signal(tmp_path: Path, store: LocalStore) -> None:
    """The signal names the champion and the week, says which measures are beyond their limits, and quotes no prompt."""
    now = datetime.now(UTC)
    found = look_at_inputs(store, with_traffic(tmp_path, others(200)), now)
    assert isinstance(found, Signal)
    year, week, _ = now.isocalendar()
    assert found.digest == f"{CHAMPION}-{year}-W{week:02d}"
    assert "stability index of words" in found.reason
    assert "invoice" not in found.model_dump_json()


def test_like_traffic_is_none(tmp_path: Path, store: LocalStore) -> None:
    """Prompts of the same kind are quiet, with the figures."""
    like = [row["prompt"] for row in rows(250, seed=0)]
    found = look_at_inputs(store, with_traffic(tmp_path, like), datetime.now(UTC))
    assert isinstance(found, Quiet)
    assert found.figures["psi_length"] < 0.25
    assert found.figures["embedding_distance"] <= found.figures["embedding_distance_limit"]


def test_the_specs_embedding_model_looks_at_the_traffic(tmp_path: Path, store: LocalStore, encoder: Path) -> None:
    """With it alone to speak, other prompts are a signal and like ones are none; the look says how far apart they are."""
    with_model = {"baseline": Baseline(embedding=str(encoder))}
    spec = with_traffic(tmp_path, others(200), max_psi=100)
    found = look_at_inputs(store, spec.model_copy(update=with_model), datetime.now(UTC))
    assert isinstance(found, Signal)
    assert "distance of mean embeddings" in found.reason
    spec = with_traffic(tmp_path, [row["prompt"] for row in rows(250, seed=0)], max_psi=100)
    like = look_at_inputs(store, spec.model_copy(update=with_model), datetime.now(UTC))
    assert isinstance(like, Quiet)
    assert found.figures["embedding_distance"] > found.figures["embedding_distance_limit"] >= like.figures["embedding_distance"]


def test_thresholds_of_the_spec(tmp_path: Path, store: LocalStore) -> None:
    """Higher limits in the spec silence what they allow."""
    spec = with_traffic(tmp_path, others(200), max_psi=100, max_embedding_distance=2)
    assert isinstance(look_at_inputs(store, spec, datetime.now(UTC)), Quiet)


def test_little_traffic_says_nothing(tmp_path: Path, store: LocalStore) -> None:
    """Fewer prompts than the spec asks for are no evidence; neither are prompts from before the champion came into use."""
    assert "watch.min_traffic" in look_at_inputs(store, with_traffic(tmp_path, others(199)), datetime.now(UTC)).reason
    before = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    spec = with_traffic(tmp_path, [])
    write_jsonl(tmp_path / "traffic.jsonl", [{"prompt": text, "at": before} for text in others(300)])
    assert look_at_inputs(store, spec, datetime.now(UTC)).reason.startswith("0 prompts")
    assert "no watch.traffic" in look_at_inputs(store, spec_of(tmp_path), datetime.now(UTC)).reason
    assert "no champion" in look_at_inputs(LocalStore(tmp_path / "none"), spec, datetime.now(UTC)).reason


def test_redaction_is_no_drift(tmp_path: Path) -> None:
    """Training prompts whose addresses were redacted are compared with traffic whose addresses are redacted as well."""
    store, spec = LocalStore(tmp_path / "store"), spec_of(tmp_path)
    mailed = [row | {"prompt": f"{row['prompt']} write to somebody.with.a.long.name@example{row['prompt'][:1]}.com"} for row in rows(300)]
    drop(tmp_path, "a.jsonl", mailed)
    promoted(store, spec, tmp_path)
    found = look_at_inputs(store, with_traffic(tmp_path, [row["prompt"] for row in mailed]), datetime.now(UTC))
    assert isinstance(found, Quiet)
    assert found.figures["psi_words"] == 0
