"""Personal data: what is found, what is left alone, and what redaction promises."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftune.data.pii import PLACEHOLDERS, redact

PHONES = """
+1 555 0100
+1 (555) 010-0199
+15550100199
1-800-555-0199
(555) 010-0199
555-010-0199
555.010.0199
+44 20 7946 0958
+44 (0) 7700 900123
020 7946 0958
(020) 7946 0958
07700 900123
07700900123
+49 (0)30 23125-123
+49 30 23125 123
(+49) 30 23125123
0049 30 23125123
(030) 23125-123
030/23125-0
089 / 12 34 56 78
0151 12345678
0151-23456789
0151/12345678
015112345678
01 23 45 67 89
""".strip().splitlines()

OTHERS = """
email|a.b+c@mail.example.com
email|müller@exämple.de
email|x_y@ex-ample.co.uk
iban|DE89 3704 0044 0532 0130 00
iban|DE89370400440532013000
iban|gb82 west 1234 5698 7654 32
iban|NO93 8601 1117 947
card|4111 1111 1111 1111
card|4111-1111-1111-1111
card|5555555555554444
card|3782 822463 10005
card|378282246310005
""".strip().splitlines()

IN_CONTEXT = """
Tel. 23125123 → Tel. [PHONE]
call me at 555-0199 after six → call me at [PHONE] after six
my phone number is 5550100199 → my phone number is [PHONE]
erreichbar unter 0171 1234567 ab 10 Uhr → erreichbar unter [PHONE] ab 10 Uhr
Call 0151 1234567 am 22.11. → Call [PHONE] am 22.11.
030 23125-123 / 0151 12345678 → [PHONE] / [PHONE]
Write to <jo@example.org>, please. → Write to <[EMAIL]>, please.
(+49 30 23125123) → ([PHONE])
phone=+4915112345678&x=1 → phone=[PHONE]&x=1
DE89370400440532013000 USD 30 → [IBAN] USD 30
""".strip().splitlines()

NOT_PERSONAL = """
T-0417
INV-2026-0031
#0151-2345678
order 20260031
order 555-010-0199
order no. 0151 2345678
Bestellnummer 0151 2345678
Rechnungsnr.: 030-123456-7
tracking 0123 456 7890
Sendungsnummer: 0034 0434 1610 9401
00340434161094015902
1Z999AA10123456784
error code 0815 123456
error 0x80070057
ERR-0151-234567
call about order 20260031
call 112
2026-11-22
2026-11-22 1030
2026-11-22T10:30:00+01:00
22.11.2026
01.02.2026 10:30
01/02/2026 10
10:30 - 11:45
09.00 - 17.00
1.234.567,89 EUR
$1,234,567.89
+20 000 000 EUR
up 300 % to 1200000
version 10.0.22631.4602
v1.2.3-4567890
build 20261122.1
192.168.100.100
550e8400-e29b-41d4-a716-446655440000
01512345-1234-4123-8123-123456789012
978-3-16-148410-0
4006381333931
4111 1111 1111 1112
DE89 3704 0044 0532 0130 01
XX89 3704 0044 0532 0130 00
@handle and a@b
50.1109 8.6821
1732300000
0123456789
in 2025 2026 and 2027
port 8080 8443 9090
https://shop.example/0151-2345678
""".strip().splitlines()


@pytest.mark.parametrize("number", PHONES)
def test_phone_numbers_of_many_spellings_are_found(number: str) -> None:
    """A phone number goes as a whole, and the words around it stay."""
    assert redact(f"Please ring {number}, thanks") == ("Please ring [PHONE], thanks", {"phone": 1})
    assert redact(number) == ("[PHONE]", {"phone": 1})


@pytest.mark.parametrize("line", OTHERS)
def test_addresses_accounts_and_cards_are_found(line: str) -> None:
    """E-mail addresses, IBANs and card numbers with a right checksum are replaced by their kind."""
    kind, text = line.split("|")
    assert redact(f"It is {text}.") == (f"It is {PLACEHOLDERS[kind]}.", {kind: 1})


@pytest.mark.parametrize("line", IN_CONTEXT)
def test_context_decides_and_survives(line: str) -> None:
    """Words before a number can make it a phone number; all the text around stays as it was."""
    before, after = line.split(" → ")
    assert redact(before)[0] == after


@pytest.mark.parametrize("text", NOT_PERSONAL)
def test_other_numbers_are_left_alone(text: str) -> None:
    """Ids, dates, times, amounts, versions, codes and wrong checksums are not personal data."""
    assert redact(text) == (text, {})
    assert redact(f"So: {text}, right?") == (f"So: {text}, right?", {})


def test_json_stays_json_and_keeps_its_form() -> None:
    """In JSON the strings and numbers are redacted one by one; escapes are understood, spacing is kept."""
    text = '{ "phone": "(030) 23125-123",\n "card":4111111111111111, "order_id": "0151 2345678", "note": "a\\n\\u0061@b.de" }'
    redacted, counts = redact(text)
    assert redacted == '{ "phone": "[PHONE]",\n "card":"[CARD]", "order_id": "0151 2345678", "note": "a\\n[EMAIL]" }'
    assert counts == {"phone": 1, "card": 1, "email": 1}


def test_a_key_of_json_is_context() -> None:
    """A bare number under the key ``phone`` is one."""
    assert json.loads(redact('{"phone": 5550100199, "id": 5550100199}')[0]) == {"phone": "[PHONE]", "id": 5550100199}


def test_a_placeholder_is_no_context() -> None:
    """``[PHONE]`` does not make the next number a phone number."""
    assert redact('{"+1 555 0100": 1000000}')[0] == '{"[PHONE]": 1000000}'


PIECES = st.sampled_from(
    [*PHONES, *(line.split("|")[1] for line in OTHERS), *NOT_PERSONAL, " ", "/", "-", "(", ")", "0", "+", ",", "@", ".", "tel "]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=8).map("".join)


@given(TEXTS)
def test_redaction_is_idempotent(text: str) -> None:
    """What is redacted holds nothing more to find."""
    redacted, _ = redact(text)
    assert redact(redacted) == (redacted, {})


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS), lambda inner: st.lists(inner, max_size=3)
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4), st.booleans())
def test_json_remains_json(value: dict[str, object], ascii_only: bool) -> None:
    """A JSON object is one afterwards, and redaction of it is idempotent."""
    redacted, _ = redact(json.dumps(value, ensure_ascii=ascii_only))
    assert isinstance(json.loads(redacted), dict)
    assert redact(redacted) == (redacted, {})


@pytest.mark.parametrize("piece", ["a", "1", "1 ", "a.", "a@", "x@a.", "0", "(", "01-", "DE12 ", "+1 ", "Tel ", "["])
def test_long_text_takes_linear_time(piece: str) -> None:
    """No repeated piece makes the patterns backtrack without end (200,000 characters in well under the limit)."""
    redact(piece * (200_000 // len(piece)))
