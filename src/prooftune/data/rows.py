"""One row: from the bytes of a JSON object, or from a mapping, to compact JSON, or to the flaw that rejects it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec

from prooftune.data.streams import Flaw

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_NUL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def encode_object(fields: Mapping[str, object]) -> bytes | Flaw:
    """Write a mapping as compact JSON; dates become ISO 8601 strings, NaN becomes null.

    NaN is what pandas writes into a Parquet file for a missing value; a *JSON* row with NaN never gets here.
    """
    try:
        data = _encode(fields)
    except UnicodeEncodeError:
        return _LONE_SURROGATE
    except (TypeError, NotImplementedError, OverflowError, RecursionError) as error:
        return Flaw("wrong-type", f"holds a value that JSON has no form for ({error}); drop that column")
    if b"\\" in data and _NUL_ESCAPE.search(data):
        return _NUL
    return data


def parse_object(line: bytes, depth: int) -> bytes | Flaw:
    """Check the JSON text of one row against every rule and return it as compact JSON.

    Rules: UTF-8; strict JSON (no NaN, no lone surrogates); an object; no key twice; no NUL; nested at most ``depth`` deep.
    """
    if line.count(b"{") + line.count(b"[") > depth and (found := nesting(line)) > depth:
        return Flaw("nested-too-deep", f"is nested {found:,} deep; at most {depth} is allowed")
    try:
        fields = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return explain(line)
    if type(fields) is not dict:
        return Flaw("wrong-type", f"is {_NAMES[type(fields)]}; a record must be a JSON object")
    data = encode_object(fields)
    # The parser keeps the last of two equal keys and drops the other: then the compact form has fewer quotes.
    # A quote written as \u0022 would upset that count, so such a line is always looked at closely.
    suspicious = isinstance(data, bytes) and (line.count(b'"') != data.count(b'"') or (b"\\" in line and b"\\u0022" in line))
    if suspicious and _repeats_a_key(line):
        return Flaw("repeated-key", "has a key twice in one object, and readers disagree on which value counts; keep one")
    return data


_NAMES = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "true or false", type(None): "null"}
_LONE_SURROGATE = Flaw(
    "lone-surrogate", "holds half of a surrogate pair (\\ud800 to \\udfff), which is no character; export it again as UTF-8"
)
_NUL = Flaw("nul", "holds a NUL character; remove it")


def nesting(line: bytes) -> int:
    """Depth of objects and lists in a JSON text, right for any bytes and without recursion."""
    depth = deepest = 0
    for match in _BRACKET.finditer(_STRING.sub(b"", line)):
        depth += 1 if match[0] in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def explain(line: bytes) -> Flaw:
    """Say why the fast parser refused a line. Slow and thorough: only for lines that are known to be broken."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return Flaw("not-utf-8", f"is not UTF-8 at byte {error.start + 1} (0x{line[error.start]:02x}); save the file as UTF-8")
    if "\x00" in text:
        return _NUL
    try:
        # Without the line end, which the parser would take for a stray character in a string that is cut off.
        json.loads(text.rstrip("\r\n"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return _broken(error, last=not line.endswith(b"\n"))
    except RecursionError:
        return Flaw("nested-too-deep", "is nested too deep for the parser")
    except _NotFiniteError:
        return Flaw("not-finite", "holds NaN or Infinity, which JSON does not have; write null or a number")
    except ValueError:  # an integer of more than 4,300 digits
        return _OUT_OF_RANGE
    return _LONE_SURROGATE if re.search(r"\\u[dD][89a-fA-F]", text) else _OUT_OF_RANGE


_OUT_OF_RANGE = Flaw("out-of-range", "holds a number beyond the range of a double; write it as a string")


CUT_OFF = "at the end of the file: the file is cut off"
"""End of the reason for the last row of a file that is still being written, or was never written to its end."""


def _broken(error: json.JSONDecodeError, *, last: bool) -> Flaw:
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string"):
        why = CUT_OFF if last else "inside an object, a list or a string: the row is cut off"
        return Flaw("broken-line", f"breaks off after {len(error.doc):,} characters, {why}")
    return Flaw("broken-line", f"is not JSON: {error.msg.lower().removesuffix(' at')} at character {error.pos + 1}")


class _NotFiniteError(ValueError):
    pass


def _refuse_constant(name: str) -> object:
    raise _NotFiniteError(name)


class _RepeatedKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, object]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _RepeatedKeyError


def _repeats_a_key(line: bytes) -> bool:
    try:
        json.loads(line, object_pairs_hook=_unique)
    except _RepeatedKeyError:
        return True
    return False
