"""The strings that every tokenizer is asked: at least 300, each once."""

ITALIAN = """Perché no?
Nel mezzo del cammino di nostra vita mi ritrovai per una selva oscura.
È vero: l'università è lì, però c'è un po' di traffico.
Una supercalifragilistichespiralidoso parola, Buongiorno e Buongiornoo.
Qual è la città più bella d'Italia? Dipende da chi lo chiede!
L'altr'anno, all'alba, un'amica m'ha detto: «Vieni?»
Così è, se vi pare.
Pietà, bontà, virtù, tribù, caffè, perciò, finché, né.
Dott.ssa Rossi, Sig.ra Bianchi e l'ing. Verdi arrivano alle 15:30.
Costa 1.234,56 € (IVA inclusa), cioè il 22% in più.
Il treno Roma–Milano parte dal binario 7 tra 12 minuti…
Oggi è il 21/11/2026; ieri era il 20.
Buongiorno! Come posso aiutarLa?
Ho bevuto mezz'ora fa un bicchier d'acqua.
Dell'acqua nell'anfora sull'altare dall'alto.
PERCHÉ URLI? NON È NECESSARIO!
supercalifragilistichespiralidoso
precipitevolissimevolmente
Un’apostrofo tipografica e un'apostrofo dritta.
“Virgolette alte”, «caporali», ‘singole’ e „basse“.
Via Garibaldi n° 12/bis, 20121 Milano (MI)
ma va'! di' la verità, fa' presto, sta' zitto
Il 1° gennaio e la 2ª volta.
tre × quattro = dodici; 7 ÷ 2 ≈ 3,5
¿Español? ¡Sí! Ñandú, pingüino.
Français: œuvre, où, ça, naïve, Noël, l’été.
Deutsch: Straße, Größe, ÄÖÜ, daß.
Português: coração, não, avô, às.
Čeština: příliš žluťoučký kůň úpěl ďábelské ódy.
Polski: zażółć gęślą jaźń.
Türkçe: İstanbul, ığdır, ŞĞÜ.
Ελληνικά: Ὀδυσσεύς, καλημέρα κόσμε.
Русский: съешь ещё этих мягких французских булок.
Українська: їжак, ґанок, єдність."""

ENGLISH = """Hello, world!
The quick brown fox jumps over the lazy dog.
I'm sure they've said it's what we'd do, and you'll see he isn't, she can't.
I'M SURE THEY'VE SAID IT'S WHAT WE'D DO
don't won't y'all'd've o'clock 'tis rock'n'roll
HTTPServer, iPhone, McDonald, eBay, XMLHttpRequest, aBcDeF, ABCdef, abcDEF
snake_case_name, kebab-case-name, CamelCaseName, SCREAMING_CASE
e.g., i.e., etc., vs., Mr. and Mrs. Smith
3.14159 -2.5e-10 1,000,000 0x1F 0b1010 1e6 6.02E23
1st 2nd 3rd 4th 21st
#hashtag @mention $100 50% C++ C# F#
a+b=c a-b a*b a/b a^b a|b a&b !a ~a
foo@example.com https://example.com/path?query=1&x=%20y#frag
(parentheses) [brackets] {braces} <angles>
... --- *** === ___ ~~~ ??? !!! ;;; :::
"quoted" 'quoted' `quoted`
Wait... what?! No way!!!
A very long sentence, which goes on, and on, and on; it never stops - or does it? Yes, it does."""

CODE = [
    "def f(x):\n    return x + 1\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n",
    "if (a && b || !c) { return nullptr; }",
    "SELECT * FROM users WHERE id = 42 AND name LIKE '%o''brien%';",
    '{"name": "get_weather", "arguments": {"city": "Forlì", "days": 3}}',
    "<div class=\"a\"><p>&amp; &lt;b&gt;</p></div>",
    "#!/usr/bin/env bash\nset -euo pipefail\necho \"${HOME}/x\" | sed 's/a/b/g'\n",
    "template <typename T> auto f(T&& x) -> decltype(auto);",
    "fn main() { println!(\"{:?}\", vec![1, 2, 3]); }",
    "\\frac{1}{2} \\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}",
    "a\\nb\\tc \\\\ \\\" \\u00e8",
    "x = [1,2,3][::-1]  # reversed\ny = {**a, 'k': None}\n\n\nclass A: pass\n",
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "- uno\n- due\n  - due.uno\n    - due.uno.uno\n\n1. primo\n2. secondo\n",
    "```python\nprint('ciao')\n```\n",
    "diff --git a/x b/x\n@@ -1,2 +1,3 @@\n-old\n+new\n",
    "/usr/local/lib/python3.11/site-packages/x.py:12: error",
    "C:\\Users\\Nome Cognome\\file.txt",
    "//////// ======== //\n/\n",
    "a/\nb//\nc///\r\n",
]

UNICODE = [
    "e\u0301 è \u00e9 E\u0300", "n\u0303 \u00f1", "a\u0301\u0323 a\u0323\u0301", "\u1e69 s\u0323\u0307",
    "Z\u0351\u036a\u0306a\u030dlg\u0335o\u0321", "\ufb01ne \ufb02uido", "\u2160\u2161\u2162 \u00b2\u00b3\u00b9 \u00bd\u00be",
    "\u212b \u00c5 A\u030a", "\uff21\uff22\uff23\uff11\uff12\uff13", "\u01c5 \u01c8 \u01f2",
    "\u0130stanbul \u0131", "\u00df \u1e9e", "\u03c2\u03c3\u03a3",
    "\U0001f600", "\U0001f600\U0001f601\U0001f602", "ciao \U0001f44b mondo \U0001f30d!",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f1ee\U0001f1f9 \U0001f1ea\U0001f1fa\U0001f1fa\U0001f1f8", "\U0001f44d\U0001f3fd\U0001f44d\U0001f3ff",
    "\u2764\ufe0f \u2764", "1\ufe0f\u20e3 2\u20e3", "\U0001f9d1\u200d\U0001f4bb\U0001f9d1\U0001f3fb\u200d\U0001f680",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u65e5\u672c\u8a9e\u306e\u30c6\u30b9\u30c8\u3067\u3059\u3002",
    "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8", "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "\u6f22\u5b57and\u3072\u3089\u304c\u306amixed123", "\u3000\u5168\u89d2\u3000\u7a7a\u767d",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u0661\u0662\u0663 \u06f4\u06f5\u06f6",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0967\u0968\u0969",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "\u1019\u103c\u1014\u103a\u1019\u102c",
    "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0", "\u13e3\u13b3\u13a9 \uab70", "\U0001d400\U0001d401 \U0001d7d8\U0001d7d9",
    "\U00020000\U0002a6d6", "\U000e0001\U000e0020", "\U0010ffff", "\ue000\uf8ff", "\ufffd", "\ufeffBOM",
    "a\u00a0b\u2009c\u200ad\u202fe", "a\u200bb\u200cc\u200dd\u2060e", "\u200e\u200f\u202a\u202c\u2066\u2069",
    "a\u2028b\u2029c", "a\u0085b", "a\u000bb\u000cc", "\u00ad\u00adsoft\u00adhyphen",
    "\u2013\u2014\u2015\u2026\u2022\u00b7", "\u00a3\u00a5\u20ac\u20bf\u00a2", "\u2190\u2191\u2192\u2193\u21d2", "\u2200x\u2203y: x\u2264y\u2227y\u2260\u2205",
    "\u2554\u2550\u2557\u2551\u255a\u255d", "\u266a\u266b \u2603 \u2605", "\u00aa\u00ba \u02b0\u02b2 \u1d2c",
]

WHITE = [
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\t\t", "\r", "\r\n", "\r\n\r\n", " \n", "\n ",
    " \n ", "  \n\n  ", "\t \t", " \t\n\r ", "a ", " a", " a ", "  a  ", "a\n", "\na", "a\n\nb", "a\r\nb",
    "a\rb", "a\n b", "a \nb", "a  \n  b", "a\tb", "a\t\tb", "\ta", "a \t b", "a\n\n\n\n\nb", "a\r\n\r\nb ",
    "x  y   z    w     v", "riga uno\nriga due\r\nriga tre\rriga quattro", "fine con spazi    ", "    inizio con spazi",
    "tab\tseparated\tvalues\t", " . ", " .\n", ".\n\n", "!\r\n", " !!\n\n x", "\n\t\n\t\n", "a\n  \n  b",
    " 1", "  12", "\n3", "\t4", "1 2  3   4", "a 1b 2 c", " é", "  è", "\u00a0\u00a0x", " \u00a0 ", "\u3000\u3000", " \u2028 ",
]

NUMBERS = [
    "0", "7", "42", "123", "1234", "12345", "123456", "1234567", "12345678901234567890", "007", "3.14", "-1", "+39 06 1234567",
    "1,2,3", "1a2b3c", "a1b22c333d4444", "2026-11-21T02:14:05Z", "192.168.0.1", "::1", "10:30", "50%", "½", "²³", "Ⅳ", "٣", "12٣45", "1_000_000",
    "47 + 58 = 105", "99*12=1188", "0000000000", "1 000 000", "v1.2.3-rc.4", "#123456", "0xdeadbeef",
]

CONTROL = [
    "a\0b", "\0", "\0\0\0", "\x01\x02\x1f\x7f", "bell\a backspace\b escape\x1b[31mred\x1b[0m", "\x80\x9f",
]

TOKENS = [
    "<|im_start|>", "<|im_end|>", "<|im_start|>user\nciao<|im_end|>\n", "<think>", "</think>", "<think>\n\n</think>\n\n",
    "<think>penso</think>risposta", "a<think>b</think>c", " <think> ", "<think> </think> ok", "<tool_call>\n{}\n</tool_call>",
    "<tool_response>x</tool_response>", "/turbo", "/turbo/turbo", "/reasoning_en", "/reasoning_ita", "/reasoning_en /turbo <think>",
    "/usr/turbo/bin", "a/turbob", "/reasoning_english", "/reasoning_it", "/Turbo", "</s>", "<s>", "<s>x</s>", "<unk>", "<pad>", "<|endoftext|>",
    "<|im_end|><|im_end|>", "<|im_end|", "|im_end|>", "<|im_ end|>", "<|IM_END|>", "<<|im_end|>>", "<|im_start|><|im_start|>", "x<|im_end|>y z",
    "il testo <|im_end|> dentro", "< think >", "<think", "think>", "<think>" * 5, "<thi<think>nk>", "\n<|im_end|>\n", "  <|im_end|>  ",
    "<s> <s>", " </s> ", "<mask>", "a <mask> b", "a<mask>b", "  <mask>  x", "\t<mask>\n", "parola", "parolaparola", "una parola sola", "xparolax", "parola.",
    "<tool>", "x <tool>  y", "<tool>\n\nz", "é<think>é", "\u0301<think>\u0301", "<|im_start|>system\nSei utile.<|im_end|>\n<|im_start|>assistant\n",
]

LONG = [
    "a" * 500, "ab" * 400, "precipitevolissimevolmente" * 12, "è" * 200, "\U0001f600" * 50, "\u4e2d" * 120,
    " " * 100, "\n" * 60, "\t" * 40, " a" * 100, "9" * 150, "!" * 200, "=" * 80 + "\n", "aA" * 60, "A" * 100 + "a" * 100, ". " * 60,
    "\r\n" * 30, "x\u0301" * 60, "\u200d" * 40, "_" * 64, "-+" * 50, " \n" * 30, "parola " * 40, "<|im_end|>" * 20,
]


def runs():
    for count in range(2, 18):
        yield "a" + " " * count + "b"
    for count in (2, 3, 4, 5, 8):
        yield "a" + "\n" * count + "b"
        yield "    " * count + "return"
        yield "\t" * count + "return;"


def cuts():
    """Pieces of one text, cut anywhere between code points."""
    text = "L'età è 42: \U0001f468\u200d\U0001f469 「やあ」 don't\r\n\tstop!  Fine."
    for end in range(1, len(text) + 1):
        yield text[:end]


def texts():
    groups = [
        ITALIAN.split("\n"), ENGLISH.split("\n"), CODE, UNICODE, WHITE, NUMBERS, CONTROL, TOKENS, LONG,
        list(runs()), list(cuts()), [ITALIAN, ENGLISH],
    ]
    unique = dict.fromkeys(text for group in groups for text in group)
    assert len(unique) >= 300
    return list(unique)
