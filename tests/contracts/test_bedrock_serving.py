"""Bedrock serves tuned models in two ways, and an account may have the rights of one alone: what costs money is ended all the same."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from pathlib import Path

import fixtures_bedrock
import pytest
from fixtures_stand_ins import StandIn

from prooftune.errors import EnvironmentLacks, TransientError
from prooftune.providers.bedrock import BedrockTuner
from prooftune.providers.calls import ATTEMPTS
from prooftune.providers.tuning import PartlyListed

LLAMA = "meta.llama3-1-8b-instruct-v1:0:128k"
"""Served by the hour."""
NAME = "prooftune-llama"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in, with one deployment that is paid for by the hour."""
    with fixtures_bedrock.stand_in(tmp_path, monkeypatch) as found:
        rows = tmp_path / "rows.jsonl"
        found.tuner.write_rows(found.examples(), "", "supervised", rows, LLAMA)
        order = found.order(rows, model=LLAMA)
        job = found.tuner.create(order, found.uploaded(rows, order))
        found.api.works.settle()
        assert found.tuner.deploy(str(found.tuner.job(job.id).model), NAME) is not None
        yield found


@pytest.mark.parametrize("known", [True, False], ids=["who made it", "a sweep"])
def test_a_right_that_is_missing_for_the_other_kind_keeps_nothing_running(here: StandIn, known: bool) -> None:
    """Both kinds are asked to be deleted: a refusal for the one that is not there is no trouble once the other one is gone."""
    tuner = here.tuner if known else BedrockTuner(here.options)
    refused = here.api.faults.order("quota", "delete_deployment", after=int(known))
    tuner.take_down(NAME)
    assert (refused.fired, here.api.state()["deployments"]) == (1, 0)


@pytest.mark.parametrize("known", [True, False], ids=["who made it", "a sweep"])
def test_what_may_not_be_deleted_is_told(here: StandIn, known: bool) -> None:
    """Of the kind that it is, or where nobody knows the kind of either: it may go on costing money."""
    tuner = here.tuner if known else BedrockTuner(here.options)
    refused = here.api.faults.order("quota", "delete_deployment", after=int(not known))
    with pytest.raises(EnvironmentLacks, match="may not do this"):
        tuner.take_down(NAME)
    assert (refused.fired, here.api.state()["deployments"]) == (1, 1)
    tuner.take_down(NAME)
    assert here.api.state()["deployments"] == 0


def test_what_can_be_listed_is_listed(here: StandIn) -> None:
    """Where one kind may not be listed the error has the other one, and its kind is known then; where neither may be, there is nothing."""
    tuner = BedrockTuner(here.options)
    refused = here.api.faults.order("quota", "list_deployments")
    with pytest.raises(PartlyListed, match="may not do this") as partly:
        tuner.deployments()
    assert [one.name for one in partly.value.found] == [NAME]
    assert copy(partly.value).found == partly.value.found
    without = here.api.faults.order("quota", "delete_deployment", after=1)
    tuner.take_down(NAME)
    neither = here.api.faults.order("quota", "list_deployments", times=2)
    with pytest.raises(EnvironmentLacks) as failed:
        tuner.deployments()
    assert not isinstance(failed.value, PartlyListed)
    assert (refused.fired, without.fired, neither.fired) == (1, 1, 2)


@pytest.mark.parametrize("first", [True, False], ids=["the first", "the other"])
def test_a_list_that_fails_for_now_is_no_missing_right(here: StandIn, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    """What one list would show is not known yet: it is asked for again later, and what the other one shows does not pass for all."""
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
    failing = here.api.faults.order("error_before", "list_deployments", times=ATTEMPTS, after=int(not first))
    with pytest.raises(TransientError):
        here.tuner.deployments()
    assert failing.fired == ATTEMPTS
    assert [one.name for one in here.tuner.deployments()] == [NAME]
