"""Names, facts and made-up words of the training text. All of it is written for this project."""

CAPITALS = [  # country, Italian genitive, capital, Italian capital
    ("Italy", "dell'Italia", "Rome", "Roma"), ("France", "della Francia", "Paris", "Parigi"),
    ("Spain", "della Spagna", "Madrid", "Madrid"), ("Portugal", "del Portogallo", "Lisbon", "Lisbona"),
    ("Germany", "della Germania", "Berlin", "Berlino"), ("Austria", "dell'Austria", "Vienna", "Vienna"),
    ("Greece", "della Grecia", "Athens", "Atene"), ("Poland", "della Polonia", "Warsaw", "Varsavia"),
    ("Norway", "della Norvegia", "Oslo", "Oslo"), ("Sweden", "della Svezia", "Stockholm", "Stoccolma"),
    ("Ireland", "dell'Irlanda", "Dublin", "Dublino"), ("Hungary", "dell'Ungheria", "Budapest", "Budapest"),
    ("Japan", "del Giappone", "Tokyo", "Tokyo"), ("Egypt", "dell'Egitto", "Cairo", "Il Cairo"),
    ("Canada", "del Canada", "Ottawa", "Ottawa"), ("Finland", "della Finlandia", "Helsinki", "Helsinki"),
]
OPPOSITES = [  # word, opposite; Italian word, opposite
    ("hot", "cold", "caldo", "freddo"), ("big", "small", "grande", "piccolo"),
    ("day", "night", "giorno", "notte"), ("up", "down", "su", "giù"), ("old", "new", "vecchio", "nuovo"),
    ("open", "closed", "aperto", "chiuso"), ("fast", "slow", "veloce", "lento"),
    ("full", "empty", "pieno", "vuoto"), ("near", "far", "vicino", "lontano"),
    ("light", "dark", "chiaro", "scuro"), ("first", "last", "primo", "ultimo"),
    ("strong", "weak", "forte", "debole"), ("high", "low", "alto", "basso"), ("yes", "no", "sì", "no"),
]
TRANSLATIONS = [
    ("dog", "cane"), ("cat", "gatto"), ("house", "casa"), ("water", "acqua"), ("bread", "pane"),
    ("wine", "vino"), ("sun", "sole"), ("moon", "luna"), ("sea", "mare"), ("book", "libro"),
    ("tree", "albero"), ("milk", "latte"), ("fire", "fuoco"), ("friend", "amico"), ("school", "scuola"),
    ("workshop", "bottega"), ("road", "strada"), ("bridge", "ponte"), ("heart", "cuore"), ("time", "tempo"),
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
GIORNI = ["lunedì", "martedì", "mercoledì", "giovedì", "venerdì", "sabato", "domenica"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December"]
MESI = ["gennaio", "febbraio", "marzo", "aprile", "maggio", "giugno", "luglio", "agosto", "settembre",
        "ottobre", "novembre", "dicembre"]
COLOURS = [  # thing, colour; Italian subject with article, colour
    ("the sky", "blue", "il cielo", "blu"), ("grass", "green", "l'erba", "verde"),
    ("snow", "white", "la neve", "bianca"), ("a banana", "yellow", "la banana", "gialla"),
    ("coal", "black", "il carbone", "nero"), ("a tomato", "red", "il pomodoro", "rosso"),
]
LEGS = [("a dog", 4, "un cane"), ("a bird", 2, "un uccello"), ("a spider", 8, "un ragno"),
        ("an ant", 6, "una formica"), ("a horse", 4, "un cavallo"), ("a snake", 0, "un serpente")]

PEOPLE = ["Anna", "Marco", "Luca", "Giulia", "Sara", "Paolo", "Elena", "Piero", "Chiara", "Tommaso",
          "Irene", "Dario", "Nora", "Bruno", "Livia", "Omar", "Alice", "Ugo", "Emma", "Leo"]
CITIES = ["Roma", "Milano", "Torino", "Napoli", "Bologna", "Firenze", "Venezia", "Genova", "Bari",
          "Palermo", "Trento", "Perugia", "Lecce", "Pisa", "Verona", "Paris", "London", "Madrid",
          "Berlin", "Oslo", "Vienna", "Dublin", "Lisbon", "Athens", "Tokyo", "Cairo"]
THINGS = [("apples", "mele"), ("books", "libri"), ("coins", "monete"), ("nails", "chiodi"),
          ("tiles", "piastrelle"), ("pears", "pere"), ("stones", "sassi"), ("cups", "tazze")]
EN_WORDS = ("the a small red old blue house bird road stone river cat bread table garden clock sings "
            "runs falls opens light hand green slow tool wood paper wheel bridge glass lamp rope "
            "morning winter cold water fire nail brush under over near with and").split()
IT_WORDS = ("il la un una piccolo rosso vecchio blu casa uccello strada sasso fiume gatto pane tavolo "
            "giardino orologio canta corre cade apre luce mano verde lento legno carta ruota ponte "
            "vetro lampada corda mattina inverno freddo acqua fuoco chiodo sotto sopra vicino con e").split()


def made_up(rng):
    """A word that is in no list: one to three syllables."""
    word = ""
    for _ in range(rng.choice((1, 2, 2, 3))):
        word += rng.choice("bcdfglmnprstvz") + rng.choice("aeiou")
        if rng.random() < 0.25:
            word += rng.choice("lnrst")
    return word


def city(rng):
    if rng.random() < 0.35:
        return rng.choice(CITIES)
    name = made_up(rng).capitalize()
    if rng.random() < 0.15:
        name = rng.choice(("San ", "Monte ", "New ")) + name
    return name


def person(rng):
    return rng.choice(PEOPLE) if rng.random() < 0.5 else made_up(rng).capitalize()


def phrase(rng, low, high, known=0.55):
    def word():
        chance = rng.random()
        if chance < 0.06:
            return str(rng.randrange(10000))
        return rng.choice(pool) if chance < known else made_up(rng)
    pool = rng.choice((EN_WORDS, IT_WORDS))
    return [word() for _ in range(rng.randint(low, high))]
