"""The address of a job's page at its provider."""

from __future__ import annotations

import pytest

from prooftune.providers.consoles import console_of
from prooftune.spec import Objective

VERTEX = "projects/p-1/locations/europe-west4/tuningJobs/42"


@pytest.mark.parametrize(
    ("provider", "address", "job", "objective", "page"),
    [
        ("openai", "https://api.openai.com/v1", "ftjob-1", "supervised", "https://platform.openai.com/finetune/ftjob-1"),
        ("openai", "https://eu.api.openai.com/v1", "ftjob-1", "supervised", "https://platform.openai.com/finetune/ftjob-1"),
        ("openai", "https://api.openai.com/v1", "a/../b", "supervised", "https://platform.openai.com/finetune/a%2F..%2Fb"),
        ("openai", "http://127.0.0.1:8123/v1", "ftjob-1", "supervised", None),
        ("openai", "https://notopenai.com/v1", "ftjob-1", "supervised", None),
        ("together", "https://api.together.ai/v1", "ft-1", "supervised", "https://api.together.ai/fine-tuning/ft-1"),
        (
            "fireworks",
            "https://api.fireworks.ai/v1/accounts/a",
            "accounts/a/supervisedFineTuningJobs/j1",
            "supervised",
            "https://app.fireworks.ai/dashboard/fine-tuning/supervised/j1",
        ),
        ("fireworks", "https://api.fireworks.ai/v1/accounts/a", "j1", "preference", "https://app.fireworks.ai/dashboard/fine-tuning"),
        (
            "vertex",
            "https://europe-west4-aiplatform.googleapis.com",
            VERTEX,
            "supervised",
            "https://console.cloud.google.com/vertex-ai/generative/language/locations/europe-west4/tuning/tuningJob/42?project=p-1",
        ),
        ("vertex", "https://europe-west4-aiplatform.googleapis.com", "42", "supervised", None),
        (
            "bedrock",
            "https://bedrock.us-east-1.amazonaws.com",
            "arn:aws:bedrock:us-east-1:1:model-customization-job/x/y",
            "supervised",
            "https://us-east-1.console.aws.amazon.com/bedrock/home?region=us-east-1#/custom-models",
        ),
        ("azure", "https://x.openai.azure.com/openai/v1", "ftjob-1", "supervised", None),
        ("ray", "http://127.0.0.1:8265", "raysubmit_1", "supervised", None),
    ],
)
def test_a_job_leads_to_its_page(provider: str, address: str, job: str, objective: Objective, page: str | None) -> None:
    """At the provider's own address only, and what a job is called cannot lead elsewhere."""
    assert console_of(provider, address, job, objective) == page
