"""Words of the phrase corpus in English, German, French and Spanish, with the forms that its templates need.

Nouns that begin with a vowel or a mute h are left out (French elision), and so are adjectives that stand before the
noun in French: what a template writes is then always grammatical.
"""

from __future__ import annotations

LANGUAGES = ("en", "de", "fr", "es")

# English; German with gender (m, f, n); French with gender; Spanish with gender. Singular and plural each.
NOUNS: tuple[tuple[tuple[str, str], tuple[str, str, str], tuple[str, str, str], tuple[str, str, str]], ...] = (
    (("table", "tables"), ("tisch", "tische", "m"), ("table", "tables", "f"), ("mesa", "mesas", "f")),
    (("chair", "chairs"), ("stuhl", "stühle", "m"), ("chaise", "chaises", "f"), ("silla", "sillas", "f")),
    (("book", "books"), ("buch", "bücher", "n"), ("livre", "livres", "m"), ("libro", "libros", "m")),
    (("car", "cars"), ("auto", "autos", "n"), ("voiture", "voitures", "f"), ("coche", "coches", "m")),
    (("coat", "coats"), ("mantel", "mäntel", "m"), ("manteau", "manteaux", "m"), ("abrigo", "abrigos", "m")),
    (("lamp", "lamps"), ("lampe", "lampen", "f"), ("lampe", "lampes", "f"), ("lámpara", "lámparas", "f")),
    (("key", "keys"), ("schlüssel", "schlüssel", "m"), ("clé", "clés", "f"), ("llave", "llaves", "f")),
    (("letter", "letters"), ("brief", "briefe", "m"), ("lettre", "lettres", "f"), ("carta", "cartas", "f")),
    (("picture", "pictures"), ("bild", "bilder", "n"), ("tableau", "tableaux", "m"), ("cuadro", "cuadros", "m")),
    (("bottle", "bottles"), ("flasche", "flaschen", "f"), ("bouteille", "bouteilles", "f"), ("botella", "botellas", "f")),
    (("bag", "bags"), ("tasche", "taschen", "f"), ("sac", "sacs", "m"), ("bolsa", "bolsas", "f")),
    (("hat", "hats"), ("hut", "hüte", "m"), ("chapeau", "chapeaux", "m"), ("sombrero", "sombreros", "m")),
    (("cup", "cups"), ("tasse", "tassen", "f"), ("tasse", "tasses", "f"), ("taza", "tazas", "f")),
    (("knife", "knives"), ("messer", "messer", "n"), ("couteau", "couteaux", "m"), ("cuchillo", "cuchillos", "m")),
    (("shirt", "shirts"), ("hemd", "hemden", "n"), ("chemise", "chemises", "f"), ("camisa", "camisas", "f")),
    (("clock", "clocks"), ("uhr", "uhren", "f"), ("montre", "montres", "f"), ("reloj", "relojes", "m")),
    (("phone", "phones"), ("telefon", "telefone", "n"), ("téléphone", "téléphones", "m"), ("teléfono", "teléfonos", "m")),
    (("box", "boxes"), ("kiste", "kisten", "f"), ("caisse", "caisses", "f"), ("caja", "cajas", "f")),
    (("bicycle", "bicycles"), ("fahrrad", "fahrräder", "n"), ("vélo", "vélos", "m"), ("bicicleta", "bicicletas", "f")),
    (("carpet", "carpets"), ("teppich", "teppiche", "m"), ("tapis", "tapis", "m"), ("alfombra", "alfombras", "f")),
)  # fmt: skip

# English; German stem; French masculine, feminine; Spanish masculine, feminine.
ADJECTIVES: tuple[tuple[str, str, tuple[str, str], tuple[str, str]], ...] = (
    ("red", "rot", ("rouge", "rouge"), ("rojo", "roja")),
    ("green", "grün", ("vert", "verte"), ("verde", "verde")),
    ("black", "schwarz", ("noir", "noire"), ("negro", "negra")),
    ("white", "weiß", ("blanc", "blanche"), ("blanco", "blanca")),
    ("heavy", "schwer", ("lourd", "lourde"), ("pesado", "pesada")),
    ("clean", "sauber", ("propre", "propre"), ("limpio", "limpia")),
    ("cheap", "billig", ("bon marché", "bon marché"), ("barato", "barata")),
    ("broken", "kaputt", ("cassé", "cassée"), ("roto", "rota")),
    ("strange", "seltsam", ("bizarre", "bizarre"), ("raro", "rara")),
    ("modern", "modern", ("moderne", "moderne"), ("moderno", "moderna")),
    ("round", "rund", ("rond", "ronde"), ("redondo", "redonda")),
    ("yellow", "gelb", ("jaune", "jaune"), ("amarillo", "amarilla")),
)

# English base, third person, past; German infinitive, third person, participle; French infinitive, 3s, 1p, 3p,
# participle; Spanish infinitive, present 3s, 1p, 3p, preterite 3s, 1p, 3p.
VERBS: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    (("buy", "buys", "bought"), ("kaufen", "kauft", "gekauft"), ("acheter", "achète", "achetons", "achètent", "acheté"),
     ("comprar", "compra", "compramos", "compran", "compró", "compramos", "compraron")),
    (("find", "finds", "found"), ("finden", "findet", "gefunden"), ("trouver", "trouve", "trouvons", "trouvent", "trouvé"),
     ("encontrar", "encuentra", "encontramos", "encuentran", "encontró", "encontramos", "encontraron")),
    (("sell", "sells", "sold"), ("verkaufen", "verkauft", "verkauft"), ("vendre", "vend", "vendons", "vendent", "vendu"),
     ("vender", "vende", "vendemos", "venden", "vendió", "vendimos", "vendieron")),
    (("see", "sees", "saw"), ("sehen", "sieht", "gesehen"), ("voir", "voit", "voyons", "voient", "vu"),
     ("ver", "ve", "vemos", "ven", "vio", "vimos", "vieron")),
    (("lose", "loses", "lost"), ("verlieren", "verliert", "verloren"), ("perdre", "perd", "perdons", "perdent", "perdu"),
     ("perder", "pierde", "perdemos", "pierden", "perdió", "perdimos", "perdieron")),
    (("bring", "brings", "brought"), ("bringen", "bringt", "gebracht"), ("porter", "porte", "portons", "portent", "porté"),
     ("traer", "trae", "traemos", "traen", "trajo", "trajimos", "trajeron")),
    (("choose", "chooses", "chose"), ("wählen", "wählt", "gewählt"), ("choisir", "choisit", "choisissons", "choisissent", "choisi"),
     ("elegir", "elige", "elegimos", "eligen", "eligió", "elegimos", "eligieron")),
    (("paint", "paints", "painted"), ("malen", "malt", "gemalt"), ("peindre", "peint", "peignons", "peignent", "peint"),
     ("pintar", "pinta", "pintamos", "pintan", "pintó", "pintamos", "pintaron")),
    (("hide", "hides", "hid"), ("verstecken", "versteckt", "versteckt"), ("cacher", "cache", "cachons", "cachent", "caché"),
     ("esconder", "esconde", "escondemos", "esconden", "escondió", "escondimos", "escondieron")),
    (("clean", "cleans", "cleaned"), ("putzen", "putzt", "geputzt"), ("nettoyer", "nettoie", "nettoyons", "nettoient", "nettoyé"),
     ("limpiar", "limpia", "limpiamos", "limpian", "limpió", "limpiamos", "limpiaron")),
)  # fmt: skip

# The subject in four languages and its person: 3s, 1p or 3p.
SUBJECTS: tuple[tuple[str, str, str, str, str], ...] = (
    ("he", "er", "il", "él", "3s"),
    ("she", "sie", "elle", "ella", "3s"),
    ("my brother", "mein bruder", "mon frère", "mi hermano", "3s"),
    ("my sister", "meine schwester", "ma sœur", "mi hermana", "3s"),
    ("the teacher", "der lehrer", "le professeur", "el profesor", "3s"),
    ("our neighbor", "unser nachbar", "notre voisin", "nuestro vecino", "3s"),
    ("maria", "maria", "maria", "maría", "3s"),
    ("the doctor", "der arzt", "le médecin", "el médico", "3s"),
    ("we", "wir", "nous", "nosotros", "1p"),
    ("the children", "die kinder", "les enfants", "los niños", "3p"),
    ("my parents", "meine eltern", "mes parents", "mis padres", "3p"),
    ("the women", "die frauen", "les femmes", "las mujeres", "3p"),
)

TIMES_PAST: tuple[tuple[str, str, str, str], ...] = (
    ("yesterday", "gestern", "hier", "ayer"),
    ("last week", "letzte woche", "la semaine dernière", "la semana pasada"),
    ("this morning", "heute morgen", "ce matin", "esta mañana"),
    ("on monday", "am montag", "lundi", "el lunes"),
    ("last night", "letzte nacht", "la nuit dernière", "anoche"),
)

TIMES_FUTURE: tuple[tuple[str, str, str, str], ...] = (
    ("tomorrow", "morgen", "demain", "mañana"),
    ("today", "heute", "aujourd'hui", "hoy"),
    ("next week", "nächste woche", "la semaine prochaine", "la próxima semana"),
    ("on friday", "am freitag", "vendredi", "el viernes"),
    ("tonight", "heute abend", "ce soir", "esta noche"),
)

PLACES: tuple[tuple[str, str, str, str], ...] = (
    ("in the garden", "im garten", "dans le jardin", "en el jardín"),
    ("in the kitchen", "in der küche", "dans la cuisine", "en la cocina"),
    ("at the market", "auf dem markt", "au marché", "en el mercado"),
    ("at school", "in der schule", "à l'école", "en la escuela"),
    ("in the city", "in der stadt", "en ville", "en la ciudad"),
    ("behind the house", "hinter dem haus", "derrière la maison", "detrás de la casa"),
    ("under the bed", "unter dem bett", "sous le lit", "debajo de la cama"),
    ("at the station", "am bahnhof", "à la gare", "en la estación"),
)

NUMBERS: tuple[tuple[str, str, str, str], ...] = (
    ("two", "zwei", "deux", "dos"),
    ("three", "drei", "trois", "tres"),
    ("four", "vier", "quatre", "cuatro"),
    ("five", "fünf", "cinq", "cinco"),
    ("ten", "zehn", "dix", "diez"),
    ("twenty", "zwanzig", "vingt", "veinte"),
)

# Modal verbs: English 3s, other; German 3s, plural; French 3s, 1p, 3p; Spanish 3s, 1p, 3p.
MODALS: tuple[tuple[tuple[str, str], tuple[str, str], tuple[str, str, str], tuple[str, str, str]], ...] = (
    (("wants to", "want to"), ("will", "wollen"), ("veut", "voulons", "veulent"), ("quiere", "queremos", "quieren")),
    (("must", "must"), ("muss", "müssen"), ("doit", "devons", "doivent"), ("debe", "debemos", "deben")),
    (("can", "can"), ("kann", "können"), ("peut", "pouvons", "peuvent"), ("puede", "podemos", "pueden")),
)
