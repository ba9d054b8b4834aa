"""Texts as people write them become what a model can say, in several languages; what cannot be said is refused."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.normalization.characters import CLAUSE
from unitok_tokenizers.text.normalization.language_tables import FORMS
from unitok_tokenizers.text.normalization.number_words import number_words
from unitok_tokenizers.text.normalization.spoken import learned_characters, spoken_text

for package in ("babel", "unicode_rbnf", "sentencex"):
    pytest.importorskip(package, reason="texts with numbers or several sentences need babel, unicode-rbnf, sentencex")

LETTERS = frozenset(string.ascii_lowercase + " ")
KNOWN = {
    "en": LETTERS,
    "de": LETTERS | set("äöüß"),
    "fr": LETTERS | set("àâçéèêëîïôûùœ'"),
    "es": LETTERS | set("áéíñóúü"),
    "nl": LETTERS | set("ëéïö"),
    "it": LETTERS | set("àèéìòù"),
}
"""Models whose training texts are words in lower case."""

SAID = {
    "en": [
        ("There were many – 5 in all.", "there were many five in all"),
        ("- 5 apples", "five apples"),
        ("５０％ ５／３／２０２１ １．５", "fifty percent may third twenty twenty one one point five"),
        ("１，０００ ｍｅｎ", "one thousand men"),
        ("from −5 to −3", "from minus five to minus three"),
        ("It cost $5M.", "it cost five million dollars"),
        ("$10K and $1.5B", "ten thousand dollars and one point five billion dollars"),
        ("I need .5 kg.", "i need zero point five kilograms"),
        ("p < .05, $.50, -.5", "p less than zero point zero five fifty cents minus zero point five"),
        ("20%/year, C++", "twenty percent slash year c plus plus"),
        ("My name is Max. The word is apt.", "my name is max the word is apt"),
        ("max. 5 people", "maximum five people"),
        ("between 100-1000 people", "between one hundred to one thousand people"),
        ("1-800-555-0199", "one eight zero zero five five five zero one nine nine"),
        ("Call 555-1230 now.", "call five five five one two three zero now"),
        ("pages 120-2450", "pages one hundred twenty to two thousand four hundred fifty"),
        ("a $100 B&B in town", "a one hundred dollars b and b in town"),
        ("We read the 12 May report.", "we read the may twelfth report"),
        ("call 555-0199", "call five five five zero one nine nine"),
        ("At least 12 may have died.", "at least twelve may have died"),
        ("they march 10 miles", "they march ten miles"),
        ("On the 3rd of May, 2024.", "on may third twenty twenty four"),
        ("The Cat sat, didn't it?", "the cat sat didnt it"),
        ("Dr. Smith paid $3.50.", "doctor smith paid three dollars and fifty cents"),
        ("It weighs 2.5 kg.", "it weighs two point five kilograms"),
        ("On May 3rd, 2024 at 3:05 p.m.", "on may third twenty twenty four at three oh five p m"),
        ("5/3/2024", "may third twenty twenty four"),
        ("2024-05-03", "may third twenty twenty four"),
        ("1,234,567 items", "one million two hundred thirty four thousand five hundred sixty seven items"),
        ("in 1999, 2005 and the 1990s", "in nineteen ninety nine two thousand five and the nineteen nineties"),
        ("It was -5 °C & 50%", "it was minus five degrees celsius and fifty percent"),
        ("St. Mary lives on Main St.", "saint mary lives on main street"),
        ("No. 5, pages 3-5, 1st, 22nd", "number five pages three to five first twenty second"),
        ("e.g. 1 km/h, i.e. slow, etc.", "for example one kilometer per hour that is slow et cetera"),
        ("$5 million, €0.99, £1", "five million dollars ninety nine cents one pound"),
        ("room 007, call 555-0199", "room zero zero seven call five five five zero one nine nine"),
        ("½ cup or 2 1/2 cups", "one half cup or two and one half cups"),
        ("version 1.2.3", "version one dot two dot three"),
        ("www.example.com or a.b@x.org", "www dot example dot com or a dot b at x dot org"),
        ("Café “naïve” — she’s", "cafe naive shes"),
        ("2 + 2 = 4 @ home #1", "two plus two equals four at home number one"),
        ("from 2010-2015", "from twenty ten to twenty fifteen"),
        ("pages 1000-1200", "pages one thousand to twelve hundred"),
        ("2.5-3.5 kg", "two point five to three point five kilograms"),
        ("20%-30% or $5-10", "twenty to thirty percent or five to ten dollars"),
        ("open 10:00-12:30", "open ten oclock to twelve thirty"),
        ("it fell by -$5", "it fell by minus five dollars"),
        ("version 1.2.10 at 10.10.10.10", "version one dot two dot ten at ten dot ten dot ten dot ten"),
    ],
    "de": [
        ("Das kostet z. B. 3,50 €, d.h. viel.", "das kostet zum beispiel drei euro fünfzig das heißt viel"),
        ("Am 3. Mai 2024 um 14:30 Uhr", "am dritten mai zweitausendvierundzwanzig um vierzehn uhr dreißig"),
        ("der 3. Mai, ein 3. Mann", "der dritte mai ein dritter mann"),
        ("Dr. Müller wohnt in der Hauptstr. 5", "doktor müller wohnt in der hauptstraße fünf"),
        ("1.234,5 km und 1 km", "eintausendzweihundertvierunddreißig komma fünf kilometer und ein kilometer"),
        ("1 Std., 20 °C, 5 %, usw.", "eine stunde zwanzig grad celsius fünf prozent und so weiter"),
        ("die 90er, 1990–1995", "die neunziger neunzehnhundertneunzig bis neunzehnhundertfünfundneunzig"),
        ("Nr. 7 & §5, 5 Mio. €", "nummer sieben und paragraf fünf fünf millionen euro"),
        ("GRÜẞE, Ärger", "grüße ärger"),
        ("5-10 kg", "fünf bis zehn kilogramm"),
        ("am 1.5.2020", "am ersten mai zweitausendzwanzig"),
    ],
    "fr": [
        ("M. Dupont a 3,5 kg à 14h30.", "monsieur dupont a trois virgule cinq kilogrammes à quatorze heures trente"),
        ("le 1er mai 2024, 21 %", "le premier mai deux mille vingt quatre vingt et un pour cent"),
        ("L'eau : 1 234 fois, 3,50 €", "l'eau mille deux cent trente quatre fois trois euros cinquante"),
    ],
    "es": [
        ("El Sr. Pérez pagó 3,50 €.", "el señor pérez pagó tres euros con cincuenta céntimos"),
        ("¿El 3 de mayo de 2024?", "el tres de mayo de dos mil veinticuatro"),
        ("el 50 %, p. ej. 1 h", "el cincuenta por ciento por ejemplo una hora"),
    ],
    "nl": [
        ("Dhr. Jansen, 3 mei 2024", "de heer jansen drie mei tweeduizendvierentwintig"),
        ("€ 3,50 om 14:30, bijv.", "drie euro vijftig om veertien uur dertig bijvoorbeeld"),
    ],
    "it": [("Il sig. Rossi, 1 maggio, 5 km", "il signor rossi primo maggio cinque chilometri")],
}  # fmt: skip


@pytest.mark.parametrize(("lang", "written", "said"), [(lang, *row) for lang, rows in SAID.items() for row in rows])
def test_what_is_written_is_said_in_words(lang: str, written: str, said: str) -> None:
    assert spoken_text(written, lang, KNOWN[lang]) == said


def test_scripts_without_spaces_get_none() -> None:
    known = frozenset("零一二三四五六七八九十百千万点分之年月日公里今天是价格涨了")
    assert spoken_text("今天是2024年5月3日，价格涨了5%。", "zh", known) == "今天是二零二四年五月三日价格涨了百分之五"
    assert spoken_text("３.5公里", "zh", known) == "三点五公里"
    assert spoken_text("３．１４公里", "zh", known) == "三点一四公里"
    assert spoken_text("2021/5/3", "zh", known) == "二零二一年五月三日"
    assert spoken_text("１，２３４公里", "zh", known | {"两"}) == "一千二百三十四公里"
    assert spoken_text("100，200，300", "zh", known) == "一百二百三百", "a list is no number"
    assert spoken_text("￥500", "zh", known | {"元"}) == "五百元"
    assert spoken_text("5％", "ja", frozenset("五パーセント")) == "五パーセント"


def test_a_text_of_known_characters_stays_as_it_is() -> None:
    known = learned_characters(["Dr. Smith has 3 cats, Mr. X pays $5.", "the end"])
    for text in ("Dr. Smith has 3 cats, $5.", "Mr. X  has 5"):
        assert spoken_text(text, "en", known) == " ".join(text.split())
    assert spoken_text("an y 😀 thing  at all", "en", None) == "an y 😀 thing  at all"


def test_only_what_is_unknown_changes() -> None:
    cased = LETTERS | set(string.ascii_uppercase + ".,")
    assert spoken_text("Dr. Who has 3 cats, e.g. Tom!", "en", cased) == "Dr. Who has three cats, e.g. Tom."
    upper = frozenset(string.ascii_uppercase + "' ")
    assert spoken_text("don’t take 5, “ok”?", "en", upper) == "DON'T TAKE FIVE OK"
    digits = LETTERS | set(string.digits)
    assert spoken_text("I take 5 of 10!", "en", digits) == "i take 5 of 10"
    assert spoken_text("I take 5 %!", "en", digits) == "i take five percent"
    assert spoken_text("Grüße aus Köln", "de", LETTERS) == "gruesse aus koeln"
    both = LETTERS | set(string.ascii_uppercase)
    assert spoken_text("ﬁne ﬂower, Straße", "en", both) == "fine flower Strasse", "no capitals within a word"
    assert spoken_text("STRAẞE Œuvre", "en", both) == "STRASSE Oeuvre"


@pytest.mark.parametrize(
    ("lang", "written", "said"),
    [
        ("ko", "5%", "오 퍼센트"),
        ("vi", "5%", "năm phần trăm"),
        ("pt", "A & B", "a e b"),
        ("ru", "2 + 2 = 4", "два плюс два равно четыре"),
        ("ru", "§ 5", "параграф пять"),
        ("cs", "A & B", "AMPERSAND"),
        ("sv", "#5", "NUMBER SIGN"),
        ("tr", "a@b", "COMMERCIAL AT"),
    ],
)
def test_a_sign_that_says_something_is_said_or_refused(lang: str, written: str, said: str) -> None:
    known = LETTERS | set("오퍼센트năm phần trăm") | set(map(chr, range(0x430, 0x450)))
    if said.isupper():
        with pytest.raises(InputError, match=said):
            spoken_text(written, lang, known)
    else:
        assert spoken_text(written, lang, known) == said


@pytest.mark.parametrize(
    ("text", "lang", "needles"),
    [
        ("good 😀 day", "en", ("'😀'", "GRINNING FACE", "at character 6", "in en")),
        ("привет", "en", ("'п'", "CYRILLIC SMALL LETTER PE", "at character 1", "and 1 more")),
        ("日本", "en", ("CJK UNIFIED IDEOGRAPH-65E5", "'日本'")),
        ("x 5 Ω", "en", ("'Ω'", "at character 5")),
        ("7 things", "tlh", ("'7'", "DIGIT SEVEN")),
    ],
)
def test_what_cannot_be_said_is_refused(text: str, lang: str, needles: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as refusal:
        spoken_text(text, lang, LETTERS)
    for needle in (*needles, "write it in other words"):
        assert needle in str(refusal.value)
    assert len(str(refusal.value)) < 600


def test_what_cannot_be_said_may_stay_where_it_is_read_only() -> None:
    assert spoken_text("The ☃, e.g. 2 😀!", "en", LETTERS, refuse=False) == "the ☃ for example two 😀"
    assert spoken_text("☃!", "en", LETTERS, refuse=False) == "☃"
    assert spoken_text("... !", "en", LETTERS, refuse=False) == ""


def test_a_word_for_a_number_may_be_out_of_reach() -> None:
    with pytest.raises(InputError, match=r"'z' \(LATIN SMALL LETTER Z\) at character 6 \(to say '0'\)"):
        spoken_text("room 0", "en", LETTERS - {"z"})


def test_punctuation_alone_says_nothing() -> None:
    assert spoken_text("… — !", "en", LETTERS) == ""


def test_stray_characters_of_a_large_corpus_are_not_learned() -> None:
    assert "☃" in learned_characters(["a ☃"])
    assert "☃" not in learned_characters(["a ☃", *["some more words of text"] * 100_000])


def test_clause_marks_that_are_left_out_can_be_kept() -> None:
    assert spoken_text("One, two; three.", "en", LETTERS, clauses=True) == f"one{CLAUSE} two{CLAUSE} three{CLAUSE}"[:-1]


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=string.printable + "äöüß€£…“”—½°²", max_size=40), lang=st.sampled_from(sorted(KNOWN)))
def test_only_known_characters_come_out(text: str, lang: str) -> None:
    try:
        said = spoken_text(text, lang, KNOWN[lang])
    except InputError:
        return
    assert set(said) <= KNOWN[lang] and said == " ".join(said.split())


@settings(max_examples=100, deadline=None)
@given(number=st.integers(0, 10**12), lang=st.sampled_from(sorted(FORMS)))
def test_every_number_has_words(number: int, lang: str) -> None:
    said = number_words(lang).cardinal(str(number))
    assert said and not any(character.isdigit() for character in said)


def test_decimals_and_signs_have_words() -> None:
    assert number_words("en").cardinal("-3.14") == "minus three point one four"
    assert number_words("de").cardinal("0.05") == "null Komma null fünf"
    assert number_words("pl").cardinal("1.5") == "jeden przecinek pięć"
    assert number_words("en").cardinal("9" * 16) == " ".join(["nine"] * 16)


def test_tables_have_words_for_whatever_they_list() -> None:
    for lang, forms in FORMS.items():
        for table in (forms.titles, forms.abbreviations, forms.before_number, forms.after_name, forms.scales):
            assert all(key == key.lower() and said for key, said in table.items()), lang
        assert all(len(sign) == 1 and said for sign, said in forms.symbols.items()), lang


def test_a_raised_digit_in_an_address_is_no_number_of_it() -> None:
    known = frozenset("abcdefghijklmnopqrstuvwxyz ")
    said = spoken_text("see https://arxiv.org/abs/2106.01345² for more", "en", known)
    assert said.startswith("see arxiv dot org") and said.endswith("four five squared for more")


@pytest.mark.parametrize(
    ("lang", "written", "said"),
    [
        ("de", "Er kam an – 20 Minuten zu spät.", "er kam an zwanzig minuten zu spät"),
        ("de", "€5 Millionen", "fünf millionen euro"),
        ("de", "50 €/Monat", "fünfzig euro schrägstrich monat"),
        ("de", "Ich heiße Max.", "ich heiße max"),
        ("de", "max. 5 Leute", "maximal fünf leute"),
        ("de", "am 12. okt kommt", "am zwölften oktober kommt"),
        ("de", "ruf 555-0123", "ruf fünf fünf fünf null eins zwei drei"),
        ("de", "100-1000 Teilnehmer", "einhundert bis eintausend teilnehmer"),
        ("de", "089-1234", "null acht neun eins zwei drei vier"),
        ("en", "555-1234", "five five five one two three four"),
        ("en", "$125-1250", "one hundred twenty five to one thousand two hundred fifty dollars"),
    ],
)
def test_signs_are_what_they_are_in_other_languages(lang: str, written: str, said: str) -> None:
    assert spoken_text(written, lang, KNOWN[lang]) == said


def test_punctuation_alone_is_nothing_to_say() -> None:
    assert spoken_text("...", "en", frozenset("ab .")) == "" and spoken_text("a.", "en", frozenset("ab .")) == "a."
    assert spoken_text("...", "en", frozenset("ab ."), refuse=False) == "...", "as it is to be translated"
    assert spoken_text("价格是¥500", "zh", frozenset("价格是五百元日")) == "价格是五百元"
