"""A network namespace for each process, joined by a bridge; faults between them by nft, tc and proxy.

The whole scenario runs inside a namespace of its own (`enter`), so nothing of the host is touched
and everything is gone when the runner ends.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import proxy as relay

PROXY = pathlib.Path(relay.__file__)
NET = "10.77.0"
RUNNER = f"{NET}.254"
VANISHING = f"{NET}.253"  # the runner's too: clients that are cut off
CONTROL_PORT, ADMIN_PORT, PROXY_PORT = 5000, 9090, 15001
INSIDE = "BOTTEGA_CLUSTER_INSIDE"


def lacking() -> str:
    """Why this machine cannot do it; "" if it can."""
    for tool in ("unshare", "nsenter", "ip", "nft"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if not _unshare():
        return "unshare cannot make a network namespace here"
    return ""


def _unshare() -> list[str]:
    for command in (["unshare", "-n", "-m"], ["unshare", "-r", "-n", "-m"]):
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return []


def inside() -> bool:
    return INSIDE in os.environ


def enter(arguments: list[str]) -> int:
    """Runs this program again inside a namespace of its own; its exit code."""
    environment = {**os.environ, INSIDE: "1"}
    return subprocess.run([*_unshare(), sys.executable, "-B", *arguments], env=environment).returncode


def _run(*command: str, feed: str = ""):
    done = subprocess.run(command, input=feed, text=True, capture_output=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}\n{feed}")


def _dropped(other: str, one_way: bool):
    yield "out", f"ip daddr {other} counter drop"
    if not one_way:
        yield "in", f"ip saddr {other} counter drop"


class Namespaces:
    """Where the processes of a cell are, and what is wrong between them."""
    exchange = ["--exchange", "tcp", "--exchange-devices", "eth0"]
    transport = "tcp"
    environment: dict[str, str] = {}

    def __init__(self, names: list[str], proxied: set[str]):
        self._addresses = {name: f"{NET}.{i + 1}" for i, name in enumerate(names)}
        self._rules: dict[str, list[tuple[str, str]]] = {name: [] for name in names}  # chain, rule
        self._proxied = proxied
        self._proxies: dict[str, subprocess.Popen] = {}
        self._misbehaves: dict[str, str] = {}  # what each proxy was told, where that is a fault
        self._lock = threading.Lock()
        _run("mount", "-t", "tmpfs", "tmpfs", "/run")
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "br0", "type", "bridge")
        for address in (RUNNER, VANISHING):
            _run("ip", "addr", "add", f"{address}/24", "dev", "br0")
        _run("ip", "link", "set", "br0", "up")
        for name in names:
            self._add(name)

    def _add(self, name: str):
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", f"v-{name}", "master", "br0", "type", "veth", "peer", "name",
             "eth0", "netns", name)
        _run("ip", "link", "set", f"v-{name}", "up")
        _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", name, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
        _run("ip", "-n", name, "link", "set", "eth0", "up")
        if name in self._proxied:
            self._proxies[name] = subprocess.Popen(
                self.command(name, [sys.executable, "-B", str(PROXY), str(PROXY_PORT),
                                    self.address(name)]),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.proxy(name, [])  # it listens once it answers
            self._apply([name])

    def close(self):
        for one in self._proxies.values():
            one.stdin.close()
            one.wait()

    def address(self, name: str) -> str:
        return self._addresses[name]

    def port(self, name: str) -> int:
        return CONTROL_PORT

    def admin(self, name: str) -> str:
        return f"{self.address(name)}:{ADMIN_PORT}"

    def command(self, name: str, arguments: list[str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{name}", *arguments]

    # Faults. Each pair's rules are in the namespace of its first end.

    def drop(self, left: list[str], right: list[str], one_way: bool):
        self._between(left, right, lambda other: _dropped(other, one_way))

    def drop_vanishing(self, name: str):
        self._rules[name] += _dropped(VANISHING, False)
        self._apply([name])

    def reject(self, left: list[str], right: list[str]):
        def rules(other):
            yield "out", f"ip daddr {other} meta l4proto tcp counter reject with tcp reset"
            yield "in", f"ip saddr {other} meta l4proto tcp counter reject with tcp reset"
        self._between(left, right, rules)

    def lose(self, left: list[str], right: list[str], percent: float):
        def rules(other):
            roll = f"numgen random mod 10000 < {int(percent * 100)} counter drop"
            yield "out", f"ip daddr {other} {roll}"
            yield "in", f"ip saddr {other} {roll}"
        self._between(left, right, rules)

    def heal(self) -> str:
        """Why what is healed was no fault at all: no packet met it; "" if one did."""
        changed = [name for name, rules in self._rules.items() if rules]
        met = sum(map(self._met, changed))
        for name in changed:
            self._rules[name] = []
        self._apply(changed)
        return "no packet met what was cut" if changed and not met else ""

    def _met(self, name: str) -> int:
        """Packets that the rules of `name` have dropped or answered with resets."""
        text = subprocess.run(self.command(name, ["nft", "list", "table", "inet", "faults"]),
                              text=True, capture_output=True, check=True).stdout
        return sum(map(int, re.findall(r"counter packets (\d+)", text)))

    def proxy(self, name: str, words: list[str]) -> str:
        """What proxy.py understands; `to=NAME` and `link=data|control` are names for it. Why the
        faults before were none: nothing met them; "" if something did."""
        if name not in self._proxies:
            raise ValueError(f"{name} has no proxy")
        faults = " ".join(words)
        command = ["set"]
        for word in words:
            key, _, value = word.partition("=")
            if key == "to":
                word = f"to={self.address(value)}"
            elif key == "link":
                word = f"port{'=' if value == 'control' else '!='}{CONTROL_PORT}"
            command.append(word)
        with self._lock:
            one = self._proxies[name]
            one.stdin.write(" ".join(command) + "\n")
            one.stdin.flush()
            answer = one.stdout.readline()
        match = re.match(r"ok: (\d+) struck", answer)
        if not match:
            raise ValueError(f"the proxy of {name}: {answer.strip()}")
        before, self._misbehaves[name] = self._misbehaves.get(name, ""), faults
        return f"nothing met '{before}' at {name}" if before and match[1] == "0" else ""

    def shape(self, name: str, rate: str):
        """All that leaves `name`, by a token bucket; "" for no limit."""
        if rate:
            _run("tc", "-n", name, "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate,
                 "burst", "8kb", "latency", "400ms")
        else:
            _run("tc", "-n", name, "qdisc", "del", "dev", "eth0", "root")

    def _between(self, left, right, rules):
        for name in left:
            for other in right:
                if other != name:
                    self._rules[name] += list(rules(self.address(other)))
        self._apply(left)

    def _apply(self, names: list[str]):
        """Each namespace's table anew; all namespaces at the same time."""
        running = []
        for name in names:
            one = subprocess.Popen(self.command(name, ["nft", "-f", "-"]), text=True,
                                   stdin=subprocess.PIPE, stderr=subprocess.PIPE)
            one.stdin.write(self._table(name))
            one.stdin.close()
            running.append(one)
        for name, one in zip(names, running):
            error = one.stderr.read()
            one.stderr.close()
            if one.wait() != 0:
                raise OSError(f"nft in {name}: {error.strip()}")

    def _table(self, name: str) -> str:
        chains = {"in": "type filter hook input priority 0;",
                  "out": "type filter hook output priority 0;"}
        text = "table inet faults\ndelete table inet faults\ntable inet faults {\n"
        for chain, hook in chains.items():
            rules = "\n".join(rule for where, rule in self._rules[name] if where == chain)
            text += f"chain {chain} {{ {hook}\n{rules}\n}}\n"
        text += "}\n"
        if name not in self._proxied:
            return text
        # All connections from and to this host go through its proxy, but the runner's questions.
        redirect = f"meta mark != {relay.MARK} tcp dport != {ADMIN_PORT} redirect to :{PROXY_PORT}"
        return text + f"""table ip proxy
delete table ip proxy
table ip proxy {{
chain out {{ type nat hook output priority -100;
ip daddr {NET}.0/24 {redirect}
}}
chain in {{ type nat hook prerouting priority -100;
ip saddr != {RUNNER} ip daddr {self.address(name)} {redirect}
}}
}}
"""
