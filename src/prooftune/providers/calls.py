"""Requests to providers: which failures are worth another try, how long to wait for it, and which error of ours each one is.

The SDKs' own retries are off: one of them waits as long as a server's ``Retry-After`` says, be it weeks, and both repeat a request that
creates something.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from prooftune.errors import EnvironmentLacks, OutcomeUnknown, ProoftuneError, SpecError, TransientError

Result = TypeVar("Result")


class NotFoundError(SpecError):
    """The provider knows nothing of that name: a model, an address, or a batch that is gone."""


ATTEMPTS = 5
TIMEOUT_S = 300.0
"""Of one request: a model that thinks first may be silent for minutes."""
FIRST_WAIT_S = 0.5
"""Doubled with each attempt, where the server does not say how long to wait."""
LONGEST_WAIT_S = 120.0
"""A server that asks for a longer wait is left alone: the stage's retry, or the user, comes back later."""

_CORRECT = "correct the model or its options in the spec"
_MEANINGS: dict[int, tuple[type[ProoftuneError], str]] = {
    400: (SpecError, f"the request is refused; {_CORRECT}"),
    401: (EnvironmentLacks, "the key in {variable} is not accepted; set it to a valid one"),
    402: (EnvironmentLacks, "the account has to be paid for first"),
    403: (EnvironmentLacks, "the account of the key in {variable} may not do this; give it the right, or use another key"),
    404: (NotFoundError, "there is no such model or address; correct the model's name or base_url in the spec"),
    413: (SpecError, "the request is too large; lower the number of pairs or demonstrations"),
    422: (SpecError, f"the request is refused; {_CORRECT}"),
}
_REFUSED = frozenset({400, 401, 402, 403, 404, 405, 406, 410, 411, 412, 413, 414, 415, 422, 428, 429, 431, 451})
"""Says that the request was not carried out. Not so a time-out (408), a conflict (409), Google's CANCELLED (499) or a proxy's own words.

Source: RFC 9110, section 15.5, RFC 6585, and https://cloud.google.com/apis/design/errors."""
_TRANSIENT = {408, 409, 425, 429, 499}
_NO_CREDIT = "insufficient_quota"
"""OpenAI's code for a 429 that no waiting helps."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that failed, in the provider's own words."""

    message: str
    status: int | None = None
    """HTTP status; None = there was no answer, or one that could not be read."""
    code: str | None = None
    parameter: str | None = None
    """The request's parameter that the provider objects to, where it says so."""
    retry_after_s: float | None = None
    unsent: bool = False
    """Whether no connection came about, so that the server surely got nothing."""

    @property
    def surely_not_done(self) -> bool:
        """Whether the server has surely not done it: it was not reached, or it refused. Any other word tells nothing."""
        return self.unsent or self.status in _REFUSED

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status is None or self.status >= 500 or (self.status in _TRANSIENT and self.code != _NO_CREDIT)

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait after the ``attempt``-th failure: what the server asks for, else exponential with jitter."""
        if self.retry_after_s is not None:
            return self.retry_after_s
        return FIRST_WAIT_S * float(2 ** (attempt - 1)) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter is no secret


def failure_of(error: Exception) -> Failure:
    """Return what an SDK's error says. Both SDKs come from one generator and name their errors' attributes alike."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return Failure(f"the answer is not what the API promises: {'.'.join(map(str, first['loc']))} {first['msg']}")
    if isinstance(error, json.JSONDecodeError):
        return Failure("the answer is no JSON")
    status, body = getattr(error, "status_code", None), getattr(error, "body", None)
    if status is None:
        return Failure(f"{error} {error.__cause__ or ''}".strip(), unsent=never_connected(error))
    inner = body.get("error", body) if isinstance(body, Mapping) else {}
    told: Mapping[str, Any] = inner if isinstance(inner, Mapping) else {}
    return Failure(
        message=str(told.get("message") or error),
        status=status,
        code=told.get("code"),
        parameter=told.get("param"),
        retry_after_s=retry_after(getattr(error, "response").headers.get("retry-after")),  # noqa: B009 - of a type unknown here
    )


_NO_CONNECTION = {"ConnectError", "ConnectTimeout", "PoolTimeout", "EndpointConnectionError", "ConnectTimeoutError", "NewConnectionError"}
"""Names of the errors of httpx, httpx2, botocore and urllib3 that are raised before anything is sent."""


def never_connected(error: BaseException | None) -> bool:
    """Return whether an error, or what caused it, says that no connection came about."""
    while error is not None:
        if type(error).__name__ in _NO_CONNECTION:
            return True
        error = error.__cause__
    return False


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, be they a number or a date; None = it asks for nothing intelligible.

    Source: RFC 9110, section 10.2.3.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return None if math.isnan(seconds) else max(0.0, seconds)


class Caller:
    """Makes requests to one model, and turns what fails for good into an error of ours that never holds the key."""

    def __init__(
        self,
        where: str,
        variable: str,
        key: str,
        sdk_error: type[Exception] | tuple[type[Exception], ...],
        read: Callable[[Exception], Failure] = failure_of,
    ) -> None:
        """``read`` says what an error of an SDK means that names its errors' attributes otherwise."""
        self._where = where
        self._variable = variable
        self._key = key
        self._read = read
        errors = sdk_error if isinstance(sdk_error, tuple) else (sdk_error,)
        self._caught: tuple[type[Exception], ...] = (*errors, ValidationError, json.JSONDecodeError)

    def __call__(
        self, request: Callable[[], Result], *, attempts: int = ATTEMPTS, adapt: Callable[[Failure], bool] = lambda _: False
    ) -> Result:
        """Return the request's result, after further attempts where they may help.

        ``adapt`` may change what the next attempt sends and says whether it did; such an attempt does not count.

        Raises:
            TransientError, EnvironmentLacks, SpecError: by ``_MEANINGS``, with the provider's own message.
        """
        attempt = 0
        while True:
            try:
                return request()
            except self._caught as error:
                failure = self._read(error)
            if adapt(failure):
                continue
            attempt += 1
            wait = failure.wait_s(attempt)
            # Outside of the except clause: the SDK's error holds the request with its headers, and must not become our error's context.
            if not failure.transient or attempt >= attempts or wait > LONGEST_WAIT_S:
                raise self._error(failure)
            time.sleep(wait)

    def create(self, request: Callable[[], Result]) -> Result:
        """Return the result of a request that creates something. It is made once.

        Raises:
            OutcomeUnknown: nothing says whether the server did it.
            TransientError, EnvironmentLacks, SpecError: it surely did not, as for other requests.
        """
        try:
            return request()
        except self._caught as error:
            failure = self._read(error)
        if failure.surely_not_done:
            raise self._error(failure)
        told = f"{failure.status}: {self._told(failure)}" if failure.status else self._told(failure)
        raise OutcomeUnknown(f"{self._where} gave no answer that says whether it did what was asked ({told})")

    def _told(self, failure: Failure) -> str:
        message = " ".join(failure.message.split())
        return (message.replace(self._key, "[key]") if self._key else message)[:500]

    def _error(self, failure: Failure) -> ProoftuneError:
        told = self._told(failure)
        told = f"{failure.status}: {told}" if failure.status else told
        if failure.transient:
            asked = failure.retry_after_s
            later = f"the server asks to wait {asked:.0f} s; " if asked is not None and asked > LONGEST_WAIT_S else ""
            return TransientError(f"{self._where} could not answer; {later}run the same command again later ({told})")
        if failure.code == _NO_CREDIT:
            return EnvironmentLacks(f"{self._where}: the account of the key in {self._variable} has no credit left ({told})")
        kind, advice = _MEANINGS.get(failure.status or 0, (EnvironmentLacks, "the request is refused"))
        return kind(f"{self._where}: {advice.format(variable=self._variable)} ({told})")
