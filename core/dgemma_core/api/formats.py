"""The formats of strings that JSON Schemas name, as regular expressions for whole texts.

Validators and parsers take a text that matches: Pydantic, Python's ``datetime``, ``ipaddress`` and ``uuid``, and
checkers of RFC 3339, 3986 and 5321. Where parsers take less than the standards, the table does too: it has no leap
seconds, no year 0, and no endless durations. Other formats are annotations, as JSON Schema says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Format(NamedTuple):
    """A format.

    Attributes:
        pattern: a regular expression for whole texts, without anchors.
        sample: a short text that fits.
        longest: characters at most; None if the pattern says all.
    """

    pattern: str
    sample: str
    longest: int | None = None


def _runs(character: str, separator: str, most: int) -> str:
    """Up to six runs of characters with single separators between them, ``most`` characters together."""
    lengths = [(n, (most - n) // (n + 1)) for n in range(6)]
    return "|".join(f"{character}{{1,{k}}}(?:{separator}{character}{{1,{k}}}){{{n}}}" for n, k in lengths)


def _other_than(words: Iterable[str], first: str, more: str) -> str:
    """Names other than ``words``, in either case.

    Args:
        words: lower-case letters only.
        first: members of the set of a name's first character; lower-case letters come as ranges.
        more: members of the set of its other characters.
    """

    def tail(endings: set[str], members: str, begun: bool) -> str:
        heads = sorted({ending[0] for ending in endings if ending})
        others = "".join(c for c in "abcdefghijklmnopqrstuvwxyz" if c not in heads)
        options = [f"[{others}{others.upper()}{members}][A-Za-z{more}]*"]
        options += [
            f"[{head}{head.upper()}](?:{tail({e[1:] for e in endings if e[:1] == head}, more, True)})" for head in heads
        ]
        # The name may end here, unless it is one of the words.
        return "|".join(options) + ("|" if begun and "" not in endings else "")

    return tail(set(words), first, False)


_LEAP_YEAR = "[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00"
_YEAR = "[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000"
_DAY = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8])"
_DATE = f"(?:(?:{_YEAR})-(?:{_DAY})|(?:{_LEAP_YEAR})-02-29)"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
# Few digits: a duration may not exceed 999,999,999 days.
_DAYTIME = "T(?:[0-9]{1,6}H(?:[0-9]{1,6}M(?:[0-9]{1,6}S)?)?|[0-9]{1,6}M(?:[0-9]{1,6}S)?|[0-9]{1,6}S)"
_DAYS = "[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,6}D)?)?|[0-9]{1,4}M(?:[0-9]{1,6}D)?|[0-9]{1,6}D"
_DURATION = f"P(?:[0-9]{{1,6}}W|(?:{_DAYS})(?:{_DAYTIME})?|{_DAYTIME})"

_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_HEX = "[0-9A-Fa-f]{1,4}"
_IPV6 = (
    f"(?:{_HEX}:){{7}}{_HEX}|"
    + "|".join(f"(?:{_HEX}:){{{n}}}(?::{_HEX}){{1,{7 - n}}}" for n in range(1, 7))
    + f"|:(?::{_HEX}){{1,7}}|(?:{_HEX}:){{1,7}}:|::"
)

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
# Labels of e-mail addresses have no two hyphens in a row, as if they were encoded. The last one ends with a letter.
_MAIL_LABEL = f"(?:{_runs('[A-Za-z0-9]', '-', 63)})"
_MAIL_USER = _runs("[A-Za-z0-9!#$%&'*+/=?^_{|}~-]", r"\.", 64)
_EMAIL = rf"(?:{_MAIL_USER})@(?:{_MAIL_LABEL}\.)+(?:[A-Za-z0-9]{{0,20}}[A-Za-z])"

_UNRESERVED = "A-Za-z0-9._~-"
_PERCENT = "%[0-9A-Fa-f]{2}"
_PATH = rf"(?:[!$&'()*+,;=:@{_UNRESERVED}]|{_PERCENT})"
_REST = rf"(?:/{_PATH}*)*(?:\?(?:[/?]|{_PATH})*)?(?:#(?:[/?]|{_PATH})*)?"
# A name, whose last label is no number, or an address.
_URI_LABEL = "[A-Za-z0-9_](?:-?[A-Za-z0-9_])*"
_URI_HOST = rf"(?:(?:{_URI_LABEL}\.)*[A-Za-z_](?:-?[A-Za-z0-9_])*|{_IPV4}|\[(?:{_IPV6})\])"
_AUTHORITY = rf"(?:(?:[!$&'()*+,;=:{_UNRESERVED}]|{_PERCENT})*@)?{_URI_HOST}(?::(?:[1-5][0-9]{{4}}|[0-9]{{1,4}}))?"
# Schemes whose addresses need a host, and one whose host is usually left out.
_WEB = ("http", "https", "ws", "wss", "ftp")
_SCHEME = _other_than((*_WEB, "file"), "", "0-9+.-")
_URI = (
    f"(?:[hH][tT][tT][pP][sS]?|[wW][sS][sS]?|[fF][tT][pP])://{_AUTHORITY}{_REST}|[fF][iI][lL][eE]://{_REST}|"
    rf"(?:{_SCHEME}):(?://{_AUTHORITY}{_REST}|/?{_PATH}+{_REST})"
)


def _uuid(third: str, fourth: str) -> str:
    return f"[0-9A-Fa-f]{{8}}-[0-9A-Fa-f]{{4}}-{third}-{fourth}-[0-9A-Fa-f]{{12}}"


FORMATS = {
    "date-time": Format(f"{_DATE}T{_TIME}", "2000-01-01T00:00:00Z"),
    "date": Format(_DATE, "2000-01-01"),
    "time": Format(_TIME, "00:00:00Z"),
    "duration": Format(_DURATION, "P1D"),
    "email": Format(_EMAIL, "a@b.co", 254),
    "hostname": Format(_HOST, "a", 253),
    "ipv4": Format(_IPV4, "0.0.0.0"),
    "ipv6": Format(_IPV6, "::1"),
    "uri": Format(_URI, "a:b"),
    "uuid": Format(_uuid("[0-9A-Fa-f]{4}", "[0-9A-Fa-f]{4}"), "00000000-0000-0000-0000-000000000000"),
    "json-pointer": Format("(?:/(?:[^/~]|~[01])*)*", "/"),
    # Pydantic's own names.
    "ipvanyaddress": Format(f"{_IPV4}|{_IPV6}", "::1"),
    **{
        f"uuid{n}": Format(
            _uuid(f"{n}[0-9A-Fa-f]{{3}}", "[89ABab][0-9A-Fa-f]{3}"), f"00000000-0000-{n}000-8000-000000000000"
        )
        for n in range(1, 9)
    },
}
"""By name."""
