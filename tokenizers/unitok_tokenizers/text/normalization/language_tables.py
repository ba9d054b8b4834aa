"""What English, German, French, Spanish, Dutch, Italian and Chinese say for what they write: data.

A further language is a further table here, and an entry in `FORMS`.
"""

from __future__ import annotations

from collections.abc import Mapping

from unitok_tokenizers.text.normalization.languages import DEFAULT, Money, SpokenForms, primary

EN = SpokenForms(
    titles={
        "mr.": "mister", "mrs.": "missus", "ms.": "miz", "dr.": "doctor", "prof.": "professor", "st.": "saint",
        "gen.": "general", "capt.": "captain", "lt.": "lieutenant", "sgt.": "sergeant", "col.": "colonel",
        "rev.": "reverend", "hon.": "honorable", "sen.": "senator", "rep.": "representative", "gov.": "governor",
        "pres.": "president", "mt.": "mount", "ft.": "fort",
    },
    abbreviations={
        "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus", "jr.": "junior",
        "sr.": "senior", "approx.": "approximately", "dept.": "department", "inc.": "incorporated", "ltd.": "limited",
        "corp.": "corporation", "co.": "company", "ave.": "avenue",
        "blvd.": "boulevard", "rd.": "road", "cf.": "compare", "a.m.": "a m", "p.m.": "p m",
        "incl.": "including", "w/o": "without", "w/": "with",
    },
    before_number={
        "no.": "number", "nos.": "numbers", "p.": "page", "pp.": "pages", "vol.": "volume", "fig.": "figure",
        "ch.": "chapter", "sec.": "section", "ca.": "about", "c.": "about", "max.": "maximum", "apt.": "apartment",
    },
    after_name={"st.": "street", "dr.": "drive", "mt.": "mountain", "ft.": "feet"},
    symbols={
        "&": "and", "+": "plus", "=": "equals", "@": "at", "#": "number", "%": "percent", "‰": "permille",
        "/": "slash", "§": "section", "°": "degrees", "×": "times", "÷": "divided by", "<": "less than",
        ">": "greater than", "±": "plus or minus", "~": "about", "_": "underscore", "\\": "backslash", "*": "star",
        "€": "euros", "$": "dollars", "£": "pounds", "¥": "yen", "≈": "about", "≤": "at most", "≥": "at least",
        "²": "squared", "³": "cubed", "µ": "micro", "©": "copyright", "®": "registered", "™": "trademark",
        "|": "bar", "^": "caret", "№": "number", "→": "to",
    },
    point="dot", to="to", minus="minus",
    money={
        "USD": Money(one="dollar", many="dollars", minor="cents", minor_one="cent"),
        "EUR": Money(one="euro", many="euros", minor="cents", minor_one="cent"),
        "GBP": Money(one="pound", many="pounds", minor="pence", minor_one="penny"),
    },
    amount="{major} and {minor} {cents}",
    scales={
        "thousand": "thousand", "million": "million", "billion": "billion", "trillion": "trillion", "k": "thousand",
        "m": "million", "b": "billion", "bn": "billion", "tn": "trillion",
    },
    time="{h} {m}", full_hour="{h} o'clock", few_minutes="oh {m}",
    date="{month} {day}", ordinal_days=True, ordinal_marks="st|nd|rd|th",
    fractions={
        "1/2": "one half", "1/3": "one third", "2/3": "two thirds", "1/4": "one quarter", "3/4": "three quarters",
    },
    and_fraction="and", year_shapes=True, decades=True,
)  # fmt: skip

_GERMAN_LEADS = frozenset(
    "am vom zum beim im der die das den dem des dieser diese dieses diesem diesen jeder jede jedes jedem jeden ein "
    "eine "
    "einem einen einer bis seit ab mein meine meinem meinen sein seine ihr ihre unser unsere zur".split()
)

DE = SpokenForms(
    titles={
        "dr.": "Doktor", "prof.": "Professor", "hr.": "Herr", "hrn.": "Herrn", "fr.": "Frau", "st.": "Sankt",
        "dipl.-ing.": "Diplomingenieur", "ing.": "Ingenieur", "frl.": "Fräulein", "hl.": "heilige",
    },
    abbreviations={
        "z.b.": "zum Beispiel", "z. b.": "zum Beispiel", "d.h.": "das heißt", "d. h.": "das heißt",
        "u.a.": "unter anderem", "u. a.": "unter anderem", "usw.": "und so weiter", "usf.": "und so fort",
        "bzw.": "beziehungsweise", "ca.": "circa", "evtl.": "eventuell", "ggf.": "gegebenenfalls", "inkl.": "inklusive",
        "exkl.": "exklusive", "etc.": "et cetera", "vgl.": "vergleiche", "s.o.": "siehe oben", "s. o.": "siehe oben",
        "s.u.": "siehe unten", "s. u.": "siehe unten", "o.ä.": "oder ähnliches", "o. ä.": "oder ähnliches",
        "u.s.w.": "und so weiter", "i.d.r.": "in der Regel", "i. d. r.": "in der Regel", "v.a.": "vor allem",
        "v. a.": "vor allem", "z.t.": "zum Teil", "z. t.": "zum Teil", "z.z.": "zurzeit", "zzgl.": "zuzüglich",
        "tel.": "Telefon", "str.": "Straße", "bspw.": "beispielsweise", "sog.": "sogenannte", "geb.": "geboren",
        "gest.": "gestorben", "min.": "mindestens", "jh.": "Jahrhundert", "mio.": "Millionen",
        "mrd.": "Milliarden", "n.chr.": "nach Christus", "n. chr.": "nach Christus",
        "v.chr.": "vor Christus", "v. chr.": "vor Christus", "bes.": "besonders", "allg.": "allgemein",
    },
    suffixes={"str.": "straße"},
    before_number={
        "nr.": "Nummer", "s.": "Seite", "bd.": "Band", "abb.": "Abbildung", "kap.": "Kapitel", "abs.": "Absatz",
        "art.": "Artikel", "max.": "maximal",
    },
    symbols={
        "&": "und", "+": "plus", "=": "gleich", "@": "at", "#": "Raute", "%": "Prozent", "‰": "Promille",
        "/": "Schrägstrich", "§": "Paragraf", "°": "Grad", "×": "mal", "÷": "geteilt durch", "<": "kleiner als",
        ">": "größer als", "±": "plus minus", "~": "etwa", "_": "Unterstrich", "\\": "Backslash", "*": "Stern",
        "€": "Euro", "$": "Dollar", "£": "Pfund", "¥": "Yen", "≈": "etwa", "≤": "höchstens", "≥": "mindestens",
        "²": "hoch zwei", "³": "hoch drei", "µ": "Mikro", "|": "Strich", "№": "Nummer", "→": "zu",
    },
    point="Punkt", to="bis", minus="minus",
    money={
        "USD": Money(one="Dollar", many="Dollar", minor="Cent"),
        "EUR": Money(one="Euro", many="Euro", minor="Cent"),
        "GBP": Money(one="Pfund", many="Pfund", minor="Pence"),
        "JPY": Money(one="Yen", many="Yen", minor="Sen"),
        "CHF": Money(one="Franken", many="Franken", minor="Rappen"),
    },
    amount="{major} {minor}",
    scales={
        "tausend": "tausend", "mio.": "Millionen", "mio": "Millionen", "mrd.": "Milliarden", "mrd": "Milliarden",
        "million": "Million", "millionen": "Millionen", "milliarde": "Milliarde", "milliarden": "Milliarden",
    },
    time="{h} Uhr {m}", full_hour="{h} Uhr", hour_mark="Uhr", between=":.",
    date="{day} {month}", ordinal_days=True, ordinal_marks=r"\.",
    ordinal_forms={
        r"(?:am|vom|zum|beim|im|den|dem|des|bis|seit|ab|zur|(?:dies|jed|ein|mein|sein|ihr|unser)e[mnrs])": "-n",
        r"(?:der|die|das|dies?e[rs]?|eine|meine|seine|ihre|unsere)": "",
        r".*": "-r",
    },
    ordinal_leads=_GERMAN_LEADS,
    fractions={
        "1/2": "ein halb", "1/3": "ein Drittel", "2/3": "zwei Drittel", "1/4": "ein Viertel", "3/4": "drei Viertel",
    },
    and_fraction="", year_shapes=True,
    glued="er|ern|jährig[a-z]*|fach[a-z]*|mal|prozentig[a-z]*|teilig[a-z]*|stündig[a-z]*|tägig[a-z]*",
    feminine_units=frozenset({
        "duration-hour", "duration-minute", "duration-second", "duration-millisecond", "mass-tonne", "mass-ounce",
        "length-mile", "speed-mile-per-hour", "energy-kilowatt-hour",
    }),
    letters={"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"},
)  # fmt: skip

FR = SpokenForms(
    titles={
        "m.": "monsieur", "mm.": "messieurs", "mme": "madame", "mmes": "mesdames", "mlle": "mademoiselle",
        "dr": "docteur", "dr.": "docteur", "pr.": "professeur", "st.": "saint", "ste.": "sainte", "bd.": "boulevard",
    },
    abbreviations={
        "etc.": "et cetera", "p. ex.": "par exemple", "p.ex.": "par exemple", "c.-à-d.": "c'est-à-dire",
        "env.": "environ", "av.": "avenue", "tél.": "téléphone", "cf.": "confer",
    },
    before_number={"n°": "numéro", "no.": "numéro", "nº": "numéro", "p.": "page", "vol.": "volume", "art.": "article"},
    symbols={
        "&": "et", "+": "plus", "=": "égale", "@": "arobase", "#": "dièse", "%": "pour cent", "/": "barre oblique",
        "§": "paragraphe", "°": "degrés", "×": "fois", "÷": "divisé par", "<": "inférieur à", ">": "supérieur à",
        "±": "plus ou moins", "~": "environ", "_": "tiret bas", "€": "euros", "$": "dollars", "£": "livres",
        "*": "étoile",
    },
    point="point", to="à", minus="moins",
    money={
        "USD": Money(one="dollar", many="dollars", minor="cents", minor_one="cent"),
        "EUR": Money(one="euro", many="euros", minor="centimes", minor_one="centime"),
        "GBP": Money(one="livre", many="livres", minor="pence", minor_one="penny", feminine=True),
    },
    amount="{major} {minor}",
    scales={"million": "million", "millions": "millions", "milliard": "milliard", "milliards": "milliards"},
    time="{h} heure{s} {m}", full_hour="{h} heure{s}", feminine_hour=True, hour_mark="h(?:eures?)?", between=":h",
    date="{day} {month}", first_day="premier", ordinal_marks="ers?|ère|re|e|è?me|nde?",
    ordinal_forms={r"(?:ère|re|nde)": "-feminine", r".*": "-masculine"},
    fractions={
        "1/2": "un demi", "1/3": "un tiers", "2/3": "deux tiers", "1/4": "un quart", "3/4": "trois quarts",
    },
    and_fraction="et",
    feminine_units=frozenset({"duration-hour", "duration-minute", "duration-second", "mass-tonne", "mass-pound"}),
    apostrophe_parts=True,
)  # fmt: skip

ES = SpokenForms(
    titles={
        "sr.": "señor", "sra.": "señora", "srta.": "señorita", "sres.": "señores", "dr.": "doctor", "dra.": "doctora",
        "d.": "don", "d.ª": "doña", "prof.": "profesor", "sta.": "santa", "sto.": "santo", "ing.": "ingeniero",
    },
    abbreviations={
        "etc.": "etcétera", "p. ej.": "por ejemplo", "p.ej.": "por ejemplo", "ud.": "usted", "uds.": "ustedes",
        "aprox.": "aproximadamente", "avda.": "avenida", "c/": "calle", "tel.": "teléfono", "ee.uu.": "estados unidos",
        "ee. uu.": "estados unidos", "a.m.": "a m", "p.m.": "p m", "a. m.": "a m", "p. m.": "p m",
    },
    before_number={"n.º": "número", "nº": "número", "núm.": "número", "n°": "número", "pág.": "página", "p.": "página"},
    symbols={
        "&": "y", "+": "más", "=": "igual a", "@": "arroba", "#": "número", "%": "por ciento", "/": "barra",
        "§": "sección", "°": "grados", "×": "por", "÷": "dividido por", "<": "menor que", ">": "mayor que",
        "±": "más menos", "~": "aproximadamente", "_": "guion bajo", "€": "euros", "$": "dólares", "£": "libras",
        "*": "asterisco",
    },
    point="punto", to="a", minus="menos",
    money={
        "USD": Money(one="dólar", many="dólares", minor="centavos", minor_one="centavo"),
        "EUR": Money(one="euro", many="euros", minor="céntimos", minor_one="céntimo"),
        "GBP": Money(one="libra", many="libras", minor="peniques", minor_one="penique", feminine=True),
    },
    amount="{major} con {minor} {cents}",
    scales={"mil": "mil", "millón": "millón de", "millones": "millones de"},
    time="{h} y {m}", full_hour="{h}", feminine_hour=True,
    date="{day} de {month}", first_day="primero", ordinal_marks=r"\.?[ºª]|\.er|er",
    ordinal_forms={r".*ª": "-feminine", r".*er": "-masculine-adjective", r".*": "-masculine"},
    fractions={
        "1/2": "un medio", "1/3": "un tercio", "2/3": "dos tercios", "1/4": "un cuarto", "3/4": "tres cuartos",
    },
    and_fraction="y", feminine_units=frozenset({"duration-hour", "mass-tonne", "mass-pound", "mass-ounce",
    "length-mile"}),
)  # fmt: skip

NL = SpokenForms(
    titles={
        "dhr.": "de heer", "mevr.": "mevrouw", "mw.": "mevrouw", "dr.": "dokter", "drs.": "doctorandus",
        "prof.": "professor", "ir.": "ingenieur", "st.": "sint", "mr.": "meester",
    },
    abbreviations={
        "bijv.": "bijvoorbeeld", "bv.": "bijvoorbeeld", "enz.": "enzovoort", "o.a.": "onder andere",
        "o. a.": "onder andere", "d.w.z.": "dat wil zeggen", "m.a.w.": "met andere woorden",
        "t.o.v.": "ten opzichte van",
        "i.v.m.": "in verband met", "a.u.b.": "alstublieft", "ca.": "circa", "incl.": "inclusief", "excl.": "exclusief",
        "evt.": "eventueel", "m.b.t.": "met betrekking tot", "jl.": "jongstleden", "tel.": "telefoon",
        "etc.": "et cetera",
        "a.s.": "aanstaande", "p.st.": "per stuk",
    },
    before_number={"nr.": "nummer", "blz.": "bladzijde", "p.": "pagina", "art.": "artikel"},
    symbols={
        "&": "en", "+": "plus", "=": "is gelijk aan", "@": "apenstaartje", "#": "nummer", "%": "procent",
        "/": "schuine streep", "§": "paragraaf", "°": "graden", "×": "keer", "÷": "gedeeld door", "<": "kleiner dan",
        ">": "groter dan", "±": "plusminus", "~": "ongeveer", "_": "laag streepje", "€": "euro", "$": "dollar",
        "£": "pond", "*": "sterretje",
    },
    point="punt", to="tot", minus="min",
    money={
        "USD": Money(one="dollar", many="dollar", minor="cent"),
        "EUR": Money(one="euro", many="euro", minor="cent"),
        "GBP": Money(one="pond", many="pond", minor="pence", minor_one="penny"),
    },
    amount="{major} {minor}",
    scales={"miljoen": "miljoen", "miljard": "miljard", "mln.": "miljoen", "mln": "miljoen", "mld.": "miljard"},
    time="{h} uur {m}", full_hour="{h} uur", hour_mark="uur|u", between=":.",
    date="{day} {month}", ordinal_marks="e|de|ste",
    fractions={
        "1/2": "een half", "1/3": "een derde", "2/3": "twee derde", "1/4": "een kwart", "3/4": "drie kwart",
    },
    and_fraction="en", year_shapes=True,
)  # fmt: skip

IT = SpokenForms(
    titles={
        "sig.": "signor", "sig.ra": "signora", "dott.": "dottor", "dott.ssa": "dottoressa", "prof.": "professor",
        "ing.": "ingegner", "avv.": "avvocato", "on.": "onorevole",
    },
    abbreviations={
        "ecc.": "eccetera", "ad es.": "ad esempio", "p. es.": "per esempio", "p.es.": "per esempio", "ca.": "circa",
        "tel.": "telefono",
    },
    before_number={"n.": "numero", "nº": "numero", "n°": "numero", "pag.": "pagina", "p.": "pagina",
    "art.": "articolo"},
    symbols={
        "&": "e", "+": "più", "=": "uguale", "@": "chiocciola", "#": "cancelletto", "%": "per cento", "/": "barra",
        "§": "paragrafo", "°": "gradi", "×": "per", "÷": "diviso", "<": "minore di", ">": "maggiore di",
        "±": "più o meno", "~": "circa", "_": "trattino basso", "€": "euro", "$": "dollari", "£": "sterline",
        "*": "asterisco",
    },
    point="punto", to="a", minus="meno",
    money={
        "USD": Money(one="dollaro", many="dollari", minor="centesimi", minor_one="centesimo"),
        "EUR": Money(one="euro", many="euro", minor="centesimi", minor_one="centesimo"),
        "GBP": Money(one="sterlina", many="sterline", minor="penny", feminine=True),
    },
    amount="{major} e {minor} {cents}",
    scales={"mila": "mila", "milione": "milione di", "milioni": "milioni di", "miliardi": "miliardi di"},
    time="{h} e {m}", full_hour="{h}", feminine_hour=True,
    date="{day} {month}", first_day="primo", ordinal_marks="[º°ª]",
    ordinal_forms={"ª": "-feminine", r".*": "-masculine"},
    fractions={
        "1/2": "un mezzo", "1/3": "un terzo", "2/3": "due terzi", "1/4": "un quarto", "3/4": "tre quarti",
    },
    and_fraction="e", feminine_units=frozenset({"duration-hour", "mass-tonne", "length-mile"}), apostrophe_parts=True,
)  # fmt: skip

ZH = SpokenForms(
    symbols={
        "&": "和", "+": "加", "=": "等于", "@": "艾特", "#": "井号", "%": "百分号", "×": "乘", "÷": "除以", "°": "度",
    },
    point="点", to="到", minus="负", percent="百分之{n}",
    money={"CNY": Money(one="元", many="元", minor="分")},
    time="{h}点{m}分", full_hour="{h}点", date="{month}{day}日",
    fractions={
        "1/2": "二分之一", "1/3": "三分之一", "2/3": "三分之二", "1/4": "四分之一", "3/4": "四分之三",
    },
)  # fmt: skip

FORMS: Mapping[str, SpokenForms] = {
    "en": EN, "de": DE, "fr": FR, "es": ES, "nl": NL, "it": IT, "zh": ZH,
    "pt": SpokenForms(
        symbols={"&": "e", "@": "arroba", "#": "número", "§": "parágrafo", "+": "mais", "=": "igual a"}, point="ponto",
    ),
    "pl": SpokenForms(
        symbols={"&": "i", "@": "małpa", "#": "numer", "§": "paragraf", "+": "plus", "=": "równa się"}, point="kropka",
    ),
    "ru": SpokenForms(
        symbols={"&": "и", "@": "собака", "#": "номер", "§": "параграф", "+": "плюс", "=": "равно"}, point="точка",
    ),
    "ja": SpokenForms(symbols={"&": "アンド", "@": "アット", "+": "プラス", "=": "イコール"}, point="ドット"),
    # CLDR has only the sign of these:
    "ko": SpokenForms(percent="{n} 퍼센트"), "vi": SpokenForms(percent="{n} phần trăm"),
    "ar": SpokenForms(percent="{n} بالمئة"),
}  # fmt: skip
"""By the primary subtag of the language."""


def forms_of(lang: str) -> SpokenForms:
    """The table of a language, or `DEFAULT`."""
    return FORMS.get(primary(lang), DEFAULT)
