"""How languages say what is written shortly: data that no library of ours holds, one table a language.

Number words, names of months, of units of measurement and of most currencies come from Unicode's CLDR
(`number_words`); here is the rest. A language without a table gets `DEFAULT`: its numbers are said as CLDR says them,
and a sign that has no word here is refused rather than left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Money:
    """How amounts of one currency are said."""

    one: str
    """Name after one."""
    many: str
    """Name after any other number."""
    minor: str
    """Name of the hundredths after any number but one."""
    minor_one: str = ""
    """Name of a single one; the same where empty."""
    feminine: bool = False
    """Gender of the name."""


@dataclass(frozen=True, kw_only=True)
class SpokenForms:
    """What one language says for what it writes."""

    titles: Mapping[str, str] = field(default_factory=dict)
    """Abbreviations before a name, which never end a sentence; without regard to case, as are all keys here."""
    abbreviations: Mapping[str, str] = field(default_factory=dict)
    """Abbreviations anywhere."""
    suffixes: Mapping[str, str] = field(default_factory=dict)
    """Ends of words that are abbreviated: `Hauptstr.`"""
    before_number: Mapping[str, str] = field(default_factory=dict)
    """Abbreviations before digits only."""
    after_name: Mapping[str, str] = field(default_factory=dict)
    """Abbreviations after a capitalized word and not before one: `Main St.`"""
    symbols: Mapping[str, str] = field(default_factory=dict)
    """Words of single signs."""
    point: str | None = None
    """The dot within an address or a version."""
    to: str | None = None
    """Between the ends of a range."""
    minus: str | None = None
    """Before a negative number."""
    percent: str | None = None
    """`{n}` percent, where CLDR has only the sign."""
    money: Mapping[str, Money] = field(default_factory=dict)
    """ISO 4217 code → names, where CLDR's full ones are not what people say."""
    amount: str | None = None
    """Major units, and hundredths: `{major} {minor} {cents}`."""
    scales: Mapping[str, str] = field(default_factory=dict)
    """Letters or words behind an amount of money that multiply it."""
    time: str | None = None
    """Hour `{h}` and minutes `{m}`; `{s}` is an s after any hour but one."""
    full_hour: str | None = None
    """Hour `{h}` alone."""
    few_minutes: str = "{m}"
    """Minutes below ten."""
    feminine_hour: bool = False
    """Gender of the hour's number."""
    hour_mark: str | None = None
    """Regular expression of what stands behind a time: `14.30 Uhr`, `14 h`."""
    between: str = ":"
    """Characters between hours and minutes; those other than the colon only before an hour mark."""
    date: str | None = None
    """`{day} {month}`."""
    ordinal_days: bool = False
    """Days of the month are ordinal numbers."""
    first_day: str | None = None
    """The first of a month, where only that is ordinal."""
    ordinal_marks: str | None = None
    """Regular expression of what makes digits an ordinal number."""
    ordinal_forms: Mapping[str, str] = field(default_factory=dict)
    """Regular expression of the word before, or of the mark → ending of the CLDR rule set (`-n` of
    `spellout-ordinal-n`); the first that fits counts."""
    ordinal_leads: frozenset[str] = frozenset()
    """Words after which digits with a dot are an ordinal number and no end of a sentence."""
    fractions: Mapping[str, str] = field(default_factory=dict)
    """`1/2` → word."""
    and_fraction: str | None = None
    """Between a whole number and a fraction."""
    glued: str | None = None
    """Regular expression of endings that are written to the digits and said as one word with them: `90er`."""
    year_shapes: bool = False
    """Four digits alone are said as a year."""
    decades: bool = False
    """`1990s` is a plural."""
    feminine_units: frozenset[str] = frozenset()
    """CLDR units whose name is feminine."""
    apostrophe_parts: bool = False
    """An apostrophe stands between words (`l'eau`), not within one (`don't`)."""
    letters: Mapping[str, str] = field(default_factory=dict)
    """Letters that may be spelled in another way, when a model does not know them."""


DEFAULT = SpokenForms()


def primary(lang: str) -> str:
    """`en` of `en-US` and `EN_gb`."""
    return lang.replace("_", "-").split("-")[0].lower()
