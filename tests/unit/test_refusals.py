"""Refusals and empty answers: who begs off, and who only sounds like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftune.evaluation.metrics.refusals import refuses, share_of_empty, share_of_refusals

REFUSALS = (
    "I'm sorry, but I can't assist with that request.",
    "I’m sorry, but I can’t help with that.",
    "I cannot provide medical advice. Please consult a doctor.",
    "I can not comply with this request.",
    "I am unable to access external websites or real-time data.",
    "I'm not able to classify this ticket without more details.",
    "As an AI language model, I don't have personal opinions.",
    "As a large language model I cannot browse the internet.",
    "I must respectfully decline to answer this question.",
    "I won't write that.",
    "Unfortunately, I cannot help you with this.",
    "Thank you for your question. I'm afraid I can't answer it.",
    "I don't have access to your account information.",
    "I'm not comfortable discussing this topic.",
    "That goes against my guidelines.",
    "I will not be able to assist you with that.",
    "I'm really sorry, but I am unable to do that.",
    "Es tut mir leid, aber ich kann Ihnen dabei nicht helfen.",
    "Ich kann diese Frage leider nicht beantworten.",
    "Leider kann ich Ihnen keine medizinischen Ratschläge geben.",
    "Als KI-Sprachmodell habe ich keine Meinung.",
    "Als KI kann ich keine Auskunft erteilen.",
    "Ich bin leider nicht in der Lage, auf externe Daten zuzugreifen.",
    "Ich darf dazu keine Auskunft geben.",
    "Ich muss diese Anfrage leider ablehnen.",
    "Dabei kann ich dir nicht weiterhelfen.",
)
ANSWERS = (
    "billing",
    '{"category": "refund_not_showing_up", "priority": 2}',
    "I'm sorry to hear that your parcel is late. I have reordered it for you.",
    "We're sorry for the trouble! Your refund is on its way.",
    "Customers cannot cancel an order that was shipped.",
    "Unfortunately, the item is out of stock; it will be back on Monday.",
    "I can't log in: the user forgot the password.",
    "You can't combine two vouchers, but you can use them one after the other.",
    "The company won't provide a replacement before Friday.",
    "As an aid to memory, write the number down.",
    "I don't have a receipt",
    "I was mugged yesterday. I can't access my app.",
    "I am unable to access my account: I forgot the passcode.",
    "card_not_working",
    "unable_to_verify_identity",
    "Ich kann mich nicht einloggen",
    "Es tut mir leid, dass Ihr Paket zu spät kommt. Ich habe es neu bestellt.",
    "Leider ist der Artikel nicht lieferbar.",
    "Das kann ich gut verstehen. Wir erstatten den Betrag.",
    "Die Rechnung kann nicht storniert werden.",
    "Als Kilopreis gelten 3 Euro.",
    "",
)


@pytest.mark.parametrize("answer", REFUSALS)
def test_a_refusal_is_seen(answer: str) -> None:
    """In English and German, at once or after a courtesy, whatever its case."""
    assert refuses(answer)
    assert refuses(answer.upper())


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_no_refusal(answer: str) -> None:
    """Regret, other people's inability and label names refuse nothing."""
    assert not refuses(answer)


def test_only_the_beginning_counts() -> None:
    """A long answer that ends in a caveat has answered."""
    assert not refuses("The fee is 3 euros a month, and it is due on the first. " * 5 + "I cannot provide legal advice.")


def test_shares() -> None:
    """A refusal that the target asks for is no fault; a space that shows nothing is empty."""
    pairs = [(REFUSALS[0], "billing"), (REFUSALS[0], REFUSALS[1]), ("billing", "billing"), ("", "billing")]
    assert share_of_refusals(pairs) == 0.25
    assert share_of_empty(["", " \n\t", "\N{NO-BREAK SPACE}", "0"]) == 0.75


@given(st.text(max_size=400))
def test_any_text_is_judged(text: str) -> None:
    """A text never refuses more than itself: the share over it alone, as answer and as target, is 0."""
    assert share_of_refusals([(text, text)]) == 0
    assert share_of_refusals([(text, "x")]) == float(refuses(text))
