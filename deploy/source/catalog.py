"""Hand-made lists behind the generated data: people, categories, merchants, habits and what people write.

Amounts are euro cents before a user's income and currency are applied. Every name is invented.
"""
# ruff: noqa: RUF001 - letters and signs that look like others are what this text is for

from dataclasses import dataclass

COUNTRIES = (
    "DE", "DE", "AT", "FR", "GB", "JP", "DE", "PL", "SE", "US",
    "CH", "ES", "DE", "IE", "FR", "GB", "AT", "TR", "JP", "US",
)  # fmt: skip
"""Countries of users 1, 2, …, repeated: the first two share a currency at every scale."""

CURRENCIES = {
    "DE": "EUR", "AT": "EUR", "FR": "EUR", "ES": "EUR", "IE": "EUR", "GB": "GBP", "CH": "CHF",
    "US": "USD", "PL": "PLN", "SE": "SEK", "JP": "JPY", "TR": "TRY",
}  # fmt: skip

RATES = {"EUR": 1.0, "GBP": 0.86, "CHF": 1.05, "USD": 1.1, "PLN": 4.3, "SEK": 11.2, "JPY": 160.0, "TRY": 30.0}
"""Units of the currency per euro: one rate for all three years keeps the amounts plausible, nothing more."""

WHOLE_UNITS = frozenset({"JPY"})
"""Currencies without a smaller unit: their amounts are multiples of 100 cents."""

NAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "DE": (
        ("Jürgen", "Änne", "Björn", "Käthe", "Lukas", "Marie", "Özlem", "Sören", "Zoë", "Jan-Philipp"),
        ("Müller", "Groß", "Schäfer", "Weiß", "Köhler", "von der Heide", "Yılmaz", "Lütke-Daldrup", "Böhm"),
    ),
    "AT": (("Leopold", "Resi", "Jörg", "Anna", "Günther"), ("Hölzl", "Gruber", "Österreicher", "Pichler", "Fürst")),
    "FR": (
        ("Chloé", "François", "Noël", "Anaïs", "Benoît", "Hélène"),
        ("d'Aubigné", "L'Hôpital", "Lefèvre", "Garçon", "Dupont", "N'Diaye"),
    ),
    "ES": (("Íñigo", "Begoña", "José María", "Lucía", "Ángel"), ("Núñez", "Peña", "García", "Ibáñez", "Muñoz")),
    "GB": (("Oliver", "Amelia", "Siân", "George", "Zoe"), ("Smith", "O'Connor", "Ap Rhŷs", "Taylor", "Ng")),
    "IE": (("Seán", "Aoife", "Niamh", "Pádraig", "Róisín"), ("O'Brien", "Ó Súilleabháin", "Murphy", "Ní Dhomhnaill")),
    "CH": (("Urs", "Noémie", "Beat", "Flurina", "Luca"), ("Zürcher", "Bünzli", "Rüegg", "Favre", "Bernasconi")),
    "US": (("Ashley", "DeShawn", "José", "Emily", "Wei"), ("Johnson", "D'Angelo", "O’Neil", "Nguyen", "Smith, Jr.")),
    "PL": (("Łukasz", "Małgorzata", "Zdzisław", "Żaneta", "Paweł"), ("Wiśniewski", "Dąbrowska", "Żak", "Świątek")),
    "SE": (("Åsa", "Göran", "Märta", "Björn", "Linnéa"), ("Öberg", "Sjöström", "Ångström", "Lindqvist")),
    "TR": (("Şebnem", "Çağlar", "İbrahim", "Gül", "Ömer"), ("Yıldız", "Öztürk", "Çelik", "Şahin")),
    "JP": (("健太", "さくら", "陽菜", "大輔", "ゆき"), ("佐藤", "鈴木", "高橋", "田中", "𠮷田")),
}
"""Per country: first names, last names. 𠮷 lies outside Unicode's basic plane on purpose."""

NICKNAMES = ("Bob", "Mäx", "陳", "T. J.", "🐻", "d'Artagnan")

NOTES = (
    "VIP — answer within 24 h",
    "Prefers to be called \"Doc\", not 'Doctor'",
    "Robert'); DROP TABLE users;--",
    'Said: "it\'s 100 % wrong" 🤬, then apologised 🙏',
    "Statements go to C:\\Users\\shared\\bank\\2024",
    "two lines,\nand a\ttab",
    "",
    "  leading and trailing spaces  ",
    "NULL",
    "=SUM(A1:A9)",
    "Zoë & Söhne <zoe@example.org>; ß, ẞ, ﬁ, é ≠ é",
    "客户来自上海，喜欢中文邮件",
    "👩‍👩‍👧‍👦 family plan since 2021",
    "\\N",
    "مرحبا، يفضل العربية",
)

ACCOUNT_NAMES = {
    "checking": ("Girokonto", "Everyday", 'Compte "principal"', "Household, joint", "普通預金", "Main account 💳"),
    "savings": ("Notgroschen", "Rainy day ☔", "Livret d'épargne", "Urlaub: Südtirol", "Savings \\ long term"),
    "credit": ('Visa "Gold"', "Karte 'Plus'", "Mastercard", "Crédit, 30 days"),
    "cash": ("Wallet", "Geldbörse", "Tom's jar", "現金"),
    "external": ("Outside world",),
}
"""Per kind of account; the order of the kinds is that of a user's accounts."""

CATEGORIES: tuple[tuple[str, str | None, str], ...] = (
    ("Income", None, "income"),
    ("Salary", "Income", "income"),
    ("Bonus", "Salary", "income"),
    ("Freelance", "Income", "income"),
    ("Interest", "Income", "income"),
    ("Housing", None, "expense"),
    ("Rent", "Housing", "expense"),
    ("Utilities", "Housing", "expense"),
    ("Electricity", "Utilities", "expense"),
    ("Internet & phone", "Utilities", "expense"),
    ("Insurance", None, "expense"),
    ("Food & drink", None, "expense"),
    ("Groceries", "Food & drink", "expense"),
    ("Restaurants", "Food & drink", "expense"),
    ("Café / Bäckerei", "Food & drink", "expense"),
    ("Transport", None, "expense"),
    ("Public transport", "Transport", "expense"),
    ("Fuel", "Transport", "expense"),
    ("Leisure", None, "expense"),
    ("Subscriptions", "Leisure", "expense"),
    ("Travel", "Leisure", "expense"),
    ("Shopping", None, "expense"),
    ("Clothing", "Shopping", "expense"),
    ("Electronics", "Shopping", "expense"),
    ("Kids' things", "Shopping", "expense"),
    ("Health", None, "expense"),
    ("Gifts 🎁", None, "expense"),
    ('"Other", unsorted', None, "expense"),
)
"""(name, parent, kind), parents first; category_id is the position from 1."""

MERCHANTS: tuple[tuple[str, str, str | None, str | None], ...] = (
    ("Nordwind Logistik GmbH", "Salary", "Hamburg", "https://nordwind.example/karriere?ref=gehalt&lang=de"),
    ("O'Hara & Sons Ltd", "Salary", "Dublin", None),
    ("Städtisches Klinikum", "Salary", "München", "https://klinikum.example"),
    ("Université de l'Est", "Salary", "Nancy", "https://univ-est.example"),
    ("株式会社さくら商事", "Salary", "東京", "https://sakura.example"),
    ("Freelance Hub", "Freelance", None, "https://freelance.example"),
    ('Agentur "Drei Punkte"', "Freelance", "Wien", None),
    ("Savings & Trust", "Interest", "Zürich", None),
    ("Hausverwaltung Krüger", "Rent", "Berlin", None),
    ("Immobilière d'Azur", "Rent", "Nice", "https://azur.example"),
    ("Smith, Jones & Co. Lettings", "Rent", "London", "https://sjc.example"),
    ("Stadtwerke", "Electricity", "Köln", "https://stadtwerke.example"),
    ("Énergie Verte", "Electricity", "Lyon", "https://verte.example"),
    ("Volt'n'Watt", "Electricity", None, "https://volt.example"),
    ("TeleFünk", "Internet & phone", None, "https://telefuenk.example"),
    ("Fibre 24/7", "Internet & phone", None, "https://fibre.example"),
    ("Alpenland Versicherung a.G.", "Insurance", "Innsbruck", "https://alpenland.example"),
    ('Mutual "Safe" Insurance', "Insurance", None, None),
    ("Kaufgut", "Groceries", "Bochum", "https://kaufgut.example"),
    ("Bio-Markt Grünschnabel", "Groceries", "Freiburg", None),
    ("Żabi Sklep", "Groceries", "Kraków", None),
    ("Joe's Corner Shop", "Groceries", "Leeds", None),
    ("Épicerie Chez Zoé", "Groceries", "Lille", None),
    ("スーパー丸山", "Groceries", "大阪", None),
    ("Discount 5000", "Groceries", None, "https://d5000.example"),
    ("Frischmarkt\\Nord", "Groceries", "Kiel", None),
    ("Zum Goldenen Löwen", "Restaurants", "Graz", None),
    ("Trattoria Da Nino", "Restaurants", "Zürich", None),
    ("Mama Ngozi's Kitchen", "Restaurants", "London", None),
    ("海底小馆", "Restaurants", "Paris", None),
    ('Burger "Big" Ben', "Restaurants", None, "https://bigben.example"),
    ("Sushi 寿", "Restaurants", "東京", None),
    ("Lokanta İstanbul", "Restaurants", "İzmir", None),
    ("Bäckerei Süß", "Café / Bäckerei", "Leipzig", None),
    ("Café L'Étoile", "Café / Bäckerei", "Paris", None),
    ("Kaffe & Kanelbulle", "Café / Bäckerei", "Malmö", None),
    ("☕ Corner", "Café / Bäckerei", None, None),
    ("Verkehrsbetriebe", "Public transport", "Dresden", "https://vb.example"),
    ("Tåg AB", "Public transport", "Göteborg", "https://tag.example"),
    ("City Bikes", "Public transport", None, "https://bikes.example"),
    ("Tank+Rast", "Fuel", None, None),
    ("Petrol O'Clock", "Fuel", "Cork", None),
    ("Streamly", "Subscriptions", None, "https://streamly.example"),
    ("Tönefunk Musik", "Subscriptions", None, "https://toenefunk.example"),
    ("FitBox Gym", "Subscriptions", "Berlin", "https://fitbox.example"),
    ("Der Tagesbote", "Subscriptions", None, "https://tagesbote.example"),
    ("Cloud\\Drive", "Subscriptions", None, "https://drive.example"),
    ("PixelPlay™", "Subscriptions", None, "https://pixelplay.example"),
    ("Fernweh Reisen", "Travel", "Hannover", "https://fernweh.example"),
    ("Hôtel de la Plage", "Travel", "Biarritz", None),
    ("Air Żuraw", "Travel", None, "https://zuraw.example"),
    ("旅館 山水", "Travel", "京都", None),
    ("Müller & Töchter Moden", "Clothing", "Bremen", None),
    ("Fil d'Or", "Clothing", None, "https://fildor.example"),
    ("Schuh-Ecke", "Clothing", "Linz", None),
    ("Elektro Blitz ⚡", "Electronics", "Stuttgart", "https://blitz.example"),
    ("ビック電器", "Electronics", "東京", None),
    ('Bits "n" Bytes', "Electronics", None, "https://bitsnbytes.example"),
    ("Kinderkram", "Kids' things", "Ulm", None),
    ("Toys 'R' Ours", "Kids' things", None, "https://toys.example"),
    ("Löwen-Apotheke", "Health", "Salzburg", None),
    ("Dr. med. Özdemir", "Health", "Berlin", None),
    ("Fysio Åkesson", "Health", "Lund", None),
    ("Blumen Rösch", "Gifts 🎁", "Basel", None),
    ('Boutique "L\'Idée"', "Gifts 🎁", "Genève", "https://lidee.example"),
    ("MKTPLACE*8812, LUX", '"Other", unsorted', None, None),
    ("PAYHUB *UNKNOWN", '"Other", unsorted', None, None),
)
"""(name, usual category, city, website); merchant_id is the position from 1."""


@dataclass(frozen=True)
class Bill:
    """What comes about once a month, on the same days, at nearly the same amount."""

    category: str
    days: tuple[int, int]
    cents: int
    share: float
    yearly: float = 0.0
    season: tuple[float, ...] = (1.0,) * 12


@dataclass(frozen=True)
class Habit:
    """What people buy when they feel like it."""

    category: str
    per_month: float
    cents: int
    spread: float
    hours: tuple[int, int]
    cash: float = 0.0
    season: tuple[float, ...] = (1.0,) * 12


BILLS = (
    Bill("Rent", (1, 3), 92_000, 0.9, yearly=0.03),
    Bill(
        "Electricity", (8, 12), 8_200, 0.95, yearly=0.06,
        season=(1.5, 1.45, 1.25, 1.0, 0.8, 0.7, 0.65, 0.65, 0.75, 0.95, 1.2, 1.4),
    ),
    Bill("Internet & phone", (14, 16), 4_490, 0.9),
    Bill("Insurance", (1, 5), 6_150, 0.55, yearly=0.04),
)  # fmt: skip

HABITS = (
    Habit(
        "Groceries", 3.5, 4_100, 0.55, (8, 20), cash=0.2,
        season=(0.95, 0.95, 1.0, 1.05, 1.0, 1.0, 0.95, 0.95, 1.0, 1.0, 1.05, 1.3),
    ),
    Habit(
        "Restaurants", 1.7, 3_200, 0.5, (11, 23), cash=0.15,
        season=(0.8, 0.9, 0.95, 1.0, 1.1, 1.15, 1.2, 1.15, 1.05, 0.95, 0.95, 1.2),
    ),
    Habit("Café / Bäckerei", 1.3, 640, 0.45, (7, 17), cash=0.5),
    Habit("Public transport", 0.7, 2_900, 0.7, (7, 22)),
    Habit("Fuel", 0.45, 6_300, 0.3, (7, 21)),
    Habit(
        "Clothing", 0.35, 5_900, 0.6, (9, 22),
        season=(1.2, 0.7, 0.9, 1.1, 1.0, 0.9, 1.1, 0.9, 1.2, 1.1, 1.4, 1.2),
    ),
    Habit(
        "Electronics", 0.15, 16_900, 0.9, (9, 23),
        season=(0.9, 0.6, 0.7, 0.7, 0.8, 0.8, 0.8, 0.8, 1.0, 1.0, 2.6, 1.9),
    ),
    Habit("Kids' things", 0.2, 2_700, 0.6, (9, 21)),
    Habit("Health", 0.3, 2_400, 0.7, (8, 19), season=(1.4, 1.4, 1.2, 1.0, 0.9, 0.8, 0.7, 0.7, 0.9, 1.1, 1.2, 1.3)),
    Habit(
        "Travel", 0.16, 31_000, 0.7, (6, 23),
        season=(0.7, 0.8, 0.9, 1.0, 1.3, 1.7, 2.4, 2.2, 1.1, 0.7, 0.5, 1.3),
    ),
    Habit("Gifts 🎁", 0.2, 3_900, 0.6, (9, 20), season=(0.4, 1.2, 0.7, 0.8, 1.3, 0.8, 0.6, 0.6, 0.7, 0.8, 1.4, 4.5)),
    Habit('"Other", unsorted', 0.15, 1_900, 1.0, (0, 23)),
)  # fmt: skip

SUBSCRIPTIONS = {
    "Streamly": 1_299,
    "Tönefunk Musik": 1_099,
    "FitBox Gym": 2_990,
    "Der Tagesbote": 1_990,
    "Cloud\\Drive": 299,
    "PixelPlay™": 899,
}
"""Monthly price per merchant."""

PHRASES = (
    "Thanks!",
    "paid by phone 📱",
    "für's Büro",
    "split with Anna, she owes me half",
    'the "good" one',
    "it's complicated",
    "Geburtstag Oma 🎂",
    "100% worth it",
    "path\\to\\receipt.pdf",
    "收据在邮箱里",
    "領収書あり",
    "Überraschung — nicht verraten!",
    "reimbursed? yes/no",
    "line one\nline two",
    "a, b; c | d",
    "😀😃😄",
    "l'addition, s'il vous plaît",
    "",
    "1,50 € Trinkgeld",
    "<b>not html</b> &amp; co",
    "'; SELECT 1; --",
    'see note "2024/07"',
    "¡olé!",
    "Ärger, Öl, Übung, Straße",
)
"""What people write on a transaction."""

FRIENDLY = ("Pizza 🍕", "Danke!", "rent's share", 'Geschenk für "Mia"', "割り勘", "concert, row 7", "🙏", None)
"""What people write on a transfer to somebody else."""
