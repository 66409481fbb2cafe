"""Looks for requests that the webhook has taken and whose retraining has not ended.

Who asked was told that the request is taken, and asks no second time. Its event may have been lost, or its run refused: another retraining
was under way, the cool-down was not over, the month's money was spent.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from pydantic import ValidationError

from prooftune.errors import IntegrityError
from prooftune.retraining.claims import Claim, read_retrains
from prooftune.spec import RunSpec
from prooftune.storage.objects import ObjectStore
from prooftune.watching.looks import FOLDER, Look, Quiet
from prooftune.watching.signals import Signal


def look_at_requests(store: ObjectStore, spec: RunSpec, now: datetime) -> Look:
    """Return the request that has waited longest, one that was never started before one that failed; its retraining may be under way.

    Raises:
        StoreUnavailable, TransientError: the store cannot be reached.
        IntegrityError: a request, or the record of retrainings, is damaged.
    """
    claims = {key_of(spec.name, claim.digest): claim for claim in read_retrains(store, spec.name).claims if claim.kind == "request"}
    waiting = [
        _read(store, key) for key in store.list(_folder(spec.name)) if (claim := claims.get(key)) is None or claim.state != "finished"
    ]
    if not waiting:
        return Quiet(kind="request", reason="no request waits")

    def turn(signal: Signal) -> tuple[bool, str, str]:
        claim: Claim | None = claims.get(key_of(spec.name, signal.digest))
        return claim is not None and not claim.lives(now), signal.at, signal.digest

    return min(waiting, key=turn)


def key_of(task: str, digest: str) -> str:
    """Return where a request is kept; a sender's id for it may be no key."""
    return f"{_folder(task)}{hashlib.sha256(digest.encode()).hexdigest()[:32]}.json"


def _folder(task: str) -> str:
    return f"{FOLDER}{task}/requests/"


def _read(store: ObjectStore, key: str) -> Signal:
    try:
        return Signal.model_validate_json(store.get(key))
    except ValidationError as error:
        raise IntegrityError(f"{store.uri}: {key} is no request ({error.error_count()} problems); restore it from a copy") from None
