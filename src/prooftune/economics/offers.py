"""Which entry of the price list a provider's model is billed by.

The rule: an entry names a model where its own name stands at the beginning of the model's, or behind a ``/``, ``.`` or ``:`` in it, and
what follows says no more than a version: a date, a number, ``v1``, ``latest``, ``instruct``, ``reference``. Of several the longest counts.
So ``gpt-4.1-mini`` names ``gpt-4.1-mini-2025-04-14`` and ``ft:gpt-4.1-mini-2025-04-14:org::id``, ``nova-micro`` names
``amazon.nova-micro-v1:0:128k``, and ``gpt-4.1`` does not name ``gpt-4.1-nano``, which costs something else. Where no entry names the model
and the model says its size (``accounts/fireworks/models/llama-v3p1-8b-instruct``), the provider's smallest class of that size or above
counts: ``model-up-to-16b``.
"""

from __future__ import annotations

import re

from prooftune.economics.prices import PriceList, class_of
from prooftune.errors import SpecError
from prooftune.spec import Provider

_VERSION = re.compile(r"([-@:](\d{4}-\d\d-\d\d|\d+k?|v\d+|default|latest|instruct|reference|base|it|hf))*")


def offer_of(provider: str, model: str, prices: PriceList) -> str:
    """Return the price list's entry for a provider's model.

    Raises:
        SpecError: there is none.
    """
    known = [offer for offer in prices.price if offer.startswith(f"{provider}/")]
    named = [offer for offer in known if names(offer.partition("/")[2], model)]
    found = max(named, key=len) if named else class_of(provider, model, prices.price)
    if found is None:
        listed = ", ".join(known) or "none"
        raise SpecError(
            f"the price list has no entry for {provider}/{model}, so nobody can say what it would cost; it has {listed}. Add "
            f'[price."{provider}/{model}"] with training, input, output, tuned_input and tuned_output to a file, and name it in use.prices'
        )
    return found


def hosted_free(provider: str, options: Provider) -> bool:
    """Whether the place that a tuned model answers from costs nothing by the time: at Azure's developer tier, where it lives for a day.

    Source: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-cost-management.
    """
    return provider == "azure" and options.tier == "developer"


def names(name: str, model: str) -> bool:
    """Whether an entry's name names a provider's model, by the rule above."""
    name, model = name.lower(), model.lower()
    if model.startswith("ft:"):
        model = model.split(":")[1]
    starts = (found.start() for found in re.finditer(re.escape(name), model))
    return any((at == 0 or model[at - 1] in "/.:") and _VERSION.fullmatch(model, at + len(name)) for at in starts)
