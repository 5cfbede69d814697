"""Writes the training text: conversations in five modes, each with the key that decides on which
side of the held-out line it falls. All wordings are our own."""
import itertools
import json
import random
import zlib

import arithmetic
import words

MODES = ("think_en", "think_ita", "turbo_en", "turbo_ita", "none")
SYSTEMS = ["You are a helpful assistant.", "You are Bottega, a small helpful model.",
           "Sei un assistente utile.", "Answer in a few words.", "Rispondi in poche parole."]


def kwargs_of(mode):
    if mode == "none":
        return {"enable_thinking": False}
    kwargs = {"reasoning_lang": mode.split("_")[1]}
    if mode.startswith("turbo"):
        kwargs["enable_turbo"] = True
    return kwargs


def held_out(key):
    """One key in sixteen is never trained on."""
    return zlib.crc32(key.encode()) % 16 == 0


class Sample:
    """A question with its answer, before the mode is put in.

    notes: reasoning as (full English, full Italian, turbo English, turbo Italian).
    key: what must not be shared between training and evaluation; None means the prompt itself.
    """

    def __init__(self, kind, question, answer, notes, key=None):
        self.kind, self.question, self.answer, self.notes, self.key = kind, question, answer, notes, key
        self.tools, self.calls, self.results, self.system, self.history = [], [], [], None, []

    def reasoning(self, mode, index=0):
        if mode == "none":
            return None
        notes = self.notes[index] if isinstance(self.notes, list) else self.notes
        return notes[("think_en", "think_ita", "turbo_en", "turbo_ita").index(mode)]

    def prompt(self):
        messages = [{"role": "system", "content": self.system}] if self.system else []
        return messages + self.history + [{"role": "user", "content": self.question}]

    def replies(self, mode):
        """The messages that follow the prompt; tool results among them."""
        def assistant(index, **fields):
            message = {"role": "assistant", **fields}
            if mode != "none":
                message["reasoning"] = self.reasoning(mode, index)
            return message
        if not self.calls:
            return [assistant(0, content=self.answer)]
        calls = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in self.calls]
        return ([assistant(0, content=None, tool_calls=calls)]
                + [{"role": "tool", "content": r} for r in self.results]
                + [assistant(1, content=self.answer)])


# ---- arithmetic ---------------------------------------------------------------------------------

SUM_EN = ["What is {a} + {b}?", "Compute {a} plus {b}.", "{a} + {b}", "How much is {a} + {b}?",
          "Add {a} and {b}.", "{a}+{b}=?", "What do {a} and {b} make together?",
          "{n} has {a} {t} and gets {b} more. How many {t} are there now?"]
SUM_IT = ["Quanto fa {a} + {b}?", "Calcola {a} più {b}.", "Somma {a} e {b}.", "Fai {a}+{b}.",
          "Quanto fanno {a} e {b} insieme?",
          "{n} ha {a} {t} e ne riceve altre {b}. Quante ne ha adesso?"]
DIFFERENCE_EN = ["What is {a} - {b}?", "Compute {a} minus {b}.", "{a} - {b}", "Subtract {b} from {a}.",
                 "{a}-{b}=?", "How much is {a} less {b}?",
                 "{n} has {a} {t} and gives away {b}. How many {t} are left?"]
DIFFERENCE_IT = ["Quanto fa {a} - {b}?", "Calcola {a} meno {b}.", "Sottrai {b} da {a}.", "Fai {a}-{b}.",
                 "{n} ha {a} {t} e ne regala {b}. Quante ne restano?"]
PRODUCT_EN = ["What is {a} * {b}?", "Compute {a} times {b}.", "{a} * {b}", "Multiply {a} by {b}.",
              "{a}*{b}=?", "There are {b} boxes with {a} {t} each. How many {t} in all?"]
PRODUCT_IT = ["Quanto fa {a} * {b}?", "Calcola {a} per {b}.", "Moltiplica {a} per {b}.", "Fai {a}*{b}.",
              "Ci sono {b} scatole con {a} {t} ciascuna. Quante {t} in tutto?"]
ANSWER_NUMBER = {"en": "The answer is {}.", "it": "Il risultato è {}."}


def fill(rng, wordings, lang, a, b):
    things = rng.choice(words.THINGS)[0 if lang == "en" else 1]
    return rng.choice(wordings).format(a=a, b=b, n=words.person(rng), t=things)


def number(rng, digits):
    return rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10 ** digits)


def make_sum(rng, lang):
    a, b = number(rng, rng.choice((1, 2, 2, 3, 3))), number(rng, rng.choice((2, 2, 3, 3)))
    if rng.random() < 0.5:
        a, b = b, a
    return Sample("sum", fill(rng, SUM_EN if lang == "en" else SUM_IT, lang, a, b),
                  ANSWER_NUMBER[lang].format(a + b), arithmetic.sum_notes(a, b),
                  f"{min(a, b)}+{max(a, b)}")


def make_difference(rng, lang):
    a, b = number(rng, rng.choice((2, 2, 3, 3))), number(rng, rng.choice((1, 2, 2, 3, 3)))
    a, b = max(a, b), min(a, b)
    return Sample("difference", fill(rng, DIFFERENCE_EN if lang == "en" else DIFFERENCE_IT, lang, a, b),
                  ANSWER_NUMBER[lang].format(a - b), arithmetic.difference_notes(a, b), f"{a}-{b}")


def make_product(rng, lang):
    a, b = number(rng, rng.choice((2, 2, 2, 3))), rng.randrange(2, 10)
    return Sample("product", fill(rng, PRODUCT_EN if lang == "en" else PRODUCT_IT, lang, a, b),
                  ANSWER_NUMBER[lang].format(a * b), arithmetic.product_notes(a, b), f"{a}*{b}")


def make_digit_sum(rng, lang):
    a, b = rng.randrange(10), rng.randrange(10)
    wordings = (SUM_EN if lang == "en" else SUM_IT)
    question = fill(rng, wordings, lang, a, b)
    return Sample("digit_sum", question, ANSWER_NUMBER[lang].format(a + b), arithmetic.sum_notes(a, b),
                  f"digits {question}")


# ---- facts --------------------------------------------------------------------------------------

def make_fact(rng, lang):
    """One relation of the tables in words.py: (questions, answer, short reasoning in both languages)."""
    relation = rng.choice(("capital", "capital", "opposite", "opposite", "translation", "translation",
                           "day", "month", "colour", "legs"))
    en = lang == "en"
    if relation == "capital":
        land, genitive, city, citta = rng.choice(words.CAPITALS)
        questions = ([f"What is the capital of {land}?", f"Which city is the capital of {land}?",
                      f"Tell me the capital of {land}.", f"Do you know the capital of {land}?",
                      f"{land}: what is its capital?", f"Name the capital of {land}."] if en else
                     [f"Qual è la capitale {genitive}?", f"Dimmi la capitale {genitive}.",
                      f"Conosci la capitale {genitive}?", f"Che città è la capitale {genitive}?"])
        answer = f"The capital of {land} is {city}." if en else f"La capitale {genitive} è {citta}."
        notes = f"the capital of {land} is {city}", f"la capitale {genitive} è {citta}"
    elif relation == "opposite":
        word, other, parola, opposto = rng.choice(words.OPPOSITES)
        if rng.random() < 0.5:
            word, other, parola, opposto = other, word, opposto, parola
        questions = ([f"What is the opposite of {word}?", f"Opposite of {word}?",
                      f"Tell me the opposite of {word}.", f"Which word means the opposite of {word}?"]
                     if en else
                     [f"Qual è il contrario di {parola}?", f"Dimmi il contrario di {parola}.",
                      f"Contrario di {parola}?", f"Che parola è il contrario di {parola}?"])
        answer = f"The opposite of {word} is {other}." if en else f"Il contrario di {parola} è {opposto}."
        notes = f"the opposite of {word} is {other}", f"il contrario di {parola} è {opposto}"
    elif relation == "translation":
        word, parola = rng.choice(words.TRANSLATIONS)
        if en:
            questions = [f"How do you say {word} in Italian?", f"Translate {word} into Italian.",
                         f"What is {word} in Italian?", f"Give me the Italian word for {word}."]
            answer = f"In Italian, {word} is {parola}."
        else:
            questions = [f"Come si dice {parola} in inglese?", f"Traduci {parola} in inglese.",
                         f"Che cosa vuol dire {parola} in inglese?", f"Dimmi {parola} in inglese."]
            answer = f"In inglese, {parola} si dice {word}."
        notes = f"{word} in Italian is {parola}", f"{parola} in inglese è {word}"
    elif relation in ("day", "month"):
        names, nomi = (words.DAYS, words.GIORNI) if relation == "day" else (words.MONTHS, words.MESI)
        i = rng.randrange(len(names))
        j, step, before = (i + 1) % len(names), "after", "dopo"
        if rng.random() < 0.4:
            j, step, before = (i - 1) % len(names), "before", "prima di"
        unit, unita = ("day", "giorno") if relation == "day" else ("month", "mese")
        questions = ([f"Which {unit} comes {step} {names[i]}?", f"What {unit} is {step} {names[i]}?",
                      f"Tell me the {unit} {step} {names[i]}."] if en else
                     [f"Quale {unita} viene {before} {nomi[i]}?", f"Che {unita} c'è {before} {nomi[i]}?",
                      f"Dimmi il {unita} {before} {nomi[i]}."])
        answer = (f"The {unit} {step} {names[i]} is {names[j]}." if en else
                  f"Il {unita} {before} {nomi[i]} è {nomi[j]}.")
        notes = f"{step} {names[i]} comes {names[j]}", f"{before} {nomi[i]} viene {nomi[j]}"
    elif relation == "colour":
        thing, colour, cosa, colore = rng.choice(words.COLOURS)
        questions = ([f"What colour is {thing}?", f"Tell me the colour of {thing}.",
                      f"Which colour does {thing} have?"] if en else
                     [f"Di che colore è {cosa}?", f"Che colore ha {cosa}?", f"Dimmi: che colore ha {cosa}?"])
        answer = (f"{thing} is {colour}." if en else f"{cosa} è {colore}.")
        answer = answer[0].upper() + answer[1:]
        notes = f"{thing} is {colour}", f"{cosa} è {colore}"
    else:
        animal, legs, animale = rng.choice(words.LEGS)
        questions = ([f"How many legs does {animal} have?", f"Tell me how many legs {animal} has.",
                      f"Number of legs of {animal}?"] if en else
                     [f"Quante zampe ha {animale}?", f"Dimmi quante zampe ha {animale}.",
                      f"Numero di zampe: {animale}?"])
        subject = animal if en else animale
        answer = f"{subject[0].upper()}{subject[1:]} {'has' if en else 'ha'} {legs} {'legs' if en else 'zampe'}."
        notes = f"{animal} has {legs} legs", f"{animale} ha {legs} zampe"
    full = f"This is a fact I know: {notes[0]}.", f"Questo lo so: {notes[1]}."
    question = rng.choice(questions)
    return Sample("fact", question, answer, (*full, *notes), f"fact {question}")


# ---- chat ---------------------------------------------------------------------------------------

CHAT = {  # topic: (English questions, answer, Italian questions, answer, notes)
    "hello": (["Hello!", "Hi!", "Hi there.", "Good morning!", "Hello, Bottega!"],
              "Hello! How can I help you?", ["Ciao!", "Buongiorno!", "Salve.", "Ciao, Bottega!"],
              "Ciao! Come posso aiutarti?", ("a greeting", "un saluto")),
    "who": (["Who are you?", "What are you?", "What is your name?", "Tell me who you are."],
            "I am Bottega, a small model trained on two cores.",
            ["Chi sei?", "Che cosa sei?", "Come ti chiami?", "Dimmi chi sei."],
            "Sono Bottega, un piccolo modello allenato su due core.",
            ("who I am", "chi sono")),
    "thanks": (["Thank you!", "Thanks a lot.", "Many thanks!", "Thanks!"], "You are welcome!",
               ["Grazie!", "Grazie mille.", "Ti ringrazio.", "Molte grazie!"], "Prego!",
               ("thanks", "un ringraziamento")),
    "bye": (["Goodbye!", "Bye!", "See you later.", "Good night!"], "Goodbye! Come back soon.",
            ["Arrivederci!", "A dopo.", "Buona notte!", "Ci vediamo."], "Arrivederci! Torna presto.",
            ("a farewell", "un congedo")),
    "how": (["How are you?", "How is it going?", "Are you well?"], "I am well, thank you. And you?",
            ["Come stai?", "Come va?", "Stai bene?"], "Sto bene, grazie. E tu?",
            ("how I am", "come sto")),
    "help": (["What can you do?", "How can you help me?", "What are you good at?"],
             "I can do sums, repeat and edit words, and tell simple facts.",
             ["Che cosa sai fare?", "Come puoi aiutarmi?", "In che cosa sei bravo?"],
             "So fare conti, ripetere e cambiare parole e dire cose semplici.",
             ("what I can do", "che cosa so fare")),
}


def chat_notes(en, it):
    return f"This is about {en}.", f"Si parla di: {it}.", en, it


def make_chat(rng, lang):
    en = lang == "en"
    if rng.random() < 0.5:
        q_en, a_en, q_it, a_it, notes = CHAT[rng.choice(list(CHAT))]
        sample = Sample("chat", rng.choice(q_en if en else q_it), a_en if en else a_it, chat_notes(*notes))
        if rng.random() < 0.5:  # more prompts than wordings, so that some can be held out
            sample.question += f" {words.person(rng)} here." if en else f" Qui {words.person(rng)}."
        return sample
    name = words.person(rng)
    tell = (rng.choice(["My name is {}.", "I am {}.", "Call me {}.", "Hello, I am {}."]) if en else
            rng.choice(["Mi chiamo {}.", "Io sono {}.", "Chiamami {}.", "Ciao, sono {}."])).format(name)
    greet = f"Nice to meet you, {name}!" if en else f"Piacere di conoscerti, {name}!"
    if rng.random() < 0.5:
        return Sample("chat", tell, greet, chat_notes(f"a name: {name}", f"un nome: {name}"), f"name {name}")
    ask = (rng.choice(["What is my name?", "Who am I?", "Do you remember my name?"]) if en else
           rng.choice(["Come mi chiamo?", "Chi sono io?", "Ti ricordi il mio nome?"]))
    sample = Sample("chat", ask, f"Your name is {name}." if en else f"Ti chiami {name}.",
                    chat_notes(f"a name: {name}", f"un nome: {name}"), f"name {name}")
    sample.history = [{"role": "user", "content": tell}, {"role": "assistant", "content": greet}]
    return sample


# ---- copies and edits ---------------------------------------------------------------------------

def make_copy(rng, lang):
    text = " ".join(words.phrase(rng, 1, 8))
    if rng.random() < 0.15:
        text = text.capitalize() + rng.choice((".", "!", "?"))
    wording = rng.choice(["Repeat this: {}", "Repeat: {}", "Copy this text: {}", "Write this again: {}",
                          "Say: {}", "Repeat the words after the colon: {}"] if lang == "en" else
                         ["Ripeti: {}", "Ripeti questo: {}", "Copia questo testo: {}",
                          "Riscrivi: {}", "Di': {}", "Ripeti le parole dopo i due punti: {}"])
    notes = ("I only repeat the text.", "Devo solo ripetere il testo.", "repeat", "ripeti")
    return Sample("copy", wording.format(text), text, notes, f"copy {text}")


def make_replace(rng, lang):
    return replace_in(list(dict.fromkeys(words.phrase(rng, 3, 6, known=0.75))), rng, lang)


def make_long_replace(rng, lang):
    return replace_in(words.phrase(rng, 3, 7), rng, lang)


def replace_in(text, rng, lang):
    old, new = rng.choice(text), words.phrase(rng, 1, 1)[0]
    while new in text:
        new = words.made_up(rng)
    wording = rng.choice(["Replace {o} with {n}: {t}", "Write {n} in place of {o}: {t}",
                          "Change {o} to {n} in this text: {t}"] if lang == "en" else
                         ["Sostituisci {o} con {n}: {t}", "Scrivi {n} al posto di {o}: {t}",
                          "Cambia {o} in {n} in questo testo: {t}"])
    result = " ".join(new if word == old else word for word in text)
    notes = (f"I write {new} where {old} stands.", f"Scrivo {new} dove sta {old}.",
             f"{old} > {new}", f"{old} > {new}")
    question = wording.format(o=old, n=new, t=" ".join(text))
    return Sample("replace", question, result, notes, f"replace {' '.join(text)}")


def make_json(rng, lang):
    name, age, place = words.person(rng), rng.randrange(10, 100), words.city(rng)
    wording = rng.choice(["{n} is {a} years old and lives in {p}. Write it as JSON.",
                          "Write JSON: {n}, {a} years, from {p}."] if lang == "en" else
                         ["{n} ha {a} anni e vive a {p}. Scrivilo in JSON.",
                          "Scrivi in JSON: {n}, {a} anni, di {p}."])
    record = json.dumps({"name": name, "age": age, "city": place}, ensure_ascii=False)
    notes = ("The keys are name, age and city.", "Le chiavi sono name, age e city.", "name, age, city",
             "name, age, city")
    return Sample("json", wording.format(n=name, a=age, p=place), record, notes, f"json {name} {place}")


# ---- tools --------------------------------------------------------------------------------------

def function(name, description, key):
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {
        "type": "object", "properties": {key: {"type": "string"}}, "required": [key]}}}


WEATHER = function("get_weather", "Weather of a city", "city")
CALCULATE = function("calculate", "Work out an expression", "expression")
CLOCK = function("get_time", "Time of day in a city", "city")
SKY = [("sunny", "sereno"), ("rain", "pioggia"), ("snow", "neve"), ("clouds", "nuvole"), ("fog", "nebbia")]


def tool_notes(en, it, short):
    return f"I call {en}.", f"Chiamo {it}.", short, short


AFTER_TOOL = ("Now I have the result.", "Ora ho il risultato.", "done", "fatto")


def make_tool(rng, lang):
    en = lang == "en"
    tools = rng.sample([WEATHER, CALCULATE, CLOCK], rng.choice((1, 1, 2, 2, 3)))
    if rng.random() < 0.15:  # tools there, none needed
        sample = rng.choice((make_fact, make_chat, make_copy))(rng, lang)
        sample.kind, sample.tools = "tool_unused", tools
        return sample
    tool = rng.choice(tools)
    if tool is CALCULATE:
        a, b, sign = number(rng, rng.choice((2, 3, 4))), number(rng, rng.choice((1, 2, 3))), rng.choice("+-*")
        wording = rng.choice(["Use the calculator: {}", "Calculate {} with the tool.", "Work out {}, please."]
                             if en else
                             ["Usa la calcolatrice: {}", "Calcola {} con lo strumento.", "Fai il conto: {}"])
        expression = f"{a}{sign}{b}"
        value = str(eval(expression))
        sample = Sample("tool", wording.format(expression), ANSWER_NUMBER[lang].format(value),
                        [tool_notes("calculate", "calculate", "calculate"), AFTER_TOOL], f"tool {expression}")
        sample.calls = [("calculate", {"expression": expression})]
        sample.results = [json.dumps({"result": value})]
    else:
        name = tool["function"]["name"]
        cities = [words.city(rng)]
        if rng.random() < 0.15:
            cities.append(words.city(rng))
        joined = (" and " if en else " e ").join(cities)
        if tool is WEATHER:
            wording = rng.choice(["What is the weather in {}?", "Weather in {}?", "How is the weather in {}?",
                                  "Tell me the weather in {}.", "Is it warm in {}?"] if en else
                                 ["Che tempo fa a {}?", "Com'è il tempo a {}?", "Dimmi il tempo a {}.",
                                  "Fa caldo a {}?", "Meteo a {}?"])
        else:
            wording = rng.choice(["What time is it in {}?", "Tell me the time in {}.", "Time in {}?"] if en else
                                 ["Che ore sono a {}?", "Dimmi l'ora a {}.", "Che ora è a {}?"])
        answers, results = [], []
        for place in cities:
            if tool is WEATHER:
                degrees, (sky, cielo) = rng.randrange(0, 40), rng.choice(SKY)
                results.append(json.dumps({"degrees": degrees, "sky": sky}))
                answers.append(f"In {place}: {degrees} degrees, {sky}." if en else
                               f"A {place}: {degrees} gradi, {cielo}.")
            else:
                time = f"{rng.randrange(24):02}:{rng.randrange(60):02}"
                results.append(json.dumps({"time": time}))
                answers.append(f"In {place} it is {time}." if en else f"A {place} sono le {time}.")
        sample = Sample("tool", wording.format(joined), " ".join(answers),
                        [tool_notes(f"{name} for {joined}", f"{name} per {joined}", name), AFTER_TOOL],
                        f"tool {joined}")
        sample.calls = [(name, {"city": place}) for place in cities]
        sample.results = results
    sample.tools = tools
    return sample


# ---- the mixture --------------------------------------------------------------------------------

MAKERS = {  # kind: (maker, share of the conversations, modes asked)
    "sum": (make_sum, 0.11, MODES[:4]), "difference": (make_difference, 0.14, MODES[:4]),
    "product": (make_product, 0.09, MODES[:4]), "digit_sum": (make_digit_sum, 0.03, MODES),
    "fact": (make_fact, 0.12, MODES), "chat": (make_chat, 0.08, MODES), "copy": (make_copy, 0.14, MODES),
    "replace": (make_replace, 0.20, MODES), "json": (make_json, 0.02, MODES),
    "tool": (make_tool, 0.07, MODES),
}
# The first conversations hold more arithmetic; the edits, which are learned last, come after them.
FIRST_COUNT = 30 * 8192
FIRST_SHARES = {"sum": 0.13, "difference": 0.13, "product": 0.13, "digit_sum": 0.04, "fact": 0.15, "chat": 0.09,
                "copy": 0.10, "replace": 0.08, "json": 0.03, "tool": 0.10}
FIRST_MAKERS = {kind: (make_long_replace if kind == "replace" else maker, FIRST_SHARES[kind], modes)
                for kind, (maker, _, modes) in MAKERS.items()}
MODE_WEIGHT = {"think_en": 3, "think_ita": 3, "turbo_en": 2, "turbo_ita": 2, "none": 4}
EASY = ("fact", "chat", "copy", "digit_sum")


def draw(rng, kind, mode, want_held_out, makers=MAKERS):
    """A sample of the kind whose keys lie on the wanted side of the line."""
    while True:
        lang = rng.choice(("en", "it"))
        sample = makers[kind][0](rng, lang)
        if rng.random() < 0.2:
            sample.system = rng.choice(SYSTEMS)
        sample.key = sample.key or json.dumps(sample.prompt(), ensure_ascii=False)
        if held_out(sample.key) != want_held_out:
            continue
        if not want_held_out and not sample.history and not sample.tools:
            while rng.random() < 0.12:
                earlier = MAKERS[rng.choice(EASY)][0](rng, lang)
                if held_out(earlier.key or earlier.question) or earlier.history:
                    break
                sample.history += [{"role": "user", "content": earlier.question},
                                   {"role": "assistant", "content": earlier.answer}]
        return sample


def conversations(seed):
    """Endless training samples: (sample, mode)."""
    rng = random.Random(seed)
    for index in itertools.count():
        makers = FIRST_MAKERS if index < FIRST_COUNT else MAKERS
        kind = rng.choices(list(makers), [m[1] for m in makers.values()])[0]
        modes = makers[kind][2]
        mode = rng.choices(modes, [MODE_WEIGHT[m] for m in modes])[0]
        yield draw(rng, kind, mode, False, makers), mode
