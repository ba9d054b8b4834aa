"""Numbers in words, and the names of months, units and currencies, for every language that Unicode's CLDR knows.

Words of numbers are CLDR's rule-based number formats (UTS 35, part 3, section 9), which `unicode-rbnf` carries out;
`babel` knows how a language writes numbers and dates, and its names.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.normalization.languages import primary

LONGEST = 15
"""Most digits of a number that is said as one; longer ones are said digit by digit."""
PREFERRED = {"zh": "spellout-cardinal", "yue": "spellout-cardinal", "fr": "spellout-cardinal-masculine"}
"""Rule sets for counting where `spellout-numbering` is not what people say."""
POINTS = {"ja": "点", "pl": " przecinek ", "ru": " запятая "}
"""Decimal points where CLDR's rules have no word of their own."""
JOINED = frozenset({"zh", "ja", "yue", "ko", "th", "lo", "km", "my"})
"""Languages whose number words stand without spaces."""
REMEDY = 'install it with `pip install "unitok[text]"`, or give words, one sentence at a time'


def needed(name: str) -> Any:
    """Import a library of text normalization; InputError with the remedy where it is not installed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"this text needs the package {error.name}, which is not installed; {REMEDY}") from error


class NumberWords:
    """One language's numbers and names. All methods return None where CLDR has nothing for it."""

    def __init__(self, lang: str) -> None:
        self.lang = primary(lang)
        core = needed("babel.core")
        try:
            self.locale: Any = core.Locale.parse(lang.replace("-", "_"))
        except (core.UnknownLocaleError, ValueError):
            try:
                self.locale = core.Locale.parse(self.lang)
            except (core.UnknownLocaleError, ValueError):
                self.locale = None
        engine = needed("unicode_rbnf").RbnfEngine
        known = self.lang in engine.get_supported_languages()
        self.engine: Any = engine.for_language(self.lang) if known else None

    # -- numbers ------------------------------------------------------------------------------------------------

    @property
    def counts(self) -> bool:
        """Whether it has words for numbers."""
        return self.engine is not None

    def _rules(self, *names: str) -> str | None:
        return next((name for name in names if self.counts and name in self.engine.rulesets), None)

    def _say(self, number: str, rules: str | None) -> str | None:
        if not self.counts:
            return None
        library = needed("unicode_rbnf.engine")
        try:
            return self.engine.format_number(number, ruleset_names=[rules] if rules else None).text
        except (library.RbnfError, ValueError, ArithmeticError):
            return None

    def cardinal(self, number: str, *, gender: str | None = None) -> str | None:
        """`-3.14` (digits with a point, perhaps a minus) in words: for counting, or before a noun of a gender."""
        if number.startswith("-"):
            said = self.cardinal(number[1:], gender=gender)
            return None if said is None or self._minus is None else f"{self._minus}{said}"
        whole, point, fraction = number.partition(".")
        if point:
            parts = (self._whole(whole, None), self._point, self.digits(fraction))
            return None if None in parts else "".join(part or "" for part in parts)
        return self._whole(whole, gender)

    def _whole(self, number: str, gender: str | None) -> str | None:
        if len(number) > LONGEST:
            return self.digits(number)
        counting = self._rules(PREFERRED.get(self.lang, ""), "spellout-numbering", "spellout-cardinal")
        rules = counting if gender is None else self._rules(f"spellout-cardinal-{gender}") or counting
        return self._say(number, rules)

    @cached_property
    def _minus(self) -> str | None:
        """What stands before a negative number, its space included."""
        three, minus = self._whole("3", None), self._say("-3", None)
        return minus.removesuffix(three) if three and minus and minus.endswith(three) else None

    @cached_property
    def _point(self) -> str | None:
        """What stands between a whole number and its decimals, spaces included."""
        if self.lang in POINTS:
            return POINTS[self.lang]
        three, both = self._whole("3", None), self._say("3.3", None)
        fits = three and both and both.startswith(three) and both.endswith(three) and len(both) > 2 * len(three)
        return both[len(three) : -len(three)] if fits and three and both else None

    def ordinal(self, number: str, ending: str = "") -> str | None:
        """The ordinal number of digits; `ending` names a form, such as `-n` or `-feminine`."""
        rules = self._rules(f"spellout-ordinal{ending}", "spellout-ordinal", "spellout-ordinal-masculine")
        return self._say(number, rules) if rules and len(number) <= LONGEST else None

    def year(self, number: str) -> str | None:
        """The year of four digits."""
        if self.lang in ("zh", "ja", "yue"):
            return self.digits(number)
        if self.lang == "en" and re.fullmatch(r"[12]\d0[1-9]", number) and not number.startswith("200"):
            century = self.cardinal(number[:2])  # CLDR leaves the zero out: nineteen five
            return f"{century} oh {self.cardinal(number[3])}"
        if self.lang in ("fr", "nl"):  # CLDR has neither's usual form
            hundreds = self.lang == "nl" and number[1] != "0"
            if not hundreds:
                return self.cardinal(number)
            rest = self.cardinal(number[2:]) if number[2:] != "00" else "honderd"
            return f"{self.cardinal(number[:2])} {rest}"
        return self._say(number, self._rules("spellout-numbering-year")) or self.cardinal(number)

    def digits(self, text: str) -> str | None:
        """Every digit of a text by itself; what is no digit is left out."""
        said = [self.cardinal(character) for character in text if character.isdecimal()]
        if any(one is None for one in said):
            return None
        return ("" if self.lang in JOINED else " ").join(one or "" for one in said)

    # -- how the language writes -----------------------------------------------------------------------------------

    @cached_property
    def decimal(self) -> str:
        """Its decimal separator."""
        return needed("babel.numbers").get_decimal_symbol(self.locale) if self.locale else "."

    @cached_property
    def group(self) -> str:
        """Its thousands separator."""
        return needed("babel.numbers").get_group_symbol(self.locale) if self.locale else ","

    @cached_property
    def date_order(self) -> str:
        """Order of day, month and year in numeric dates: `dmy`, `mdy` or `ymd`."""
        if self.locale is None:
            return "dmy"
        pattern = needed("babel.dates").get_date_format("short", self.locale).pattern.lower()
        return "".join(sorted("dmy", key=pattern.index))

    @cached_property
    def dotted_dates(self) -> bool:
        """Whether numeric dates are written with dots."""
        return self.locale is None or "." in needed("babel.dates").get_date_format("short", self.locale).pattern

    @cached_property
    def months(self) -> dict[str, int]:
        """Names of months and their abbreviations in lower case → 1 to 12."""
        if self.locale is None:
            return {}
        dates, found = needed("babel.dates"), dict[str, int]()
        for width in ("abbreviated", "wide"):
            for context in ("format", "stand-alone"):
                for number, name in dates.get_month_names(width, context, self.locale).items():
                    if not name[0].isdigit():
                        found[name.lower().rstrip(".")] = number
        return found

    def month(self, number: int) -> str | None:
        """Name of a month, as in a date."""
        if self.locale is None:
            return None
        return needed("babel.dates").get_month_names("wide", "format", self.locale)[number]

    # -- names ------------------------------------------------------------------------------------------------------

    def unit(self, number: str, unit: str, gender: str) -> str | None:
        """A number of CLDR's units, such as `length-kilometer`, in words."""
        if self.locale is None:
            return None
        units, numbers = needed("babel.units"), needed("babel.numbers")
        from decimal import Decimal

        value = Decimal(number)
        try:
            said = units.format_unit(value, unit, length="long", locale=self.locale)
        except units.UnknownUnitError:
            return None
        written = numbers.format_decimal(value, locale=self.locale)
        words = self.cardinal(number, gender=gender)
        if words is None or written not in said or any(c.isdigit() for c in said.replace(written, "", 1)):
            return None
        return said.replace(written, words, 1).replace("\xa0", " ").replace("\u202f", " ")

    def currency(self, code: str, number: str) -> str | None:
        """Name of a currency after a number."""
        if self.locale is None:
            return None
        from decimal import Decimal

        name = needed("babel.numbers").get_currency_name(code, count=Decimal(number), locale=self.locale)
        return None if name == code else name.replace("\xa0", " ")


@cache
def number_words(lang: str) -> NumberWords:
    """`NumberWords` of a language, made once: its rules take a tenth of a second to read."""
    return NumberWords(lang)
