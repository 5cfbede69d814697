"""Conversations for the chat templates: (name, arguments of apply_chat_template)."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city, e.g. Forlì"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
            },
            "required": ["city"],
        },
    },
}
CALCULATOR = {
    "type": "function",
    "function": {
        "description": "Evaluates a < b && c > d, 'quotes', \"double\" & <b>tags</b>",
        "name": "calculator",
        "parameters": {
            "required": ["expression", "precision"],
            "type": "object",
            "properties": {
                "precision": {"type": "integer", "minimum": -1, "maximum": 1e20, "default": 0},
                "expression": {"type": "string"},
                "tolerance": {"type": ["number", "null"], "default": 1e-07, "multipleOf": 0.5},
                "exact": {"type": "boolean", "default": True},
                "operands": {"type": "array", "items": {"type": "number"}, "default": [1, 2.0, -3.5e-10]},
                "options": {
                    "type": "object",
                    "properties": {"mode": {"enum": ["deg", "rad", 3, None, False]}, "z": {}, "a": {}},
                    "additionalProperties": False,
                },
            },
        },
        "strict": True,
    },
}
BARE = {"type": "function", "function": {"name": "ora.esatta", "description": "Che ore sono? È l'ora “esatta” 🕰️\u2028"}}
TOOLS = [WEATHER, CALCULATOR, BARE]


def user(content):
    return {"role": "user", "content": content}


def system(content):
    return {"role": "system", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def tool(content, **more):
    return {"role": "tool", "content": content, **more}


def call(name, arguments, number=1):
    return {"id": f"call{number:08}", "type": "function", "function": {"name": name, "arguments": arguments}}


TALK = [user("Ciao!"), assistant("Ciao, come stai?"), user("Bene. Quanto fa 2 + 2?")]
TOOL_TALK = [
    user("Che tempo fa a Forlì?"),
    assistant("", tool_calls=[call("get_weather", {"city": "Forlì", "unit": "celsius"})]),
    tool('{"temp": 12.0, "sky": "piove"}', tool_call_id="call00000001"),
]
TWO_CALLS = [
    system("Usa gli strumenti."),
    user("Meteo a Roma e a Milano, e 3 * 4?"),
    assistant("Controllo subito.", tool_calls=[
        call("get_weather", {"city": "Roma"}, 1),
        call("get_weather", {"unit": "fahrenheit", "city": "Milano"}, 2),
        call("calculator", {"expression": "3 * 4", "precision": 0, "exact": True, "tolerance": None}, 3),
    ]),
    tool("18 gradi", tool_call_id="call00000001", name="get_weather"),
    tool("14 gradi", tool_call_id="call00000002", name="get_weather"),
    tool("12", tool_call_id="call00000003", name="calculator"),
    assistant("A Roma 18, a Milano 14; 3 * 4 = 12."),
    user("Grazie! E a Napoli?"),
]
REASONED = [
    user("Quanto fa 12 + 30?"),
    assistant("42", reasoning="12 + 30: 2 + 0 = 2, 1 + 3 = 4."),
    user("E 12 * 3?"),
]
PROMPT = {"add_generation_prompt": True}


def conversations():
    yield "one question", dict(messages=[user("Ciao!")], **PROMPT)
    yield "one question, no prompt", dict(messages=[user("Ciao!")])
    yield "system", dict(messages=[system("Sei un assistente breve."), user("Chi sei?")], **PROMPT)
    yield "system with spaces", dict(messages=[system("  Sei breve. \n\n"), user("\n Chi sei?  \n")], **PROMPT)
    yield "developer", dict(messages=[{"role": "developer", "content": "Be brief."}, user("Who are you?")], **PROMPT)
    yield "three turns", dict(messages=TALK, **PROMPT)
    yield "ends with the assistant", dict(messages=TALK + [assistant("Fa 4.")])
    yield "ends with the assistant, prompt", dict(messages=TALK + [assistant("Fa 4.")], **PROMPT)
    yield "continue", dict(messages=TALK + [assistant("Due più due fa")], continue_final_message=True)
    yield "continue after a space", dict(messages=TALK + [assistant("Due più due fa ")], continue_final_message=True)
    yield "seven turns", dict(messages=[
        m for i in range(3) for m in (user(f"Domanda numero {i}, con qualche parola"), assistant(f"Risposta {i}."))
    ] + [user("Ultima?")], **PROMPT)
    yield "history limit", dict(messages=TALK + [assistant("Fa 4."), user("Sicuro?")], history_limit=2, **PROMPT)
    yield "thinking off", dict(messages=TALK, enable_thinking=False, **PROMPT)
    yield "thinking on", dict(messages=TALK, enable_thinking=True, **PROMPT)
    yield "reasoning in Italian", dict(messages=TALK, reasoning_lang="ita", **PROMPT)
    yield "turbo", dict(messages=TALK, enable_turbo=True, **PROMPT)
    yield "turbo in Italian", dict(messages=TALK, enable_turbo=True, reasoning_lang="ita", **PROMPT)
    yield "unknown switch", dict(messages=TALK, colour="blu", depth=3, flags=[1, "a", None], **PROMPT)
    yield "Italian", dict(messages=[system("Rispondi così: «sì» o «no»."), user("Perché l'università è lì? Città, caffè, però…")], **PROMPT)
    yield "unicode", dict(messages=[user("👨‍👩‍👧 e\u0301 你好 مرحبا \u2028 \u00a0 🇮🇹 \U0010ffff"), assistant("👍🏽"), user("ñ\u0303")], **PROMPT)
    yield "HTML-like", dict(messages=[user("<b>a & b</b> \"c\" 'd' </script> &amp; {{ x }} {% y %} {# z #}"), assistant("<i>&lt;</i>"), user("<|im_end|> </think> <tool_call>")], **PROMPT)
    yield "backslashes", dict(messages=[user("C:\\temp\\new \\n \\u00e8 $x^2$ `code`\ttab")], **PROMPT)
    yield "line ends", dict(messages=[user("uno\r\ndue\rtre\n\nquattro\n"), assistant("\n\nok\n\n"), user("\r\n")], **PROMPT)
    yield "empty content", dict(messages=[user("")], **PROMPT)
    yield "empty turns", dict(messages=[system(""), user(""), assistant(""), user("ehi")], **PROMPT)
    yield "null content", dict(messages=[user("Vai"), assistant(None), user("Allora?")], **PROMPT)
    yield "parts", dict(messages=[user([{"type": "text", "text": "Prima parte, "}, {"type": "text", "text": "seconda."}])], **PROMPT)
    yield "an image part", dict(messages=[user([{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "Che cos'è?"}])], **PROMPT)
    yield "unknown role", dict(messages=[user("Ciao"), {"role": "narrator", "content": "Piove."}, user("E poi?")], **PROMPT)
    yield "two questions in a row", dict(messages=[user("Uno"), user("Due")], **PROMPT)
    yield "starts with the assistant", dict(messages=[assistant("Benvenuto!"), user("Grazie")], **PROMPT)
    yield "system in the middle", dict(messages=[user("Uno"), assistant("1"), system("Da ora in inglese."), user("Due")], **PROMPT)
    yield "extra keys", dict(messages=[{"role": "user", "content": "Ciao", "name": "Ada", "z": 1, "a": {"k": [1.5, True]}}], **PROMPT)
    yield "tools", dict(messages=[user("Che tempo fa a Forlì?")], tools=TOOLS, **PROMPT)
    yield "tools and system", dict(messages=[system("Sei utile."), user("Quanto fa 3 * 4?")], tools=TOOLS, **PROMPT)
    yield "tools elsewhere", dict(messages=[system("Sei utile."), user("Quanto fa 3 * 4?")], tools=TOOLS[:2], tools_with_question=False, **PROMPT)
    yield "tools, thinking off", dict(messages=[user("Che tempo fa?")], tools=[BARE], enable_thinking=False, **PROMPT)
    yield "a tool without a wrapper", dict(messages=[user("Ora?")], tools=[BARE["function"]], **PROMPT)
    yield "own tools", dict(messages=[user("Cerca"), assistant("", tool_calls=[call("search", {"query": "gatti", "n": 3, "safe": True})]), tool("trovato")], own_tools=["interpreter", "search", "weather"], **PROMPT)
    yield "tool result", dict(messages=TOOL_TALK, tools=TOOLS, **PROMPT)
    yield "tool result and answer", dict(messages=TOOL_TALK + [assistant("Piove, 12 gradi.")], tools=TOOLS[:1])
    yield "two calls", dict(messages=TWO_CALLS, tools=TOOLS, **PROMPT)
    yield "two results last", dict(messages=TWO_CALLS[:6], tools=TOOLS[:1], **PROMPT)
    yield "arguments as text", dict(messages=[user("Somma"), assistant(None, tool_calls=[call("calculator", '{"expression": "1+1",  "precision":0}')]), tool("2", tool_call_id="call00000001")], tools=TOOLS[:2], **PROMPT)
    yield "a short call id", dict(messages=[user("Somma"), assistant("", tool_calls=[{"id": "x1", "type": "function", "function": {"name": "f", "arguments": {}}}]), tool("2")], **PROMPT)
    yield "strange arguments", dict(messages=[user("Vai"), assistant("", tool_calls=[call("f", {
        "z": 1, "a": [], "è": "é<&>'\"\\", "m": {}, "f": 1.0, "g": 1e16, "h": 1e-05, "i": 12345678901234567890, "j": -0.0, "k": 123456789.125,
        "l": "\u2028\x7f\x01\n\t", "n": None, "t": True, "e": "", "emoji": "🙂", "deep": {"x": [{"y": [[1], {}]}]},
    })]), tool("fatto")], **PROMPT)
    yield "reasoning in history", dict(messages=REASONED, **PROMPT)
    yield "reasoning under the other name", dict(messages=[REASONED[0], assistant("42", reasoning_content="\n12 + 30\nfa 42\n"), REASONED[2]], **PROMPT)
    yield "reasoning inside the content", dict(messages=[REASONED[0], assistant("<think>\n12 + 30\n</think>\n\n42"), REASONED[2]], **PROMPT)
    yield "reasoning kept after the question", dict(messages=[
        user("Che tempo fa a Forlì?"),
        assistant("", reasoning="\nDevo chiedere il meteo.\n", tool_calls=[call("get_weather", {"city": "Forlì"})]),
        tool("piove", tool_call_id="call00000001"),
    ], tools=TOOLS[:1], **PROMPT)
    yield "reasoning kept, turbo", dict(messages=[
        user("Che tempo fa a Forlì?"),
        assistant("Vediamo.", reasoning=" meteo ", tool_calls=[call("get_weather", {"city": "Forlì"})]),
        tool("piove", tool_call_id="call00000001"),
    ], tools=TOOLS[:1], enable_turbo=True, **PROMPT)
    yield "answer with reasoning last", dict(messages=REASONED[:1] + [assistant("42", reasoning="12 + 30 = 42")], reasoning_lang="ita")
    yield "continue the reasoning away", dict(messages=REASONED[:1] + [assistant("<think>\nDodici più", reasoning=None)], continue_final_message=True)
    yield "links and pairs", dict(messages=[user("https://example.com/a/b?c=d"), assistant("**visto** _ok_\n"), user("x = y  =  z "), assistant(" * "), user("a\tb")], **PROMPT)
    yield "stop word", dict(messages=TALK + [assistant("4"), user(" /stop\n"), assistant("mai letto"), user("mai letto")], **PROMPT)
    yield "documents", dict(messages=[system("Cita.\n  Sempre.\r\n\n"), user("Che cosa dicono?")], documents=[
        {"title": "Primo", "text": "  testo uno\n", "pages": 12, "score": 0.5, "draft": False, "author": None},
        {"text": "È «due»", "tags": ["a", "b"], "meta": {"z": 1, "a": 2}, "title": "Secondo <2>"},
    ], style="elenco", citations=False, **PROMPT)
    yield "a fixed date", dict(messages=TALK, date_string="01 Jan 2027", cutoff="May 2025", default_system="", **PROMPT)
    yield "result that is no text", dict(messages=[user("Dati?"), assistant("", tool_calls=[call("f", {"x": 1})]), tool({"b": [1, 2.5], "a": {"è": None}}, tool_call_id="call00000001")], **PROMPT)
    yield "many parts of a tool result", dict(messages=[user("Dati?"), assistant("", tool_calls=[call("f", {"x": 1})]), tool([{"type": "text", "text": "uno"}, {"type": "text", "text": "due"}], tool_call_id="call00000001")], **PROMPT)
    yield "kept open", dict(messages=[user("Continua"), assistant("C'era una volta")], keep_open=True)


def modes():
    """The five modes, and the ways to ask for them, on talks of every kind."""
    talks = {
        "plain": dict(messages=TALK),
        "system": dict(messages=[system("Sei breve."), user("What's 3 + 4?")]),
        "tools": dict(messages=TOOL_TALK, tools=TOOLS[:1]),
        "history": dict(messages=REASONED + [assistant("36", reasoning_content="12 * 3 = 36\n"), tool("x")]),
    }
    switches = {
        "default": {},
        "en": {"reasoning_lang": "en"},
        "ita": {"reasoning_lang": "ita"},
        "turbo": {"enable_turbo": True},
        "turbo ita": {"enable_turbo": True, "reasoning_lang": "ita"},
        "none": {"enable_thinking": False},
        "none beats turbo": {"enable_thinking": False, "enable_turbo": True, "reasoning_lang": "ita"},
        "nulls": {"enable_thinking": None, "enable_turbo": None, "reasoning_lang": None},
        "unknown language": {"reasoning_lang": "fr"},
    }
    for talk, arguments in talks.items():
        for switch, values in switches.items():
            yield f"{talk}, {switch}", dict(arguments, **values, **PROMPT)
