"""The jobs of a Ray cluster, through the client that is the same for a cluster of one's own, KubeRay and Anyscale.

https://docs.ray.io/en/latest/cluster/running-applications/job-submission/sdk.html
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from prooftune.errors import EnvironmentLacks, JobFailed, ProoftuneError, TransientError
from prooftune.providers.calls import Caller, Failure, failure_of
from prooftune.providers.tuning import ENDED, Status, status_of
from prooftune.types import Frozen

STATUSES: Mapping[str, Status] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "STOPPED": "cancelled",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
}
"""Our word for each ``ray.job_submission.JobStatus``."""
FAILURES: Mapping[str, type[ProoftuneError]] = {
    "RUNTIME_ENV_SETUP_FAILURE": EnvironmentLacks,
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT": TransientError,
    "JOB_SUPERVISOR_ACTOR_START_FAILURE": TransientError,
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE": TransientError,
    "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE": TransientError,
    "JOB_SUPERVISOR_ACTOR_DIED": TransientError,
    "JOB_ENTRYPOINT_COMMAND_START_ERROR": EnvironmentLacks,
    "JOB_ENTRYPOINT_COMMAND_ERROR": JobFailed,
}
"""Our error for each ``ray.job_submission.JobErrorType``. A lost node or a busy cluster is worth another try."""
TIMEOUT_S = 30.0
"""Without a byte from the cluster; Ray's SDK itself would wait for ever."""
TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 - the name of the variable
OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Environment variables that Ray's SDK prefers to the address it is given."""
_REFUSED = re.compile(r"Request failed with status code (\d+): (.*)", re.DOTALL)


class RayJob(Frozen):
    """A job as the cluster describes it."""

    id: str
    status: Status
    told: str
    """Ray's own word for the status."""
    message: str = ""
    """Ray's first line on it; further ones quote the job's log, which may quote examples."""
    error: str | None = None
    """Ray's kind of failure."""
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        """Whether the status lasts."""
        return self.status in ENDED

    @property
    def signalled(self) -> bool:
        """Whether a signal ended it: too little memory, a drained node, someone's kill."""
        return self.exit_code is not None and not 0 <= self.exit_code < 128


class Cluster:
    """The jobs of one Ray cluster."""

    def __init__(self, address: str | None) -> None:
        """``address`` is the dashboard's, ``http://host:8265``, or ``anyscale://…``; None = the cluster that this machine belongs to.

        Raises:
            EnvironmentLacks: Ray's SDK is not installed, or the environment names another cluster.
        """
        try:
            from ray.exceptions import AuthenticationError
            from requests import RequestException
        except ImportError:
            raise EnvironmentLacks("the SDK ray is not installed; run: pip install 'prooftune[ray]'") from None
        for name in OVERRIDES:
            if address is not None and os.environ.get(name, address) != address:
                raise EnvironmentLacks(f"{name} is set, and Ray would prefer it to provider.base_url, {address}; unset one of the two")
        self._address = address
        self.where = f"the Ray cluster at {address or 'its default address'} (provider.base_url)"
        errors = (RuntimeError, ConnectionError, RequestException, AuthenticationError)
        self._call = Caller(self.where, TOKEN, os.environ.get(TOKEN, ""), errors, _read_failure)

    def job(self, id_: str) -> RayJob | None:
        """Return a job as it is now; None = the cluster does not know it."""

        def look() -> Any:
            try:
                return self._client.get_job_info(id_)
            except RuntimeError as error:
                if str(error).startswith("Request failed with status code 404: Job "):
                    return None
                raise

        found = self._call(look)
        if found is None:
            return None
        told, message = str(found.status), (found.message or "").partition("\n")[0].partition(", last available logs")[0]
        error, code = found.error_type, found.driver_exit_code
        return RayJob(id=id_, status=status_of(told, STATUSES), told=told, message=message, error=error, exit_code=code)

    def submit(self, id_: str, entrypoint: str, *, cpus: float, gpus: float, metadata: Mapping[str, str]) -> None:
        """See to it that there is a job of this id: it is made, or was there. Asking again is harmless."""

        def ask() -> None:
            try:
                self._client.submit_job(
                    submission_id=id_,
                    entrypoint=entrypoint,
                    entrypoint_num_cpus=cpus,
                    entrypoint_num_gpus=gpus,
                    metadata=dict(metadata),
                )
            except RuntimeError as error:
                if f"{id_} already exists" not in str(error):  # under the status code of an internal error
                    raise

        self._call(ask)

    def log(self, id_: str) -> str:
        """Return everything that the job has printed."""
        return str(self._call(lambda: self._client.get_job_logs(id_)))

    def stop(self, id_: str) -> None:
        """Ask the cluster to end a job; one that has ended is fine."""
        self._call(lambda: self._client.stop_job(id_))

    @cached_property
    def _client(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        class Client(JobSubmissionClient):  # type: ignore[misc]
            """Ray's client, whose requests end."""

            def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
                return super()._do_request(method, endpoint, timeout=TIMEOUT_S, **options)

        try:
            return Client(self._address)
        except (RuntimeError, ValueError, KeyError, AssertionError) as error:  # an old cluster, none at all, no module for the address
            raise EnvironmentLacks(f"{self.where} cannot be used: {' '.join(str(error).split())}") from None


def _read_failure(error: Exception) -> Failure:
    """Return what an error of Ray's SDK, or of its HTTP library, says."""
    if isinstance(error, ValidationError | json.JSONDecodeError):
        return failure_of(error)
    if refused := _REFUSED.match(str(error)):
        lines = [
            line.strip() for line in refused[2].splitlines() if len(line.strip()) > 1
        ]  # mostly a traceback, which ends in what matters
        return Failure(lines[-1] if lines else "", status=int(refused[1]))
    if type(error).__name__ == "AuthenticationError":
        return Failure(str(error), status=401)
    response = getattr(error, "response", None)
    return Failure(str(error), status=None if response is None else response.status_code)
