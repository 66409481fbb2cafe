"""Personal data in text: e-mail addresses, phone numbers (international, US, UK, German, French), IBANs, card numbers.

Precision counts as much as recall: IBANs and cards must pass their checksums, a phone number must be spelled like one, and digits after a
word such as *order*, *invoice* or *Bestellnummer* are no phone number unless they start with ``+``. Names and addresses are not looked for.

Redaction is idempotent, and a text that is JSON stays JSON: there it works on the strings and numbers one by one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Literal

Kind = Literal["email", "phone", "iban", "card"]

PLACEHOLDERS: dict[Kind, str] = {"email": "[EMAIL]", "phone": "[PHONE]", "iban": "[IBAN]", "card": "[CARD]"}


def redact(text: str) -> tuple[str, dict[Kind, int]]:
    """Put ``[EMAIL]``, ``[PHONE]``, ``[IBAN]`` and ``[CARD]`` in the place of personal data and count it, by the kinds that occur."""
    counts: Counter[Kind] = Counter()
    if "@" in text or _DIGITS.search(text):
        text = _redact_json(text, counts) if _is_json(text) else _redact_text(text, "", counts)
    return text, dict(counts)


_DIGITS = re.compile(r"\d(?:[^\d\n]{0,5}\d){6}")
"""Cheap look before the real patterns: everything but an e-mail address has seven digits close together."""
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|-?\d[\d.eE+-]*')


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _redact_json(text: str, counts: Counter[Kind]) -> str:
    """Redact strings and numbers until nothing is left to find: what one becomes is context to the next."""

    def token(match: re.Match[str]) -> str:
        raw = match[0]
        plain = json.loads(raw) if raw[0] == '"' else raw
        redacted = _redact_text(plain, text[max(0, match.start() - _CONTEXT) : match.start()], counts)
        return raw if redacted == plain else json.dumps(redacted, ensure_ascii=False)

    while (redacted := _JSON_TOKEN.sub(token, text)) != text:
        text = redacted
    return text


def _redact_text(text: str, before: str, counts: Counter[Kind]) -> str:
    """Redact until nothing is left to find: a placeholder can complete the surroundings of the next number."""
    while True:
        start = text
        emails = _EMAILS if "@" in text else ()
        numbers = _NUMBERS if _DIGITS.search(text) else ()
        for kind, pattern, keep in emails + numbers:
            text = _replace(text, before, kind, pattern, keep, counts)
        if text == start:
            return text


def _replace(
    text: str, before: str, kind: Kind, pattern: re.Pattern[str], keep: Callable[[str, str], str | None], counts: Counter[Kind]
) -> str:
    def one(match: re.Match[str]) -> str:
        context = (before + text[max(0, match.start() - _CONTEXT) : match.start()])[-_CONTEXT:]
        found = keep(match[0], context)
        if found is None:
            return match[0]
        counts[kind] += 1
        return match[0].replace(found, PLACEHOLDERS[kind], 1)

    return pattern.sub(one, text)


_CONTEXT = 40
"""Characters before a number that are looked at for words which say what it is."""

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+%'-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])")

# Lengths by country: ISO 13616 registry, the countries of SEPA and their neighbours.
_IBAN_LENGTHS = {
    country: length
    for length, countries in (
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI NL"),
        (19, "MK SI"),
        (20, "AT BA EE LT LU XK"),
        (21, "CH HR LI LV"),
        (22, "BG DE GB GE IE ME RS VA"),
        (23, "AE GI IL"),
        (24, "AD CZ ES MD RO SA SE SK"),
        (25, "PT"),
        (26, "IS TR"),
        (27, "FR GR IT MC SM"),
        (28, "AL CY HU PL"),
        (29, "UA"),
        (31, "MT"),
    )
    for country in countries.split()
}
# Each pattern begins with a set of characters, which the regex engine skips to; what must not stand before it follows, as (?<!….).
_IBAN = re.compile(r"[A-Za-z](?<![A-Za-z0-9].)[A-Za-z]\d\d(?:[ \u00a0]?[A-Za-z0-9]){11,34}")

_CARD = re.compile(r"[2-6](?<![\w.-].)(?:\d{3}([ \u00a0-]?)\d{4}\1\d{4}\1\d{4}|(?<=3)\d{3}([ \u00a0-]?)\d{6}\2\d{5})(?![\w-])(?![.,]\d)")
_CARD_PREFIX = re.compile(r"4|5[1-5]|2[2-7]|3[47]|35|6011|64|65|62")

_GAP = r"(?:[ \u00a0]?[-./–][ \u00a0]?|[ \u00a0]?\(0\)[ \u00a0]?|[ \u00a0]?\(|\)[ \u00a0]?[-./]?[ \u00a0]?|[ \u00a0])"
_BEGINS = r"(?<![\w+#@/\\].)(?<!\d[.,:-].)(?<!\w[-_].)(?<!\d\d\d[ \u00a0].)"
# The number does not go on after its end (another one may follow a space), and no amount of money or percentage ends there.
_ENDS = (
    r"(?!\w)(?![-/.,:]\d)(?!-\w)(?![ \u00a0](?!0[1-9]\d)\d{3})"
    r"(?![ \u00a0]?(?:[€$£%]|(?:EUR|USD|GBP|CHF|Euro|euros?|dollars?|pounds?)\b))"
)
_INTERNATIONAL = re.compile(rf"[+(0]{_BEGINS}(?:(?<=\+)|(?<=0)0|(?<=\()(?:\+|00))[1-9](?:{_GAP}?\d){{6,14}}{_ENDS}")
_NATIONAL = re.compile(rf"[(0]{_BEGINS}(?:(?<=0)|(?<=\()0)[1-9](?:{_GAP}?\d){{7,10}}{_ENDS}")
_AREA = r"(?:\([2-9]\d\d\)[ .-]?|[2-9]\d\d[ .-])"
_AMERICAN = re.compile(rf"[(1-9]{_BEGINS}(?:(?<=1)[ .-]{_AREA}|(?<=\()[2-9]\d\d\)[ .-]?|(?<=[2-9])\d\d[ .-])\d{{3}}[ .-]\d{{4}}{_ENDS}")
_AFTER_CUE = re.compile(rf"[(\d]{_BEGINS}(?:(?<=\d)|\d)(?:{_GAP}?\d){{6,13}}{_ENDS}")

_CUE = re.compile(
    r"(?:(?<!\[)\b(?:tel|phone|telephone|cell|mobile|fax|whatsapp|call|dial|ring|text|mobil|handy|ruf|anruf|rückruf|hotline)"
    r"|(?<!\[)\b\w*(?:telefon|phone_?number|rufnummer|handynummer|mobilnummer|mobilfunk|phone)\w*)"
    r"\W{0,4}(?:(?:no|nr|number|nummer|num|is|ist|lautet|unter|on|me|us|him|her|at|back|an)\b\W{0,4}){0,4}$",
    re.IGNORECASE,
)
_OTHER_CUE = re.compile(
    r"(?:\b(?:order|invoice|ticket|case|ref|reference|sku|serial|part|model|build|version|error|code|id|tracking|account|customer|item|batch|lot)"
    r"|\b\w*(?:bestell|rechnung|auftrag|kunden|sendung|artikel|vorgang|vertrag|serien|fehler|konto|_id)\w*)"
    r"\W{0,4}(?:(?:no|nr|number|nummer|num|id|code|is|ist|lautet)\b\W{0,4}){0,3}$",
    re.IGNORECASE,
)
_DATE = re.compile(r"(?<!\d)(?:(?:19|20)\d\d([-/.])(?:0?[1-9]|1[0-2])\1[0-3]?\d|[0-3]?\d([-/.])(?:0?[1-9]|1[0-2])\2(?:19|20)\d\d)(?!\d)")
_DOTTED_QUAD = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_MOBILE = re.compile(r"01[567]\d{8,9}|07\d{9}")


def _email(found: str, context: str) -> str | None:
    return found


def _iban(found: str, context: str) -> str | None:
    length, taken, end = _IBAN_LENGTHS.get(found[:2].upper(), 0), 0, 0
    while taken < length and end < len(found):
        taken += found[end].isalnum()
        end += 1
    compact = "".join(char for char in found[:end] if char.isalnum()).upper()
    if not length or taken < length or found[end : end + 1].isalnum():
        return None
    return found[:end] if int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1 else None


def _card(found: str, context: str) -> str | None:
    digits = [int(char) for char in found if char.isdecimal()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    if not _CARD_PREFIX.match(found) or (sum(doubled) + sum(digits[-1::-2])) % 10:
        return None
    return found


def _phone_international(found: str, context: str) -> str | None:
    digits = re.sub(r"\D", "", found)
    if "+" not in found and (_OTHER_CUE.search(context) or (found == digits and len(digits) < 12)):
        return None
    return _balanced(found) if len(digits) >= 8 else None


def _phone_national(found: str, context: str) -> str | None:
    groups = re.findall(r"\d+", found)
    pairs = len(groups) == 5 and all(len(group) == 2 for group in groups)
    spelled = len(groups) > 1 and 3 <= len(groups[0]) <= 6 and len(groups) <= 6
    if not (pairs or spelled or _MOBILE.fullmatch(found)) or not _plausible(found, context):
        return None
    return _balanced(found)


def _phone_american(found: str, context: str) -> str | None:
    return _balanced(found) if _plausible(found, context) else None


def _phone_after_cue(found: str, context: str) -> str | None:
    return _balanced(found) if _CUE.search(context) and _plausible(found, context) else None


def _plausible(found: str, context: str) -> bool:
    return not (_DATE.search(found) or _DOTTED_QUAD.fullmatch(found) or _OTHER_CUE.search(context))


def _balanced(found: str) -> str:
    return found[1:] if found.startswith("(") and ")" not in found else found


_Pattern = tuple[Kind, re.Pattern[str], Callable[[str, str], str | None]]
_EMAILS: tuple[_Pattern, ...] = (("email", _EMAIL, _email),)
_NUMBERS: tuple[_Pattern, ...] = (
    ("iban", _IBAN, _iban),
    ("card", _CARD, _card),
    ("phone", _INTERNATIONAL, _phone_international),
    ("phone", _NATIONAL, _phone_national),
    ("phone", _AMERICAN, _phone_american),
    ("phone", _AFTER_CUE, _phone_after_cue),
)
