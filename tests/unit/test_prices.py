"""The price list: the shipped one is sound and sourced, a user's lies over it, and what is wrong with a file is named."""

from __future__ import annotations

import tomllib
from datetime import date, timedelta
from pathlib import Path

import pytest

from prooftune.economics.offers import offer_of
from prooftune.economics.prices import SHIPPED, STALE_DAYS, UNITS, PriceList, load_prices, price_digest
from prooftune.errors import SpecError
from prooftune.providers.vertex_models import LIVES

TODAY = date(2026, 11, 22)
MINE = """
[source.mine]
name = "our contract"
checked = 2026-11-01

[price."openai/gpt-4.1-mini"]
training = { amount = 4.0, unit = "1M tokens", source = "mine" }

[price."anthropic/some-model"]
input = { amount = 3.0, unit = "1M tokens", source = "mine" }
output = { amount = 15.0, unit = "1M tokens", source = "mine" }
"""


def shipped(today: date = TODAY) -> PriceList:
    """The list without a user's."""
    return load_prices(None, today)


def overlaid(folder: Path, text: str) -> PriceList:
    """The list with a user's file over it."""
    path = folder / "prices.toml"
    path.write_text(text, encoding="utf-8")
    return load_prices(path, TODAY)


def test_every_shipped_price_says_currency_unit_and_where_and_when_it_was_read() -> None:
    """Nothing rests on a default, every source is used and has an address and a day in the past."""
    raw = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    prices = [price for meters in raw["price"].values() for price in meters.values()]
    assert all(set(price) == {"amount", "currency", "unit", "source"} for price in prices)
    used = {price["source"] for price in prices} | {provider["source"] for provider in raw["provider"].values()}
    assert used == set(raw["source"])
    assert all(source["url"].startswith("https://") and source["checked"] <= TODAY for source in raw["source"].values())


def test_the_shipped_list_covers_what_the_costs_are_said_for() -> None:
    """Six providers that tune, and machines from a CPU core to an H200."""
    prices = shipped()
    trained = {offer.split("/")[0] for offer, meters in prices.price.items() if "training" in meters}
    assert trained == set(prices.provider) == {"azure", "bedrock", "fireworks", "openai", "together", "vertex"}
    machines = {offer for offer in prices.price if offer.startswith("machine/")}
    assert machines == {"machine/cpu", "machine/l4", "machine/a10", "machine/a100", "machine/h100", "machine/h200"}


def test_known_figures() -> None:
    """Tuning gpt-4.1-mini costs 5 USD per 1M tokens, the tuned model 0.80 and 3.20."""
    meters = shipped().price["openai/gpt-4.1-mini"]
    assert [meters[meter].amount for meter in ("training", "tuned_input", "tuned_output")] == [5.0, 0.8, 3.2]


def test_a_request_is_priced_by_its_tokens() -> None:
    """A million tokens each way cost the sum of both prices; a model without prices costs nothing that is known."""
    assert shipped().request_usd("openai/gpt-4.1-mini", 1e6, 1e6) == pytest.approx(2.0)
    assert shipped().request_usd("openai/unheard-of", 1, 1) is None
    assert shipped().request_usd("fireworks/model-up-to-16b", 1, 1) is None


def test_a_users_prices_lie_over_the_shipped_ones(tmp_path: Path) -> None:
    """A meter is replaced, the others stay, and a new model is added."""
    prices = overlaid(tmp_path, MINE)
    mini = prices.price["openai/gpt-4.1-mini"]
    assert (mini["training"].amount, mini["training"].source, mini["tuned_input"].amount) == (4.0, "mine", 0.8)
    assert prices.request_usd("anthropic/some-model", 1e6, 1e6) == 18.0
    assert prices.price["openai/gpt-4.1"] == shipped().price["openai/gpt-4.1"]


def test_the_digest_follows_the_prices_not_the_day(tmp_path: Path) -> None:
    """The same prices tomorrow are the same; another price is not."""
    assert shipped().sha256 == shipped(TODAY + timedelta(days=1)).sha256 == price_digest(None)
    overlaid(tmp_path, MINE)
    assert price_digest(tmp_path / "prices.toml") != price_digest(None)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("[price\n", "at line 1", id="not TOML"),
        pytest.param("[prices]\n", "prices: a price list has source, provider, price only", id="unknown table"),
        pytest.param("price = 3\n", "price: must be a table", id="no table"),
        pytest.param(
            '[price."openai/x"]\ntraining = { amount = 1, unit = "1k tokens", source = "openai-tuning" }\n',
            "price.openai/x.training.unit",
            id="unknown unit",
        ),
        pytest.param(
            '[price."openai/x"]\ntraining = { amount = 1, unit = "hour", source = "openai-tuning" }\n',
            "'openai/x'.training is per hour; it must be per 1M tokens",
            id="wrong unit",
        ),
        pytest.param(
            '[price."openai/x"]\ntuning = { amount = 1, unit = "1M tokens", source = "openai-tuning" }\n',
            "price.openai/x",
            id="unknown meter",
        ),
        pytest.param(
            '[price."openai/x"]\ntraining = { amount = 1, unit = "1M tokens", source = "openai-tuning", per = 2 }\n',
            "price.openai/x.training.per",
            id="unknown field",
        ),
        pytest.param(
            '[price."openai/x"]\ntraining = { amount = 1, unit = "1M tokens", source = "openai-tuning", currency = "EUR" }\n',
            "price.openai/x.training.currency",
            id="other currency",
        ),
        pytest.param(
            '[price."openai/x"]\ntraining = { amount = -1, unit = "1M tokens", source = "openai-tuning" }\n',
            "price.openai/x.training.amount",
            id="negative",
        ),
        pytest.param(
            '[price."openai/x"]\ntraining = { amount = 1, unit = "1M tokens", source = "hearsay" }\n',
            "names the source 'hearsay'",
            id="unknown source",
        ),
        pytest.param('[price."gpt"]\n', "price.gpt", id="no provider"),
        pytest.param('[source.mine]\nname = "x"\n', "source.mine.checked", id="undated source"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    """A SpecError with the file and the line or field."""
    with pytest.raises(SpecError) as caught:
        overlaid(tmp_path, text)
    assert named in str(caught.value)
    assert "prices.toml" in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, a folder, or no UTF-8."""
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    for path in (tmp_path / "missing.toml", tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(SpecError, match=r"use\.prices"):
            load_prices(path, TODAY)


def test_prices_go_stale_after_180_days() -> None:
    """On the 180th day nothing is said; on the next, source and age are."""
    known = shipped()
    price = known.price["fireworks/model-up-to-16b"]["training"]
    last = known.source[price.source].checked + timedelta(days=STALE_DAYS)
    assert shipped(last).stale([price]) == ""
    assert "second-hand (181 days)" in shipped(last + timedelta(days=1)).stale([price])


def test_the_oldest_price_dates_a_sum() -> None:
    """Of the prices used; today where none was."""
    known = shipped()
    used = [known.price["fireworks/model-up-to-16b"]["training"], known.price["azure/gpt-4.1"]["hosting"]]
    assert known.checked(used) == date(2026, 2, 11)
    assert known.checked([]) == TODAY


def test_a_provider_closes_after_its_last_job() -> None:
    """On the last day OpenAI still tunes; on the next it does not."""
    last = shipped().provider["openai"].last_job
    assert last is not None
    assert "openai/gpt-4.1" in shipped(last).tunable()
    assert not [offer for offer in shipped(last + timedelta(days=1)).tunable() if offer.startswith("openai/")]


@pytest.mark.parametrize("model", LIVES)
def test_a_model_that_is_tuned_no_more_is_no_option(model: str, tmp_path: Path) -> None:
    """By the one table of last days, for every model of it: on the last day it is, and from the next day on it is not."""
    path = tmp_path / "mine.toml"
    path.write_text(f'[price."vertex/{model}"]\ntraining = {{ amount = 1, unit = "1M tokens", source = "openai-tuning" }}\n')
    last = LIVES[model].last_job
    assert f"vertex/{model}" in load_prices(path, last).tunable("eu")
    assert f"vertex/{model}" not in load_prices(path, last + timedelta(days=1)).tunable()


def test_a_reinforcement_price_makes_no_supervised_option() -> None:
    """o4-mini is tuned by graders alone, and stands beside no candidate."""
    prices = shipped()
    assert prices.price["openai/o4-mini"]["training_reinforcement"].unit == "hour"
    assert "openai/o4-mini" not in prices.tunable()


def test_residency_leaves_the_providers_that_can_be_confined_to_the_region(tmp_path: Path) -> None:
    """By the region lists; a provider that the list says nothing of is out."""
    assert shipped().tunable("EU") == ["azure/gpt-4.1"]
    assert shipped().tunable("us") == ["azure/gpt-4.1", "bedrock/nova-micro"]
    assert shipped().tunable("mars") == []
    mine = overlaid(tmp_path, '[price."ours/m"]\ntraining = { amount = 1, unit = "1M tokens", source = "openai-tuning" }\n')
    assert "ours/m" in mine.tunable()
    assert "ours/m" not in mine.tunable("eu")


@pytest.mark.parametrize(
    ("provider", "model", "offer"),
    [
        ("openai", "gpt-4.1-mini-2025-04-14", "openai/gpt-4.1-mini"),
        ("openai", "GPT-4.1", "openai/gpt-4.1"),
        ("openai", "ft:gpt-4.1-mini-2025-04-14:org::id", "openai/gpt-4.1-mini"),
        ("azure", "gpt-4.1-2025-04-14", "azure/gpt-4.1"),
        ("bedrock", "amazon.nova-micro-v1:0:128k", "bedrock/nova-micro"),
        ("bedrock", "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0:128k", "bedrock/nova-micro"),
        ("vertex", "gemini-2.5-flash-001", "vertex/gemini-2.5-flash"),
        ("vertex", "publishers/google/models/gemini-2.5-flash", "vertex/gemini-2.5-flash"),
        ("together", "Qwen/Qwen3.5-9B", "together/qwen3.5-9b"),
        ("together", "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference", "together/model-up-to-16b"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Reference", "together/model-up-to-100b"),
        ("fireworks", "accounts/fireworks/models/llama-v3p1-8b-instruct", "fireworks/model-up-to-16b"),
        ("fireworks", "accounts/fireworks/models/qwen2p5-0p5b-instruct", "fireworks/model-up-to-16b"),
        ("fireworks", "accounts/fireworks/models/mixtral-8x7b", "fireworks/model-up-to-80b"),
        ("fireworks", "accounts/fireworks/models/qwen3-30b-a3b", "fireworks/model-up-to-80b"),
    ],
)
def test_a_models_entry_is_the_longest_that_names_it_or_its_size_class(provider: str, model: str, offer: str) -> None:
    """However the provider spells the model: with a date, a version, a vendor, a path."""
    assert offer_of(provider, model, shipped()) == offer


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4.1-nano-2025-04-14"),
        ("vertex", "gemini-2.5-flash-lite"),
        ("bedrock", "amazon.nova-2-micro-v1:0"),
        ("fireworks", "accounts/fireworks/models/kimi-k2-instruct"),
        ("together", "deepseek-ai/DeepSeek-V3-671B"),
        ("vertex", "gpt-4.1"),
    ],
)
def test_a_model_without_an_entry_is_never_billed_by_anothers(provider: str, model: str) -> None:
    """A near name is not the name, and the message says what to add and where."""
    with pytest.raises(SpecError, match=r'Add \[price\."') as caught:
        offer_of(provider, model, shipped())
    assert model in str(caught.value)
    assert "use.prices" in str(caught.value)


def test_a_models_own_entry_has_the_rest_from_its_size_class(tmp_path: Path) -> None:
    """A user's price of prompts is completed by training and hosting; a model without a size in its name is left as it is."""
    prices = overlaid(
        tmp_path,
        '[price."together/llama-3.1-8b"]\ninput = { amount = 0.2, unit = "1M tokens", source = "openai-tuning" }\n'
        '[price."together/kimi"]\ninput = { amount = 0.2, unit = "1M tokens", source = "openai-tuning" }\n',
    )
    assert set(prices.price["together/llama-3.1-8b"]) == {"input", "training", "hosting"}
    assert set(prices.price["together/kimi"]) == {"input"}
    assert "together/llama-3.1-8b" in prices.tunable()


def test_of_size_classes_one_is_compared_with() -> None:
    """The smallest, and none where the provider's models are listed by name: a comparison has one line a model."""
    assert [offer for offer in shipped().tunable() if "model-up-to" in offer] == ["fireworks/model-up-to-16b"]


def test_each_meter_has_a_unit() -> None:
    """A meter without one could not be checked."""
    assert all(UNITS.values())
