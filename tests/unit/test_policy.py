"""Policy as code: no provider gets data that must not go there, and nothing is taken for granted that no source says."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from prooftune.economics.policy import Handlings, check_policy, check_residency, load_handlings, of_users_own, violations
from prooftune.economics.prices import PriceList, load_prices
from prooftune.errors import SpecError
from prooftune.spec import MANAGED, RunSpec, parse_spec

TODAY = date(2026, 11, 26)
OPENAI = {"provider": "openai", "model": "gpt-4.1"}
NEEDED: dict[str, dict[str, Any]] = {
    "openai": {},
    "azure": {"base_url": "https://mine.openai.azure.com/openai/v1", "resource": "/subscriptions/s/accounts/mine"},
    "bedrock": {"region": "us-west-2", "bucket": "s3://b", "role_arn": "arn:aws:iam::1:role/r"},
    "vertex": {"project": "p", "region": "europe-west4", "bucket": "gs://b"},
    "together": {},
    "fireworks": {"project": "me"},
}


def shipped() -> PriceList:
    """The shipped price list."""
    return load_prices(None, TODAY)


def spec_of(provider: str, residency: str | None = None, pii: str = "redact", **options: Any) -> RunSpec:
    """A managed run."""
    return parse_spec(
        {
            "name": "x",
            "data": {"source": "x.jsonl", "residency": residency, "pii": pii},
            "backend": {"provider": provider, "model": "m"},
            "provider": NEEDED[provider] | options,
        }
    )


def test_every_provider_has_an_entry_and_every_fact_a_source() -> None:
    """No source without an address, none that is not used, none from the future; no provider trains on what it is sent."""
    found = load_handlings()
    assert set(found.provider) == set(MANAGED)
    used = {one.source for one in found.provider.values()} | {
        place.source for one in found.provider.values() for place in one.place.values()
    }
    assert used == set(found.source)
    assert all(source.url.startswith("https://") and source.checked <= TODAY for source in found.source.values())
    assert not any(one.trains for one in found.provider.values())


def test_every_region_of_the_price_list_has_a_place() -> None:
    """Where the shipped list says that a provider can be confined, the shipped table says what the spec has to say for it."""
    for name, provider in shipped().provider.items():
        assert set(provider.regions) <= set(load_handlings().provider[name].place)


def test_a_fact_without_its_source_is_refused() -> None:
    """A table that names a source it does not have cannot be loaded."""
    with pytest.raises(ValidationError, match="hearsay"):
        Handlings.model_validate({"source": {}, "provider": {"x": {"hosts": ["x.com"], "source": "hearsay"}}})


@pytest.mark.parametrize("provider", MANAGED)
def test_without_rules_every_provider_may_be_used(provider: str) -> None:
    """No residency, and personal data redacted."""
    assert violations(spec_of(provider), shipped(), {"pii-email": 3}) == []


@pytest.mark.parametrize(
    ("provider", "region", "options", "field"),
    [
        pytest.param("openai", "eu", {}, "data.residency", id="no source confines OpenAI's fine-tuning"),
        pytest.param("together", "us", {}, "data.residency", id="nor Together's"),
        pytest.param("fireworks", "eu", {}, "data.residency", id="nor Fireworks'"),
        pytest.param("bedrock", "eu", {"region": "eu-central-1"}, "data.residency", id="Bedrock tunes in the US alone"),
        pytest.param("bedrock", "us", {"region": "eu-central-1"}, "provider.region", id="Bedrock, asked elsewhere"),
        pytest.param("bedrock", "us", {}, None, id="Bedrock in the US"),
        pytest.param("vertex", "eu", {}, None, id="Vertex in the EU"),
        pytest.param("vertex", "EU", {}, None, id="in capitals"),
        pytest.param("vertex", "eu", {"region": "us-central1"}, "provider.region", id="Vertex, asked in the US"),
        pytest.param("vertex", "eu", {"region": "europe-west2"}, "provider.region", id="London is not in the EU"),
        pytest.param("vertex", "eu", {"region": "global"}, "provider.region", id="Vertex, asked anywhere"),
        pytest.param("azure", "eu", {"region": "swedencentral", "tier": "standard"}, None, id="Azure in Sweden"),
        pytest.param("azure", "eu", {"region": "swedencentral"}, "provider.tier", id="Azure's global training"),
        pytest.param("azure", "eu", {"tier": "standard"}, "provider.region", id="Azure, nobody says where"),
    ],
)
def test_residency_needs_a_source_and_an_address_in_the_region(
    provider: str, region: str, options: dict[str, Any], field: str | None
) -> None:
    """A provider that cannot be confined is refused, and one that can be where the spec's address is another region's."""
    found = violations(spec_of(provider, region, **options), shipped(), {})
    assert [problem.where for problem in found] == ([] if field is None else [field])


def test_a_contract_of_the_users_counts(tmp_path: Path) -> None:
    """A price list that names region and source vouches for the provider; the regional host must be asked all the same."""
    mine = tmp_path / "mine.toml"
    mine.write_text('[source.c]\nname = "contract"\nchecked = 2026-11-01\n[provider.openai]\nregions = ["eu", "ch"]\nsource = "c"\n')
    prices = load_prices(mine, TODAY)
    assert [one.where for one in violations(spec_of("openai", "eu"), prices, {})] == ["provider.base_url"]
    assert violations(spec_of("openai", "eu", base_url="https://eu.api.openai.com/v1"), prices, {}) == []
    assert violations(spec_of("openai", "ch"), prices, {}) == []


@pytest.mark.parametrize(
    ("provider", "address", "own"),
    [
        ("openai", None, False),
        ("openai", "http://127.0.0.1:8001/v1", True),
        ("openai", "https://gateway.example/v1", True),
        ("openai", "https://api.openai.com/v1", False),
        ("openai", "https://EU.api.OpenAI.com/v1", False),
        ("openai", "https://openai.com.evil.example/v1", True),
        ("openai", "https://notopenai.com/v1", True),
        ("azure", "https://mine.openai.azure.com/openai/v1", False),
        ("anthropic", "https://api.anthropic.com", False),
    ],
)
def test_whose_server_an_address_is(provider: str, address: str | None, own: bool) -> None:
    """The host decides, by whole domains; a stand-in on this machine sends data nowhere."""
    assert of_users_own(provider, address) == own
    if provider == "openai" and address is not None:
        assert (violations(spec_of("openai", "eu", base_url=address), shipped(), {}) == []) == own


def test_personal_data_left_in_place_go_nowhere() -> None:
    """With data.pii: allow, what validation found stops the run; what it did not find does not, and other findings are no matter."""
    spec = spec_of("openai", pii="allow")
    with pytest.raises(SpecError, match=r"data\.pii: 2 pii-email, 1 pii-iban would be sent to openai; set data\.pii to redact") as caught:
        check_policy(spec, shipped(), {"pii-iban": 1, "pii-email": 2, "exact-duplicate": 9})
    assert [problem.code for problem in caught.value.problems] == ["pii"]
    check_policy(spec, shipped(), {"pii-email": 0, "exact-duplicate": 9})


def test_every_violation_is_told_at_once() -> None:
    """Residency and personal data together."""
    with pytest.raises(SpecError) as caught:
        check_policy(spec_of("openai", "eu", pii="allow"), shipped(), {"pii-email": 1})
    assert [problem.code for problem in caught.value.problems] == ["residency", "pii"]


@pytest.mark.parametrize(
    "blocks",
    [{"judge": OPENAI}, {"baseline": {"ladder": ["zero_shot", "larger_model"], "larger": OPENAI}}],
)
def test_a_judge_or_larger_model_that_is_not_confined_is_refused(blocks: dict[str, Any]) -> None:
    """They are refused by name where the data must stay in a region, and allowed where nothing is said."""
    spec = {"name": "x", "data": {"source": "x.jsonl", "residency": "eu"}, **blocks}
    with pytest.raises(SpecError, match="openai"):
        check_residency(parse_spec(spec))
    check_residency(parse_spec(spec | {"data": {"source": "x.jsonl"}}))


def test_a_server_of_ones_own_and_a_rung_that_is_not_climbed_are_no_matter() -> None:
    """What is named by base_url is the user's to vouch for; a larger model that no rung asks gets no data."""
    data = {"source": "x.jsonl", "residency": "eu"}
    check_residency(parse_spec({"name": "x", "data": data, "judge": OPENAI | {"base_url": "http://127.0.0.1:8000/v1"}}))
    check_residency(parse_spec({"name": "x", "data": data, "baseline": {"larger": OPENAI}}))
