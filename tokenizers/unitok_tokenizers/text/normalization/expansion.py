"""What is written shortly, in words: numbers, dates, times, amounts, units, abbreviations, signs.

Rules look at the whole text in the order of `RULES`; what an earlier one has taken is no later one's. A rule that has
no words for what it found leaves it to the others, and in the end to the refusal in `characters`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial

from unitok_tokenizers.text.normalization.language_tables import forms_of
from unitok_tokenizers.text.normalization.languages import Money, SpokenForms, primary
from unitok_tokenizers.text.normalization.number_words import JOINED, NumberWords, number_words

CURRENCIES: Mapping[str, str] = {
    "US$": "USD", "$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₽": "RUB", "₩": "KRW", "₺": "TRY",
    "₴": "UAH", "₫": "VND", "฿": "THB", "₪": "ILS", "R$": "BRL", "zł": "PLN", "Kč": "CZK", "元": "CNY", "円": "JPY",
    **{code: code for code in "USD EUR GBP JPY CHF CNY INR CAD AUD NZD SEK NOK DKK PLN CZK BRL MXN ZAR".split()},
}  # fmt: skip
"""Sign or code → ISO 4217 code."""
UNITS: Mapping[str, str] = {
    "km": "length-kilometer", "m": "length-meter", "cm": "length-centimeter", "mm": "length-millimeter",
    "µm": "length-micrometer", "nm": "length-nanometer", "kg": "mass-kilogram", "g": "mass-gram",
    "mg": "mass-milligram", "t": "mass-tonne", "l": "volume-liter", "L": "volume-liter", "ml": "volume-milliliter",
    "mL": "volume-milliliter", "km/h": "speed-kilometer-per-hour", "mph": "speed-mile-per-hour",
    "m/s": "speed-meter-per-second", "h": "duration-hour", "hrs": "duration-hour", "Std.": "duration-hour",
    "min": "duration-minute", "min.": "duration-minute", "Min.": "duration-minute", "s": "duration-second",
    "sec": "duration-second", "sec.": "duration-second", "Sek.": "duration-second", "ms": "duration-millisecond",
    "Hz": "frequency-hertz", "kHz": "frequency-kilohertz", "MHz": "frequency-megahertz", "GHz": "frequency-gigahertz",
    "kB": "digital-kilobyte", "KB": "digital-kilobyte", "MB": "digital-megabyte", "GB": "digital-gigabyte",
    "TB": "digital-terabyte", "W": "power-watt", "kW": "power-kilowatt", "MW": "power-megawatt",
    "kWh": "energy-kilowatt-hour", "V": "electric-volt", "°C": "temperature-celsius", "°F": "temperature-fahrenheit",
    "°": "angle-degree", "m²": "area-square-meter", "m2": "area-square-meter", "km²": "area-square-kilometer",
    "km2": "area-square-kilometer", "cm²": "area-square-centimeter", "m³": "volume-cubic-meter",
    "m3": "volume-cubic-meter", "ha": "area-hectare", "ft": "length-foot", "mi": "length-mile", "lb": "mass-pound",
    "lbs": "mass-pound", "oz": "mass-ounce", "%": "concentr-percent", "‰": "concentr-permille",
}  # fmt: skip
"""Unit as written, with regard to case → CLDR's name."""
FRACTION_SIGNS = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4"}
SPACES = "[ \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}]"
MINUS = "(?<![\\w.,)%])[-\N{MINUS SIGN}\N{EN DASH}]"
START, END = r"(?<!\w)(?<!\d[.,])", r"(?!\w)"
JOINED_START, JOINED_END = r"(?<![\dA-Za-z])(?<!\d[.,])", r"(?![\dA-Za-z])"
"""The same where letters stand beside digits without a space."""
PHONE = r"(?<![\w.,$€£¥₹-])(?:\+\d[\d /-]{5,}\d|(?:1-)?\d{3}-\d{3}-\d{4}|(?P<from>\d{3})-(?P<to>\d{4}))(?![\w-])"
"""Numbers of telephones; the last form may be a range as well."""


Say = Callable[[re.Match[str]], str | None]
"""Match → what is said; None where the rule has no words."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of a text and what is said for it."""

    start: int
    """Index of its first character."""
    end: int
    """Index after its last one."""
    said: str
    """In words."""


class Expansion:
    """The rules of one language."""

    def __init__(self, lang: str) -> None:
        self.lang = lang
        self.forms: SpokenForms = forms_of(lang)
        joined = primary(lang) in JOINED
        self.gap = "" if joined else " "
        self.start, self.end = (JOINED_START, JOINED_END) if joined else (START, END)

    @cached_property
    def words(self) -> NumberWords:
        """Numbers and names; read when the first is met."""
        return number_words(self.lang)

    def spans(self, text: str, wanted: Callable[[str], bool]) -> list[Span]:
        """What is said otherwise than it is written, in order, without overlaps.

        Args:
            text: a sentence, in NFC.
            wanted: whether something written shortly needs words; it is left as it is where not.
        """
        found: list[Span] = []
        for pattern, rule in self.rules(any(map(str.isdigit, text)) or any(map(FRACTION_SIGNS.get, text))):
            for match in pattern.finditer(text):
                free = all(match.end() <= one.start or one.end <= match.start() for one in found)
                if free and wanted(match.group()):
                    said = rule(match)
                    if said is not None:
                        found.append(Span(start=match.start(), end=match.end(), said=said))
        return sorted(found, key=lambda one: one.start)

    def rules(self, digits: bool) -> Iterator[tuple[re.Pattern[str], Say]]:
        """(pattern, what to say for a match), the most special first."""
        yield ADDRESS, self._address
        if digits:
            yield from self._number_rules
        yield from self._abbreviation_rules
        if self.forms.symbols:
            yield re.compile("|".join(map(re.escape, self.forms.symbols))), lambda m: self.forms.symbols[m.group()]

    # -- abbreviations and addresses --------------------------------------------------------------------------------

    @cached_property
    def _abbreviation_rules(self) -> list[tuple[re.Pattern[str], Say]]:
        forms, found = self.forms, list[tuple[re.Pattern[str], Say]]()
        if forms.after_name:
            found.append((re.compile(f"{START}({_any(forms.after_name)})(?!\\w)", re.I), self._after_name))
        tables = (
            (forms.titles, START, r"(?=\s+[^\W\d])"),
            (forms.before_number, START, r"(?=\s?\d)"),
            (forms.abbreviations, START, END),
        )
        for table, start, end in tables:
            if table:
                found.append((re.compile(f"{start}({_any(table)}){end}", re.I), _looked_up(table)))
        if forms.suffixes:
            ends = re.compile(rf"(?P<word>[^\W\d]{{2,}})(?P<end>{_any(forms.suffixes)}){END}", re.I)
            found.append((ends, lambda match: match["word"] + forms.suffixes[match["end"].lower()]))
        return found

    def _after_name(self, match: re.Match[str]) -> str | None:
        """`Main St.`, but not `St. Mary` or `from St. Louis`."""
        name = re.search(r"(\w+)\s+$", match.string[: match.start()])
        follows = re.match(r"\s+([^\W\d])", match.string[match.end() :])
        if name is None or not name[1][0].isupper() or (follows is not None and follows[1].isupper()):
            return None
        return _looked_up(self.forms.after_name)(match)

    def _address(self, match: re.Match[str]) -> str | None:
        """A web or mail address: its dots and signs in words."""
        signs = {".": self.forms.point, **self.forms.symbols, "-": " "}
        parts: list[str] = []
        for part in re.findall(r"\d|[^\W\d_]+|.", re.sub("^https?://", "", match.group())):
            said = self.words.cardinal(part) if part.isdecimal() else part if part.isalpha() else signs.get(part)
            if said is None:
                return None
            parts.append(said)
        return " ".join(" ".join(parts).split())

    # -- numbers ------------------------------------------------------------------------------------------------------

    @cached_property
    def _number(self) -> str:
        """Regular expression of a number as the language writes it."""
        group = re.escape(self.words.group)
        if self.words.group.isspace():
            group = SPACES
        grouped = rf"\d{{1,3}}(?:(?:{group}|[\N{{NO-BREAK SPACE}}\N{{NARROW NO-BREAK SPACE}}'’])\d{{3}})+(?!\d)"
        number = rf"(?:{grouped}|\d+)(?:{re.escape(self.words.decimal)}\d+)?"
        return rf"(?:{number}|(?<![\w.,])\.\d+)" if self.words.decimal == "." else number  # `.5`

    def _value(self, written: str) -> str:
        """Digits with a point."""
        whole, _, fraction = written.partition(self.words.decimal)
        digits = "".join(str(int(one)) for one in whole if one.isdigit())
        fraction = "".join(str(int(one)) for one in fraction if one.isdigit())
        return (digits or "0") + (f".{fraction}" if fraction else "")

    @cached_property
    def _number_rules(self) -> list[tuple[re.Pattern[str], Say]]:
        if not self.words.counts:
            return []
        from unitok_tokenizers.text.normalization.calendar import calendar_rules

        forms, number, start, end = self.forms, self._number, self.start, self.end
        signs, units = _any(CURRENCIES), _any(UNITS)
        scale = rf"(?:{SPACES}?(?P<scale>(?i:{_any(forms.scales)}))(?![\w&]))?" if forms.scales else "(?P<scale>(?!))?"
        minus, to = rf"(?P<minus>{MINUS})?", f"{SPACES}?[-–—]{SPACES}?"
        rules: list[tuple[str, Say]] = [
            (PHONE, self._phone),
            (rf"{start}(?P<sign>{signs}){SPACES}?(?P<a>{number}){to}(?P<same>{signs})?(?P<n>{number}){scale}",
             partial(self._range_of, self._money)),
            (rf"{start}(?P<a>{number})(?:{SPACES}?(?P<same>{signs}))?{to}(?P<n>{number}){scale}{SPACES}?"
             rf"(?P<sign>{signs}){end}", partial(self._range_of, self._money)),
            (rf"{start}(?P<a>{number})(?:{SPACES}?(?P<same>{units}))?{to}(?P<n>{number}){SPACES}?"
             rf"(?P<unit>{units})(?![\w²³/])", partial(self._range_of, self._unit)),
            (rf"{start}{minus}(?P<sign>{signs}){SPACES}?(?P<n>{number}){scale}", self._money),
            (rf"{start}{minus}(?P<n>{number}){scale}{SPACES}?(?P<sign>{signs}){end}", self._money),
            (rf"{start}(?P<minus>{MINUS})?(?P<n>{number}){SPACES}?(?P<unit>{units})(?![\w²³/])", self._unit),
            (rf"{start}(?P<n>\d+){SPACES}?(?P<f>[{''.join(FRACTION_SIGNS)}])|(?P<only>[½⅓⅔¼¾])", self._fraction),
            (rf"{start}(?:(?P<n>\d+) )?(?P<f>[1-9]/[1-9]){end}(?!/)", self._fraction),
            (rf"{start}(?P<a>{number}){SPACES}?[-–—]{SPACES}?(?P<b>{number}){end}(?![-–]\d)", self._range),
            (rf"{start}\d+(?:\.\d+)+{end}", self._version),
            # Before a space a dash parts sentences, and marks what is listed: only the sign itself is a minus there.
            (rf"(?P<plus>\+)?(?P<minus>{MINUS}|(?<![\w.,)%])\N{{MINUS SIGN}}{SPACES})?(?P<n>{number})", self._plain),
        ]  # fmt: skip
        if forms.glued:
            rules.insert(7, (rf"{start}(?P<n>\d+)-?(?P<end>{forms.glued}){end}", self._glued))
        if forms.ordinal_marks:
            marked = rf"{start}(?P<n>\d+)(?P<mark>{forms.ordinal_marks}){self._after_ordinal}"
            rules.insert(6, (marked, self._ordinal))
        if forms.decades:
            rules.insert(1, (rf"{start}(?P<n>\d\d|\d{{4}})(?<=0)s{end}", self._decade))
        return calendar_rules(self.words, forms) + [(re.compile(pattern), rule) for pattern, rule in rules]

    @property
    def _after_ordinal(self) -> str:
        """A dot makes an ordinal number only where the sentence goes on."""
        return r"(?=\s+\w)" if self.forms.ordinal_marks == r"\." else r"(?!\w|\s?[CF]\b)"

    def _range_of(self, rule: Say, match: re.Match[str]) -> str | None:
        """`5-10 kg`: the first number, and what a rule says of the second with what both are of."""
        groups = match.groupdict()
        of = groups.get("sign") or groups.get("unit")
        if groups["same"] not in (None, of) or self.forms.to is None:
            return None
        first, second = self.words.cardinal(self._value(match["a"])), rule(match)
        return None if first is None or second is None else self.gap.join((first, self.forms.to, second))

    def _phone(self, match: re.Match[str]) -> str | None:
        """Digit by digit; seven digits may be a range: in English where both ends are round, elsewhere always, unless
        one of them begins with a zero."""
        low, high = match["from"], match["to"]
        if low is None:
            return self.words.digits(match.group())
        of = re.match(rf"{SPACES}?(?:{_any(UNITS)}|{_any(CURRENCIES)})(?![\w²³/])", match.string[match.end() :])
        rises = int(high) > int(low) and low.endswith("0") and high.endswith("0")
        if "0" not in (low[0], high[0]) and (primary(self.lang) != "en" or rises or of is not None):
            return None
        return self.words.digits(match.group())

    def _money(self, match: re.Match[str]) -> str | None:
        said = self._money_said(match)
        if said is None or not match.groupdict().get("minus"):
            return said
        return None if self.forms.minus is None else f"{self.forms.minus}{self.gap}{said}"

    def _money_said(self, match: re.Match[str]) -> str | None:
        value, code = self._value(match["n"]), CURRENCIES[match["sign"]]
        if match["sign"] == "¥" and primary(self.lang) in ("zh", "yue"):
            code = "CNY"
        names = self.forms.money.get(code)
        gender = "feminine" if names is not None and names.feminine else "masculine"
        scale = self.forms.scales.get((match["scale"] or "").lower())
        whole, _, hundredths = value.partition(".")
        one = value == "1" and scale is None
        name = (names.one if one else names.many) if names else self.words.currency(code, "5" if scale else value)
        if scale is None and names is not None and self.forms.amount and len(hundredths) == 2:
            return self._amount(whole, hundredths, names, gender)
        said = self.words.cardinal(value, gender=gender)
        if said is None or name is None:
            return None
        return self.gap.join(part for part in (said, scale, name) if part)

    def _amount(self, whole: str, hundredths: str, names: Money, gender: str) -> str | None:
        """`3.50`: major and minor units."""
        major = self.words.cardinal(whole, gender=gender)
        minor = self.words.cardinal(str(int(hundredths)))
        if major is None or minor is None:
            return None
        name = f"{major} {names.one if int(whole) == 1 else names.many}"
        cents = names.minor_one or names.minor if int(hundredths) == 1 else names.minor
        if not int(hundredths):
            return name
        if not int(whole):
            return f"{minor} {cents}"
        assert self.forms.amount is not None
        return self.forms.amount.format(major=name, minor=minor, cents=cents)

    def _unit(self, match: re.Match[str]) -> str | None:
        unit = UNITS[match["unit"]]
        value = ("-" if match.groupdict().get("minus") else "") + self._value(match["n"])
        if unit == "concentr-percent" and self.forms.percent:
            said = self.words.cardinal(value)
            return None if said is None else self.forms.percent.format(n=said)
        return self.words.unit(value, unit, "feminine" if unit in self.forms.feminine_units else "masculine")

    def _ordinal(self, match: re.Match[str]) -> str | None:
        before = re.findall(r"(\w+)\s+$", match.string[: match.start()])
        told = match["mark"] if self.forms.ordinal_marks != r"\." else (before[-1] if before else "")
        forms = self.forms.ordinal_forms.items()
        ending = next((end for pattern, end in forms if re.fullmatch(pattern, told, re.I)), "")
        return self.words.ordinal(str(int(match["n"])), ending)

    def _decade(self, match: re.Match[str]) -> str | None:
        """`1990s`: the English plural of its year."""
        number = match["n"]
        said = self.words.year(number) if len(number) == 4 else self.words.cardinal(number)
        if said is None:
            return None
        return said[:-1] + "ies" if said.endswith("y") else said + ("es" if said.endswith(("x", "s")) else "s")

    def _glued(self, match: re.Match[str]) -> str | None:
        said = self._integer(match["n"])
        return None if said is None else said + match["end"]

    def _fraction(self, match: re.Match[str]) -> str | None:
        groups = match.groupdict()
        sign = groups["f"] or groups.get("only") or ""
        said = self.forms.fractions.get(FRACTION_SIGNS.get(sign, sign))
        if said is None or not groups["n"]:
            return said
        whole = self.words.cardinal(groups["n"])
        joined = [part for part in (whole, self.forms.and_fraction, said) if part]
        return None if whole is None or self.forms.and_fraction is None else " ".join(joined)

    def _range(self, match: re.Match[str]) -> str | None:
        ends = [self._integer(match[name]) for name in ("a", "b")]
        if None in ends or self.forms.to is None:
            return None
        return self.gap.join((ends[0] or "", self.forms.to, ends[1] or ""))

    def _version(self, match: re.Match[str]) -> str | None:
        """Numbers with more dots than a decimal has, or with another dot than the language's: `1.2.3`."""
        if self.words.decimal == "." and match.group().count(".") == 1:
            return None
        if self.words.group == "." and re.fullmatch(r"\d{1,3}(?:\.\d{3})+", match.group()):
            return None
        parts = [self._integer(part) for part in match.group().split(".")]
        if None in parts or self.forms.point is None:
            return None
        return f" {self.forms.point} ".join(part or "" for part in parts)

    def _plain(self, match: re.Match[str]) -> str | None:
        said = self._integer(match["n"])
        sign = self.forms.symbols.get("+") if match["plus"] else self.forms.minus if match["minus"] else ""
        return None if said is None or sign is None else f"{sign} {said}".strip()

    def _integer(self, written: str) -> str | None:
        """A number by its shape: a year, digits by themselves (leading zeros, long numbers), or a quantity."""
        value = self._value(written)
        if self.forms.year_shapes and re.fullmatch(r"1[1-9]\d\d|20\d\d", written):
            return self.words.year(value)
        if written.isdigit() and len(written) > 1 and written.startswith("0"):
            return self.words.digits(written)
        if written.isdigit() and len(written) > 9:
            return self.words.digits(written)
        return self.words.cardinal(value)


ADDRESS = re.compile(
    r"(?<!\w)(?:https?://[\w./?=&%#@:~+-]*\w|www\.[\w./-]*\w|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|de|eu|io|edu|gov|fr|nl|es|it|uk)(?:/[\w./-]*\w)?)(?!\w)"
)
"""Web and mail addresses."""


def _any(table: Mapping[str, str]) -> str:
    """Regular expression of a table's keys, the longest first; a space in a key may be any."""
    keys = sorted(table, key=len, reverse=True)
    return "|".join(re.escape(key).replace(r"\ ", SPACES) for key in keys) or "(?!)"


def _looked_up(table: Mapping[str, str]) -> Say:
    """The table's word, with a capital where a capital is written and the word has none."""

    def rule(match: re.Match[str]) -> str | None:
        written = re.sub(SPACES, " ", match.group(1))
        said = table.get(written.lower(), table.get(written))
        return said[0].upper() + said[1:] if said and written[0].isupper() else said

    return rule


@cache
def expansion(lang: str) -> Expansion:
    """The rules of a language, made once."""
    return Expansion(lang)
