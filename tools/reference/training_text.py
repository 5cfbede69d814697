"""The text that the two small tokenizers are trained on: a little Italian, English and code."""

ITALIAN = """La bottega apre presto. Il maestro prepara i colori, l'apprendista pulisce i pennelli e
spazza il pavimento; nessuno parla prima che la luce arrivi alle finestre. Poi cominciano: uno
disegna la figura, un altro stende l'oro, un terzo dipinge le mani. Ogni pezzo passa per le mani di
molti, e ciascuno fa soltanto quello che sa fare meglio. Quando il quadro è finito, nessuno può più
dire chi abbia fatto che cosa. Perché è così che si lavora: un poco alla volta, insieme, con
pazienza. La sera si chiudono le porte, si contano le monete e si prepara il lavoro di domani.
Quanto costa una tavola grande? Dipende dal legno, dall'oro e dalla fretta del cliente. Se qualcuno
si ammala, un compagno prende il suo posto e il lavoro non si ferma mai. Questa è la regola della
casa: chi manca viene sostituito, chi resta continua, e il cliente non se ne accorge neppure.
Buongiorno, come posso aiutarti? Vorrei sapere che tempo fa a Bologna, a Torino e a Palermo. Oggi
piove, domani ci sarà il sole; la temperatura è di dodici gradi. Grazie, arrivederci."""

ENGLISH = """The workshop opens early. The master mixes the colours, the apprentice cleans the
brushes and sweeps the floor; nobody speaks before the light reaches the windows. Then they begin:
one draws the figure, another lays the gold, a third paints the hands. Every piece goes through the
hands of many people, and each of them does only what they do best. When the picture is finished
nobody can say who did what, and that's how it should be. It isn't magic, it's patience: they're
many, they've practised, and they'll do it again tomorrow. How much does a large panel cost? It
depends on the wood, the gold and the hurry of the customer. If somebody is ill, a companion takes
the place and the work doesn't stop. Hello, how can I help you? I'd like to know what the weather is
like in Bologna, Turin and Palermo. It's raining today, and tomorrow we'll have sunshine; the
temperature is twelve degrees. Thank you, goodbye. PLEASE READ THE RULES OF THE HOUSE BEFORE YOU
ASK. NON TOCCARE I QUADRI."""

CODE = """def weigh(rows, weights):
    total = 0.0
    for row, weight in zip(rows, weights):
        total += row * weight
    return total

int main(int argc, char** argv) {
    for (int i = 0; i < argc; ++i) {
        printf("%s\\n", argv[i]);
    }
    return 0;
}

{"name": "get_weather", "arguments": {"city": "Bologna", "unit": "celsius"}}
<ul class="list"><li>uno</li><li>due</li></ul>
SELECT name, price FROM panels WHERE price > 100 ORDER BY price;
https://example.com/path/to/page.html?name=value&other=1
"""


def documents():
    for text in (ITALIAN, ENGLISH):
        yield text
        yield text.replace("\n", " ")
        yield "\r\n".join(text.split(". "))
    yield CODE
    yield CODE.replace("    ", "\t")
    for a in range(3, 100, 7):
        yield f"{a} + {a * 13} = {a * 14}; {a}% di {a * 100}; {1900 + a}/{a % 12 + 1}"
