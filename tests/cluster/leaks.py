"""What a run may not leave behind: requests, blocks, credits, descriptors, memory."""
import dataclasses
import os
import time

import cluster

from cell import Cell, role_of
from process import SANITIZED  # tests/clients, as cell has it on the path

SETTLE_LIMIT_S = 10  # for connections and buffers on their way out; a hang limit
RSS_SHARE, RSS_BYTES = 0.02, 8 << 20
LINKS_OF_A_PAIR = 2

# Series that are 0 when nobody asks anything.
AT_REST = {
    "gw": ["bottega_gateway_requests_running", "bottega_gateway_queue_depth",
           "bottega_gateway_open_streams", "bottega_gateway_token_log_bytes"],
    "aw": ["bottega_attention_requests_running", "bottega_attention_requests_waiting",
           'bottega_attention_kv_blocks{state="used"', "bottega_exchange_credits_in_use"],
    "ew": ["bottega_expert_queue_rows"],
    "router": [],
}


@dataclasses.dataclass
class Held:
    pid: int
    fds: dict[str, str]  # number -> what it is; without data links
    links: int  # data connections: UCX makes one or two for a pair, as the two ends happen to meet
    rss: int
    grown_up: bool = False  # it has served through a load: what is touched once, it has touched

    def more_than(self, before: "Held") -> str:
        """The descriptors that are new."""
        known = set(before.fds.values())
        return ", ".join(sorted(what for what in self.fds.values() if what not in known))


def _sockets(pid: int) -> dict[str, tuple[int, int]]:
    """"socket:[inode]" -> the ports of its ends, of the TCP sockets in the network of `pid`."""
    found = {}
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}") as lines:
            for fields in (line.split() for line in lines):
                if len(fields) > 9 and fields[9].isdigit():
                    ports = [int(end.rsplit(":", 1)[1], 16) for end in fields[1:3]]
                    found[f"socket:[{fields[9]}]"] = (ports[0], ports[1])
    return found


def _held(pid: int, known_ports: set[int], sockets: dict[str, tuple[int, int]]) -> Held:
    # Not RssFile: a worker that takes over experts maps their weights, and the kernel may drop those pages.
    with open(f"/proc/{pid}/status") as status:
        kib = sum(int(line.split()[1]) for line in status if line.startswith(("RssAnon", "RssShmem")))
    fds, links = {}, 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            what = os.readlink(f"/proc/{pid}/fd/{number}")
        except OSError:
            continue  # closed meanwhile
        local, remote = sockets.get(what, (0, 0))
        if remote and not {local, remote} & known_ports:
            links += 1
        else:
            fds[number] = f"TCP {local} <> {remote}" if local else what
    return Held(pid, fds, links, kib << 10)


def held(cell: Cell) -> dict[str, Held]:
    """Of every process that lives."""
    found, networks = {}, {}
    for name in cell.alive():
        pid = cell.processes[name].pid
        try:
            network = os.readlink(f"/proc/{pid}/ns/net")
            if network not in networks:
                networks[network] = _sockets(pid)
            found[name] = _held(pid, cell.ports(), networks[network])
        except (OSError, StopIteration):
            pass  # it has just died
    return found


def since(now: dict[str, Held], before: dict[str, Held]) -> dict[str, Held]:
    """`now`, with who was there `before` the last load marked as grown up."""
    for name, one in now.items():
        one.grown_up = name in before and before[name].pid == one.pid
    return now


def held_when_whole(cell: Cell, whole: dict[str, Held]) -> dict[str, Held]:
    """As `held`, once everybody has as much as in `whole` again: who hung in the last trial may
    have come back only now, and a connection that is missed would count as one too many later."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while True:
        now = held(cell)
        if time.monotonic() > deadline or all(
                name in now and len(now[name].fds) >= len(one.fds) for name, one in whole.items()):
            return now
        time.sleep(0.05)


def busy(cell: Cell) -> list[str]:
    """Series that should be 0 and are not."""
    found = []
    for name in cell.alive():
        series = cluster.scrape(cell.processes[name].admin)
        for metric in AT_REST[role_of(name)]:
            value = sum(v for k, v in series.items() if k.startswith(metric))
            if value != 0:
                found.append(f"{name}: {metric.split('{')[0]} is {value:g}")
    return found


def rest(cell: Cell) -> list[str]:
    """Waits until nobody works any more; what does not end."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while found := busy(cell):
        if time.monotonic() > deadline:
            return found
        time.sleep(0.02)
    return []


def left(cell: Cell, before: dict[str, Held]) -> list[str]:
    """What is still held that was not `before`, once everything had time to go."""
    found = rest(cell)
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while more := _grown(cell, before):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return found + more


def _grown(cell: Cell, before: dict[str, Held]) -> list[str]:
    pairs = {"aw": cell.spec.ew, "ew": cell.spec.aw, "gw": 0, "router": 0}
    found, after = [], held(cell)
    for name, now in after.items():
        then = before.get(name)
        if then is None or then.pid != now.pid:
            continue  # a new life: its own baseline is its start
        if now.links > max(then.links, LINKS_OF_A_PAIR * pairs[role_of(name)]):
            found.append(f"{name}: {now.links} data connections")
        if len(now.fds) > len(then.fds):
            found.append(f"{name}: {len(now.fds)} descriptors, {len(then.fds)} before; new: "
                         f"{now.more_than(then)}")
        if not SANITIZED and then.grown_up and now.rss > then.rss + max(RSS_SHARE * then.rss, RSS_BYTES):
            found.append(f"{name}: RSS without mapped files {now.rss >> 10} KiB, {then.rss >> 10} KiB before")
    return found
