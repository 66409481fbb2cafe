"""What a run begins with: its base model, and the name that all it depends on gives it."""

from __future__ import annotations

from typing import NamedTuple

from prooftune.evaluation.answers.managed import ManagedBase
from prooftune.spec import RunSpec
from prooftune.types import FileRef, ModelRef
from tasks.ingest import fingerprint, fingerprint_files
from tasks.models import find_model
from tasks.result import run_key_of
from tasks.submission import Probed, probe_model

Base = ModelRef | ManagedBase


class Begun(NamedTuple):
    """A run before its first stage."""

    probed: Probed | None
    """The base model at its provider; None = it is trained here."""
    model: ModelRef
    base: Base
    """What is prompted and trained."""
    prompted: Base
    """What the baselines prompt."""
    larger: ModelRef | None
    embedding: ModelRef | None
    source: str
    """Fingerprint of the source."""
    files: dict[str, FileRef]
    """What else the spec names, by field."""
    run_key: str


class Before(NamedTuple):
    """What a run that waited for its job had begun with. It goes on as that run, whatever has become of the source since."""

    source: str
    run_key: str


def begin(spec: RunSpec, before: Before | None = None) -> Begun:
    """Find the models and digest the data; nothing is spent, and nothing of it is cached: any of it may have changed."""
    baseline = spec.baseline
    probed = probe_model(spec) if spec.backend.managed else None
    model = probed.model if probed else find_model(spec.backend.model, spec.backend.revision, spec.backend.trust_remote_code)
    base = ManagedBase.of(spec, probed.capability.limits, probed.usd_per_hour) if probed else model
    prompted = base if baseline.model is None else find_model(baseline.model, None, False)
    larger = None if baseline.larger_here is None else find_model(baseline.larger_here, None, False)
    embedding = None if baseline.embedding is None else find_model(baseline.embedding, None, False)
    files = fingerprint_files(spec)
    if before is not None:
        return Begun(probed, model, base, prompted, larger, embedding, before.source, files, before.run_key)
    source = fingerprint(spec.data.source)
    models = tuple(one for one in (model, prompted, larger, embedding) if isinstance(one, ModelRef))
    return Begun(probed, model, base, prompted, larger, embedding, source, files, run_key_of(spec, source, files, models))
