"""One managed job at a time where the provider's quota allows one: the next run waits where everybody sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_desk import Desk, HeldBrain, opened
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterName
from tests_support import until

pytest_plugins = ["fixtures_desk"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("surroundings")]
TAG = "managed:openai"


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    """The server's API; one job at OpenAI at once, as ``deployments/limits.yaml`` has it."""
    with get_client(sync_client=True) as found:
        found.create_concurrency_limit(TAG, 1)
        yield found
        found.delete_concurrency_limit_by_tag(TAG)


def submitting(client: SyncPrefectClient, desk: Desk) -> list[str]:
    """Return the states of the task runs that submit to a stand-in, sorted."""
    runs = client.read_task_runs(task_run_filter=TaskRunFilter(name=TaskRunFilterName(like_="submit")))
    ours = {run.flow_run_id for run in runs if run.flow_run_id and desk.address in str(client.read_flow_run(run.flow_run_id).parameters)}
    return sorted(run.state_name or "" for run in runs if run.flow_run_id in ours)


def test_the_second_job_waits_until_the_first_has_ended(folder: Path, tmp_path: Path, client: SyncPrefectClient) -> None:
    """The slot is held from before the job is made until it has ended, so that no second one is made in between."""
    brain = HeldBrain()
    with opened(folder, tmp_path, brain) as desk:
        runs = [desk.start(backend={"method": {"seed": seed}}) for seed in (1, 2)]
        until(lambda: (desk.jobs and len(submitting(client, desk)) == 2) or None)
        assert submitting(client, desk) == ["Pending", "Running"]
        made = desk.seen.count("create_job")
        brain.may.set()
        results = [run.result(300) for run in runs]
        assert (made, desk.jobs) == (1, 2)
        assert [result.verdict for result in results] == ["promote", "promote"]
