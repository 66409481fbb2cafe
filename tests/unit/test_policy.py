"""Policy as code: no provider gets data that must not go there, and nothing is taken for granted that no source says."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from prooftune.economics.handling import Handlings, load_handlings, whose
from prooftune.economics.policy import check_bucket_place, check_policy, recipients, told_kept, violations
from prooftune.economics.prices import PriceList, load_prices
from prooftune.errors import SpecError
from prooftune.spec import MANAGED, RunSpec, parse_spec

TODAY = date(2026, 11, 27)
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
    assert set(found.provider) == {*MANAGED, "anthropic"}
    assert set(found.used) == set(found.source)
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
    ("provider", "address", "owner"),
    [
        ("openai", None, "openai"),
        ("openai", "http://127.0.0.1:8001/v1", None),
        ("openai", "https://gateway.example/v1", None),
        ("openai", "https://api.openai.com/v1", "openai"),
        ("openai", "https://EU.api.OpenAI.com/v1", "openai"),
        ("openai", "https://openai.com.evil.example/v1", None),
        ("openai", "https://notopenai.com/v1", None),
        ("openai", "https://api.together.xyz/v1", "together"),
        ("azure", "https://mine.openai.azure.com/openai/v1", "azure"),
        ("anthropic", None, "anthropic"),
        ("anthropic", "https://api.anthropic.com", "anthropic"),
    ],
)
def test_whose_server_an_address_is(provider: str, address: str | None, owner: str | None) -> None:
    """The host decides, by whole domains, and not the protocol; a stand-in on this machine sends data nowhere."""
    assert whose(provider, address) == owner
    if provider == "openai" and address is not None:
        assert (violations(spec_of("openai", "eu", base_url=address), shipped(), {}) == []) == (owner is None)


def asking(**blocks: Any) -> RunSpec:
    """A run on this machine that asks others."""
    return parse_spec({"name": "x", "data": {"source": "x.jsonl"}, **blocks})


LARGER = {"ladder": ["zero_shot", "larger_model"], "larger": OPENAI}
OTHERS = [pytest.param({"judge": OPENAI}, "judge", id="judge"), pytest.param({"baseline": LARGER}, "baseline.larger", id="larger model")]


def test_personal_data_left_in_place_go_nowhere() -> None:
    """With data.pii: allow, what validation found stops the run; what it did not find does not, and other findings are no matter."""
    spec = spec_of("openai", pii="allow")
    words = r"data\.pii: 2 pii-email, 1 pii-iban would be sent to openai \(backend\); set data\.pii to redact"
    with pytest.raises(SpecError, match=words) as caught:
        check_policy(spec, shipped(), {"pii-iban": 1, "pii-email": 2, "exact-duplicate": 9})
    assert [problem.code for problem in caught.value.problems] == ["pii"]
    check_policy(spec, shipped(), {"pii-email": 0, "exact-duplicate": 9})


@pytest.mark.parametrize(("blocks", "role"), OTHERS)
def test_personal_data_go_to_no_judge_and_no_larger_model(blocks: dict[str, Any], role: str) -> None:
    """Also where training is on this machine; redacted they may, and a server of one's own may have them."""
    spec = asking(**blocks, data={"source": "x.jsonl", "pii": "allow"})
    with pytest.raises(SpecError, match=rf"1 pii-email would be sent to openai \({role}\)"):
        check_policy(spec, shipped(), {"pii-email": 1})
    check_policy(spec, shipped(), {})
    check_policy(asking(**blocks), shipped(), {"pii-email": 1})
    mine = OPENAI | {"base_url": "http://127.0.0.1:8000/v1"}
    own = {"judge": mine} if role == "judge" else {"baseline": LARGER | {"larger": mine}}
    check_policy(asking(**own, data={"source": "x.jsonl", "pii": "allow"}), shipped(), {"pii-email": 1})


def test_every_violation_is_told_at_once() -> None:
    """Residency, retention and personal data together."""
    spec = spec_of("openai", "eu", pii="allow")
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"max_retention_days": 30})})
    with pytest.raises(SpecError) as caught:
        check_policy(spec, shipped(), {"pii-email": 1})
    assert [problem.code for problem in caught.value.problems] == ["residency", "retention", "pii"]


@pytest.mark.parametrize(("blocks", "role"), OTHERS)
def test_a_judge_or_larger_model_that_is_not_confined_is_refused(blocks: dict[str, Any], role: str) -> None:
    """They are refused by name where the data must stay in a region, and allowed where nothing is said."""
    with pytest.raises(SpecError, match=rf"data must stay in eu, .* openai \({role}\)"):
        check_policy(asking(**blocks, data={"source": "x.jsonl", "residency": "eu"}), shipped(), {})
    check_policy(asking(**blocks), shipped(), {})


def test_a_judge_with_a_contract_is_asked_at_the_regional_address(tmp_path: Path) -> None:
    """What is asked of the backend is asked of the judge: the price list vouches for the provider, the table for the host."""
    mine = tmp_path / "mine.toml"
    mine.write_text('[source.c]\nname = "contract"\nchecked = 2026-11-01\n[provider.openai]\nregions = ["eu"]\nsource = "c"\n')
    prices, data = load_prices(mine, TODAY), {"source": "x.jsonl", "residency": "eu"}
    assert [one.where for one in violations(asking(judge=OPENAI, data=data), prices, {})] == ["judge.base_url"]
    regional = OPENAI | {"base_url": "https://eu.api.openai.com/v1"}
    assert violations(asking(judge=regional, data=data), prices, {}) == []


def test_a_rung_that_is_not_climbed_is_no_matter() -> None:
    """A larger model that no rung asks gets no data, and a judge at a server of one's own no provider does."""
    assert recipients(asking(baseline={"larger": OPENAI})) == []
    assert recipients(asking(judge=OPENAI | {"base_url": "http://127.0.0.1:8000/v1"})) == []
    assert [str(one) for one in recipients(asking(judge=OPENAI, baseline=LARGER))] == ["openai (baseline.larger)", "openai (judge)"]


def limited(days: int, **blocks: Any) -> RunSpec:
    """A run whose data may be kept for so long."""
    return asking(**blocks, data={"source": "x.jsonl", "max_retention_days": days})


@pytest.mark.parametrize(
    ("provider", "days", "said"),
    [
        pytest.param("openai", 365, ["uploaded files until they are deleted, and Prooftune deletes none"], id="until deleted"),
        pytest.param("bedrock", 30, [], id="kept within the limit"),
        pytest.param("bedrock", 29, ["prompts with their answers for at most 30 days"], id="prompts a day too long"),
        pytest.param("together", 365, ["for how long together (backend) keeps uploaded files", "keeps prompts"], id="nobody knows"),
    ],
)
def test_retention_needs_a_source_and_a_period_within_the_limit(provider: str, days: int, said: list[str]) -> None:
    """What is kept for too long, until somebody deletes it, or for nobody knows how long refuses the provider, with both periods."""
    blocks = {"backend": {"provider": provider, "model": "m"}, "provider": NEEDED[provider]}
    found = violations(limited(days, **blocks), shipped(), {})
    assert len(found) == len(said)
    for problem, words in zip(found, said, strict=True):
        assert (problem.where, problem.code) == ("data.max_retention_days", "retention")
        assert words in problem.reason
        assert f"may be kept for {days} days" in problem.reason


def test_retention_holds_for_judges_and_not_for_servers_of_ones_own() -> None:
    """Anthropic keeps prompts for 30 days; a judge gets no file to train on."""
    judge = {"provider": "anthropic", "model": "m"}
    assert violations(limited(30, judge=judge), shipped(), {}) == []
    assert [one.code for one in violations(limited(7, judge=judge), shipped(), {})] == ["retention"]
    assert violations(limited(0, judge=judge | {"base_url": "http://127.0.0.1:1"}), shipped(), {}) == []


def test_a_contract_says_for_how_long(tmp_path: Path) -> None:
    """kept_days of the user's own list counts instead of the shipped table, and its source is named."""
    mine = tmp_path / "mine.toml"
    mine.write_text('[source.c]\nname = "our contract"\nchecked = 2026-11-01\n[provider.openai]\nkept_days = 7\nsource = "c"\n')
    blocks: dict[str, Any] = {"backend": {"provider": "openai", "model": "m"}, "use": {"prices": str(mine)}}
    prices = load_prices(mine, TODAY)
    assert violations(limited(7, **blocks), prices, {}) == []
    [*_, last] = violations(limited(6, **blocks), prices, {})
    assert "for at most 7 days (our contract, 2026-11-01)" in last.reason
    [told] = told_kept(limited(7, **blocks))
    assert told.count("our contract") == 1
    assert "for at most 7 days" in told


@pytest.mark.parametrize("provider", MANAGED)
def test_what_becomes_of_the_data_is_told_of_every_provider(provider: str) -> None:
    """A sentence names the provider and what it keeps, another the bucket; nothing is told where nothing leaves."""
    told = told_kept(spec_of(provider))
    assert f"{provider} (backend)" in told[0]
    assert "uploaded files" in told[0]
    assert "prompts with their answers" in told[0]
    assert [sentence for sentence in told if "until you delete it" in sentence] == told[1:]
    assert bool(told[1:]) == (NEEDED[provider].get("bucket") is not None)
    assert told_kept(asking()) == []


def test_a_stand_in_is_told_as_the_users_own() -> None:
    """Nobody else knows what it keeps."""
    [told] = told_kept(spec_of("openai", base_url="http://127.0.0.1:9/v1"))
    assert told == "What http://127.0.0.1:9/v1 keeps, which stands for openai (backend), is for you to know."


@pytest.mark.parametrize(
    ("provider", "region", "location", "fits"),
    [
        ("bedrock", "us", "us-east-1", True),
        ("bedrock", "us", "eu-central-1", False),
        ("vertex", "eu", "EU", True),
        ("vertex", "EU", "EUROPE-WEST4", True),
        ("vertex", "eu", "EUROPE-WEST2", False),
        ("vertex", "eu", "US", False),
        ("vertex", "ch", "EUROPE-WEST4", True),
        ("vertex", "ch", "EUROPE-WEST6", False),
        ("vertex", None, "US", True),
    ],
)
def test_a_bucket_must_lie_where_the_data_must_stay(provider: str, region: str | None, location: str, fits: bool) -> None:
    """Both places are named; a region that the table does not know is vouched for by provider.region, here europe-west4."""
    spec = spec_of(provider, region)
    if fits:
        check_bucket_place(spec, location)
        return
    with pytest.raises(SpecError, match=rf"lies in {location}, and data\.residency is {region}"):
        check_bucket_place(spec, location)
