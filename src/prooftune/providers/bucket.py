"""Where the bucket of a managed run lies, asked before anything is put into it."""

from __future__ import annotations

from prooftune.economics.policy import check_bucket_place
from prooftune.spec import Provider, RunSpec


def check_bucket(spec: RunSpec) -> None:
    """Check that rows go into a bucket in ``data.residency``; without one, and where the provider takes files itself, nothing is asked.

    Raises:
        SpecError: it lies elsewhere.
        EnvironmentLacks: there is no such bucket, or no right to ask where it lies.
        TransientError: no full answer came.
    """
    if spec.data.residency is not None and spec.backend.provider in ("bedrock", "vertex"):
        check_bucket_place(spec, _location(spec.backend.provider, spec.provider))


def _location(provider: str, options: Provider) -> str:
    if provider == "bedrock":
        from prooftune.providers import bedrock_files

        return bedrock_files.Bucket(str(options.bucket)).location()
    from prooftune.providers import vertex_files
    from prooftune.providers.vertex_connection import connect

    return vertex_files.Bucket(str(options.bucket), str(options.project), connect(options).access).location()
