"""Types of fields that several blocks of the spec share."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Lower case, digits and dashes: it becomes part of paths, artifact keys and run ids."""
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Amount = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0.0, lt=1.0)]
"""A count of examples (an integer) or a share of them (between 0 and 1)."""


def _without_credentials(address: str) -> str:
    """Refuse an address with a user or password in it: specs are stored, shown and published."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*@", address):
        raise ValueError("an address may hold no user or password: a spec is stored and shown; put credentials in the environment")
    return address


Address = Annotated[str, AfterValidator(_without_credentials)]
"""A path or URI without credentials."""


def _listed(value: object) -> object:
    """Take a single value as a list of one, so that ``--set task.slices=product`` does what it says."""
    return [value] if isinstance(value, str | int | float) else value


OneOrMore = BeforeValidator(_listed)
"""On a list field: a single value is a list of one."""


def digest(value: object) -> str:
    """SHA-256 hex of a JSON-able value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
