"""Dates and times in words."""

from __future__ import annotations

import re
from collections.abc import Callable

from unitok_tokenizers.text.normalization.languages import SpokenForms
from unitok_tokenizers.text.normalization.number_words import JOINED, NumberWords

Rule = Callable[[re.Match[str]], str | None]
START, END = r"(?<![\w])(?<!\d[.,:/-])", r"(?![\w])(?![:/-]\d)"
CLOCK = r"(?:[01]?\d|2[0-4]):[0-5]\d"
PARTS = re.compile(r"(?P<h>\d+):(?P<min>\d+)")
ALSO_WORDS = frozenset(("set", "mar", "out", "may", "sept", "dic", "ago", "mag"))
"""Abbreviations of months, in any language, that are words as well."""
FIRST_WORD = re.compile(r"(\w+)\s+$")


def calendar_rules(words: NumberWords, forms: SpokenForms) -> list[tuple[re.Pattern[str], Rule]]:
    """(pattern, what to say for a match) of a language's dates and times."""
    calendar = _Calendar(words, forms)
    found: list[tuple[str, Rule]] = []
    if forms.date is not None:
        names = "|".join(sorted(map(re.escape, words.months), key=len, reverse=True)) or "(?!)"
        month, year = rf"(?P<month>{names})(?P<dot>\.)?", r"(?P<year>[12]\d{3})"
        marks = "./-" if words.dotted_dates else "/-"  # elsewhere numbers between dots are a version
        three = rf"(?P<a>\d{{1,4}})(?P<mark>[{marks}])(?P<b>\d{{1,2}})(?P=mark)(?P<c>\d{{1,4}})(?!\.\d)"
        day = r"(?P<d>\d{1,2})(?P<nth>\.|st|nd|rd|th|er|º)?(?P<of> of| de)?"
        # `the 3rd of May`: the month comes first when it is said. Before a plain number it belongs to what follows.
        article = r"(?:the (?=\d{1,2}(?:st|nd|rd|th)\b))?" if words.lang == "en" else ""
        day_first = rf"{article}{day} {month}(?:,? (?:de )?{year})?"
        found += [
            (rf"{START}{year}-(?P<m>\d\d)-(?P<d>\d\d){END}", calendar.numeric),
            (rf"{START}{three}{END}", calendar.ordered),
            (rf"{START}{day_first}{END}", calendar.named),
            (rf"{START}{month} (?P<d>\d{{1,2}})(?P<nth>st|nd|rd|th)?(?:,? {year})?{END}", calendar.named),
        ]
        if words.date_order[:2] == "dm" and forms.ordinal_days:
            found.append((rf"{START}(?P<d>\d{{1,2}})\.(?P<m>\d{{1,2}})\.(?!\d)", calendar.numeric))
        if words.lang == "zh":
            found.append((r"(?P<year>\d{4})年(?:(?P<m>\d{1,2})月(?:(?P<d>\d{1,2})[日号])?)?", calendar.chinese))
    if forms.time is not None:
        noon = r"(?:\s?(?P<noon>[ap])\.?\s?m\b\.?)"
        hour, minutes = r"(?P<h>[01]?\d|2[0-4])", r"(?P<min>[0-5]\d)"
        if forms.hour_mark:
            between = f"[{re.escape(forms.between)}]"
            found.append((rf"{START}{hour}(?:{between}{minutes})? ?(?:{forms.hour_mark})(?!\w)", calendar.time))
            if "h" in forms.between:
                found.append((rf"{START}{hour}h{minutes}{END}", calendar.time))
        found += [
            (rf"{START}(?P<from>{CLOCK})\s?[-–—]\s?(?P<to>{CLOCK}){END}", calendar.times),
            (rf"{START}{hour}:{minutes}(?::(?P<s>[0-5]\d))?{noon}?{END}", calendar.time),
            (rf"{START}{hour}{noon}(?!\w)", calendar.time),
        ]
    return [(re.compile(pattern, re.I), rule) for pattern, rule in found]


class _Calendar:
    def __init__(self, words: NumberWords, forms: SpokenForms) -> None:
        self.words, self.forms = words, forms

    def numeric(self, match: re.Match[str]) -> str | None:
        """Day, month and perhaps year as numbers."""
        return self._date(match, int(match["d"]), int(match["m"]), match.groupdict().get("year"))

    def ordered(self, match: re.Match[str]) -> str | None:
        """Three numbers in the language's order, or with the year first."""
        order = "ymd" if len(match["a"]) == 4 else self.words.date_order
        if len(match["c"]) == 1 and match["a"][:2] not in ("19", "20"):
            return None  # a version
        parts = dict(zip(order, (match["a"], match["b"], match["c"])))
        year = parts["y"]
        if len(year) not in (2, 4):
            return None
        if len(year) == 2:  # as people read it: 98 is 1998
            year = ("20" if int(year) < 70 else "19") + year
        return self._date(match, int(parts["d"]), int(parts["m"]), year)

    def named(self, match: re.Match[str]) -> str | None:
        """A month by its name, where it cannot be another word: `at least 12 may`, `2 set a 1`."""
        name, groups = match["month"], match.groupdict()
        number = self.words.months.get(name.lower().rstrip("."))
        if number is None:
            return None
        full = (self.words.month(number) or "").lower()
        short = full.startswith(name.lower()) and len(name) < len(full)
        doubtful = short and name in ALSO_WORDS
        certain = groups["year"] or name[0].isupper() or groups["dot"] or groups["nth"] or not doubtful
        if self.words.lang == "en" and name in ("may", "march"):
            certain = groups["year"] or groups["nth"] or groups.get("of")
        return self._date(match, int(match["d"]), number, match["year"]) if certain else None

    def chinese(self, match: re.Match[str]) -> str | None:
        """Year, month and day with their own signs."""
        said = f"{self.words.year(match['year'])}年"
        for name, sign in (("m", "月"), ("d", "日")):
            if match[name]:
                said += f"{self.words.cardinal(match[name])}{sign}"
        return said

    def _date(self, match: re.Match[str], day: int, month: int, year: str | None) -> str | None:
        if not (1 <= day <= 31 and 1 <= month <= 12) or self.forms.date is None:
            return None
        if self.forms.ordinal_days:
            before = FIRST_WORD.findall(match.string[: match.start()])
            told = before[-1] if before else ""
            forms = self.forms.ordinal_forms.items()
            ending = next((end for pattern, end in forms if re.fullmatch(pattern, told, re.I)), "")
            said = self.words.ordinal(str(day), ending)
        else:
            said = self.forms.first_day if day == 1 and self.forms.first_day else self.words.cardinal(str(day))
        name = self.words.month(month)
        if said is None or name is None:
            return None
        date = self.forms.date.format(day=said, month=name)
        if year is None:
            return date
        spoken = self.words.year(year) if year[0] in "12" else self.words.cardinal(year)
        if self.words.lang == "zh":
            return f"{spoken}年{date}"
        return f"{date} de {spoken}" if self.words.lang == "es" else f"{date} {spoken}"

    def times(self, match: re.Match[str]) -> str | None:
        """From one time to another."""
        found = [PARTS.fullmatch(match[name]) for name in ("from", "to")]
        said = [None if one is None else self.time(one) for one in found]
        if None in said or self.forms.to is None:
            return None
        return ("" if self.words.lang in JOINED else " ").join((said[0] or "", self.forms.to, said[1] or ""))

    def time(self, match: re.Match[str]) -> str | None:
        """Hour, minutes and what half of the day."""
        forms, groups = self.forms, match.groupdict()
        hour = self.words.cardinal(str(int(groups["h"])), gender="feminine" if forms.feminine_hour else "masculine")
        minutes = groups.get("min")
        noon = groups.get("noon")
        if hour is None or forms.time is None or forms.full_hour is None:
            return None
        plural = "" if int(groups["h"]) == 1 else "s"
        if minutes is None or not int(minutes):
            said = hour if noon else forms.full_hour.format(h=hour, s=plural)
        else:
            number = self.words.cardinal(str(int(minutes))) or ""
            few = forms.few_minutes.format(m=number) if int(minutes) < 10 else number
            said = forms.time.format(h=hour, m=few, s=plural)
        if (seconds := groups.get("s")) and int(seconds):
            said += f" {self.words.cardinal(str(int(seconds)))}"
        return f"{said} {noon.lower()} m" if noon else said
