"""The language of scenario files: text in, plain values out, a precise error otherwise.

README.md lists the words. Nothing here starts or touches a process.
"""
import dataclasses
import pathlib
import re
import shlex


class ScenarioError(Exception):
    """`file:line: what is wrong`."""


@dataclasses.dataclass
class Cell:
    """The processes of the cluster. Names are gw0, router, aw0.., ew0.."""
    gw: int = 1
    aw: int = 2
    ew: int = 4
    replicas: int = 2
    kv: str = ""  # --kv-cache of an attention worker
    restart: bool = True  # the dead come back at once, as under `bottega up`
    network: str = "host"  # or "namespaces": one per process, UCX over TCP
    clock: str = "real"  # or "loose": the wall clock can be moved

    def names(self) -> list[str]:
        workers = [f"aw{i}" for i in range(self.aw)] + [f"ew{i}" for i in range(self.ew)]
        return ["router"] + [f"gw{i}" for i in range(self.gw)] + workers


@dataclasses.dataclass
class Load:
    """Even streams are greedy, odd ones seeded. All begin at once."""
    streams: int = 32
    seed: int = 7
    tokens: int = 100
    prompt: int = 8  # words; of stream i a little more
    span: float = 0.0  # seconds: a stream that has ended asks again until then
    marked: int = -1  # this stream's prompt begins with MARK, which no other text has


@dataclasses.dataclass
class Action:
    verb: str
    words: list[str]
    line: int


@dataclasses.dataclass
class Event:
    """Actions that follow each other once a trigger has come."""
    trigger: str  # "before", "token", "time", "every"
    value: float
    actions: list[Action]  # "sleep" among them: `then after`


@dataclasses.dataclass
class Expect:
    kind: str
    words: list[str]
    line: int


@dataclasses.dataclass
class Scenario:
    path: pathlib.Path
    ids: list[str] = dataclasses.field(default_factory=list)
    sentence: str = ""
    cell: Cell = dataclasses.field(default_factory=Cell)
    load: Load = dataclasses.field(default_factory=Load)
    flags: list[tuple[str, list[str]]] = dataclasses.field(default_factory=list)
    sweep_name: str = ""  # "who" or "who,point": then so are the values
    sweep: list[str] = dataclasses.field(default_factory=list)
    events: list[Event] = dataclasses.field(default_factory=list)
    expects: list[Expect] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.stem


# verb -> (how many words at least, at most, the form as help shows it)
VERBS = {
    "kill": (1, 3, "kill [-SIGNAL] [any|busy|all] WHO"),
    "stop": (1, 5, "stop [any|busy|all] WHO [for TIME]"),
    "cont": (1, 2, "cont WHO"),
    "restart": (1, 1, "restart WHO"),
    "arm": (2, 3, "arm WHO PLAN [always]   (core/base/fault_point.h; always: who comes back too)"),
    "wait": (1, 4, "wait ready [within TIME] | wait ready|down WHO [within TIME]"),
    "slow": (2, 3, "slow WHO PERCENT[%] [for TIME]"),
    "starve": (1, 1, "starve WHO   (no memory: the kernel kills it)"),
    "clock": (1, 1, "clock SECONDS   (the wall clock of all processes is off by so much)"),
    "limit": (3, 3, "limit WHO nofile NUMBER"),
    "crowd": (2, 4, "crowd WHO CONNECTIONS [for TIME]"),
    "cut": (2, 3, "cut WHO[,WHO] WHO[,WHO]|rest | cut WHO -> WHO   (-> one way)"),
    "reject": (2, 2, "reject WHO WHO   (answers with resets)"),
    "lose": (3, 3, "lose PERCENT% WHO WHO"),
    "heal": (0, 0, "heal"),
    "proxy": (1, 9, "proxy WHO [FAULT[=VALUE]...]   (proxy.py; none: a plain relay)"),
    "vanish": (2, 2, "vanish WHO CLIENTS   (long streams whose clients are cut off without a word)"),
    "shape": (2, 2, "shape WHO RATE   (tc tbf, e.g. 1mbit)"),
    "sleep": (1, 1, "then after TIME"),
}
NAMESPACE_VERBS = {"cut", "reject", "lose", "heal", "proxy", "shape", "vanish"}
EXPECTS = ("identical", "failed", "stall_max", "stall_p50", "gap_p99", "metric", "share", "log",
           "hits", "down", "deaths", "goodput", "dip", "recovery")
TIMED = ("stall_max", "stall_p50", "gap_p99", "goodput", "dip", "recovery")
PACED = ("goodput", "dip", "recovery")  # beside a calm run of the same length
OPERATORS = ("<=", ">=", "==", "<", ">")
ID = re.compile(r"[A-Z]\d+$")
ROLES = ("gw", "router", "aw", "ew", "worker")


def seconds(text: str) -> float:
    """"50ms", "2s", "10min"; ValueError otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s|min)", text)
    if not match:
        raise ValueError(f"'{text}' is no time (50ms, 2s, 10min)")
    return float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60}[match[2]]


class _Parser:
    def __init__(self, path: pathlib.Path, text: str, value: str | None):
        self.lines = text.splitlines()
        self.value = value  # of the sweep's variable; None: its first
        self.variables: dict[str, str] = {}
        self.scenario = Scenario(path)
        self.number = 0

    def fail(self, why: str):
        raise ScenarioError(f"{self.scenario.path}:{self.number}: {why}")

    def parse(self) -> Scenario:
        self.header()
        for self.number, raw in enumerate(self.lines, 1):
            line = raw.split("#", 1)[0].strip()
            if not line:
                continue
            word = line.split()[0]
            line = self.expanded(line) if word != "sweep" else line
            try:
                word, *rest = shlex.split(line)
            except ValueError as error:
                self.fail(str(error))
            method = getattr(self, f"on_{word}", None)
            if method is None:
                known = sorted(m[3:] for m in dir(self) if m.startswith("on_"))
                self.fail(f"'{word}' is not understood; a line begins with {' '.join(known)}")
            try:
                method(rest)
            except ValueError as error:
                self.fail(str(error))
        return self.scenario

    def header(self):
        self.number = 1
        match = re.fullmatch(r"# ([A-Z0-9 ]+): (\S.+)", self.lines[0] if self.lines else "")
        if not match or not all(ID.match(word) for word in match[1].split()):
            self.fail("the first line is '# ID [ID...]: one sentence'")
        self.scenario.ids = match[1].split()
        self.scenario.sentence = match[2]

    def expanded(self, line: str) -> str:
        for name, value in self.variables.items():
            line = line.replace(f"${name}", value)
        if "$" in line:
            self.fail(f"'{line}': no such variable; `sweep NAME VALUE...` above makes one")
        return line

    def settings(self, words: list[str], target):
        kinds = {f.name: type(getattr(target, f.name)) for f in dataclasses.fields(target)}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals or key not in kinds:
                self.fail(f"'{word}' is not understood; allowed: {' '.join(k + '=' for k in kinds)}")
            kind = kinds[key]
            if kind is bool and value not in ("yes", "no"):
                self.fail(f"'{word}': yes or no")
            read = {int: int, float: seconds, str: str, bool: lambda v: v == "yes"}[kind]
            setattr(target, key, read(value))

    def on_cell(self, words):
        self.settings(words, self.scenario.cell)
        if self.scenario.cell.network not in ("host", "namespaces"):
            self.fail("network=host or network=namespaces")
        if self.scenario.cell.clock not in ("real", "loose"):
            self.fail("clock=real or clock=loose")

    def on_load(self, words):
        words = [w.replace("for=", "span=") for w in words]
        self.settings(words, self.scenario.load)

    def on_flags(self, words):
        if len(words) < 2:
            self.fail("flags ROLE|NAME --flag value...")
        self.check_who(words[0])
        self.scenario.flags.append((words[0], words[1:]))

    def on_sweep(self, words):
        if len(words) < 2:
            self.fail("sweep NAME[,NAME] VALUE[,VALUE]...")
        self.scenario.sweep_name, self.scenario.sweep = words[0], words[1:]
        value = words[1] if self.value is None else self.value
        names = words[0].split(",")
        values = value.split(",") if len(names) > 1 else [value]
        if len(values) != len(names):
            self.fail(f"'{value}' is not one value for each of {words[0]}")
        self.variables.update(zip(names, values))

    def on_before(self, words):
        self.scenario.events.append(Event("before", 0, [self.action(words)]))

    def on_at(self, words):
        if words[:1] == ["token"] and len(words) > 2:
            self.scenario.events.append(Event("token", int(words[1]), [self.action(words[2:])]))
        elif len(words) > 1:
            self.scenario.events.append(Event("time", seconds(words[0]), [self.action(words[1:])]))
        else:
            self.fail("at token NUMBER ACTION | at TIME ACTION")

    def on_every(self, words):
        if len(words) < 2:
            self.fail("every TIME ACTION")
        self.scenario.events.append(Event("every", seconds(words[0]), [self.action(words[1:])]))

    def on_then(self, words):
        if not self.scenario.events:
            self.fail("`then` follows `at`, `every` or `before`")
        actions = self.scenario.events[-1].actions
        if words[:1] == ["after"] and len(words) > 2:
            actions.append(Action("sleep", [str(seconds(words[1]))], self.number))
            words = words[2:]
        actions.append(self.action(words))

    def action(self, words) -> Action:
        verb, *rest = words or [""]
        if verb not in VERBS or verb == "sleep":
            self.fail(f"'{verb}' is no action; there are {' '.join(v for v in VERBS if v != 'sleep')}")
        least, most, form = VERBS[verb]
        if not least <= len(rest) <= most:
            self.fail(f"the form is: {form}")
        if verb in NAMESPACE_VERBS and self.scenario.cell.network != "namespaces":
            self.fail(f"{verb} needs `cell ... network=namespaces` above")
        if verb == "clock":
            int(rest[0])
            if self.scenario.cell.clock != "loose":
                self.fail("clock needs `cell ... clock=loose` above")
        for word in rest:
            if re.fullmatch(r"(gw|aw|ew)\d+|router", word):
                self.check_who(word)
        return Action(verb, rest, self.number)

    def check_who(self, who: str):
        if who not in ROLES and who not in self.scenario.cell.names():
            self.fail(f"there is no '{who}' in this cell: {' '.join(self.scenario.cell.names())}")

    def on_expect(self, words):
        kind, *rest = words or [""]
        if kind not in EXPECTS:
            self.fail(f"expect {' | '.join(EXPECTS)}")
        forms = {"identical": r"", "failed": r"((<=|>=|==|<|>) )?\d+( as \S+)?|any( as \S+)?",
                 "stall_max": r"<= \S+", "stall_p50": r"<= \S+",
                 "gap_p99": r"<= (\d+% of calm|\d+ms)",
                 "metric": r"\S+ on \S+ ((grows|is) (<=|>=|==|<|>) \S+|rises)",
                 "share": r"of \S+ at \S+ <= \d+%",
                 "log": r"\S+ \S.*", "hits": r"\S+ \S+ (<=|>=|==|<|>) \d+",
                 "down": r"\S+ \S.*", "deaths": r"(<=|>=|==|<|>) \d+",
                 "goodput": r">= \d+%", "dip": r"<= \d+%", "recovery": r"<= \S+"}
        if not re.fullmatch(forms[kind], " ".join(rest)):
            self.fail(f"the form is: expect {kind} {forms[kind]}")
        if kind.startswith("stall") or kind == "recovery":
            seconds(rest[1])
        if kind in PACED and self.scenario.load.span < 2:
            self.fail(f"{kind} needs `load ... for=` of 2 s at least above")
        self.scenario.expects.append(Expect(kind, rest, self.number))


def parse(path: pathlib.Path, value: str | None = None, text: str | None = None) -> Scenario:
    """The scenario in `path`, its sweep variable set to `value` (default: its first)."""
    return _Parser(path, path.read_text() if text is None else text, value).parse()
