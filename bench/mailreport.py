"""mailreport - the tables of the large mailbox

    text(runs, memory, amounts, rounds)    runs: one dictionary for each server and round, with the
                                           keys of MEASURES; memory: peaks in MB by server
    growth(runs, idle)                     runs: one dictionary for each size of mailbox

A cell of the first table is the median over the rounds. The faster peer of a measure is the one
with the better median; a ratio to it is taken within each round, and then its median.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from maildirs import Amounts
from report import judged, names, table

OURS = "ours"
SECONDS, SPEED = "s", "MB/s"
# key, unit; what it is called depends on how much of everything there is
MEASURES = {
    "cold": SECONDS,
    "named": SECONDS,
    "warm": SECONDS,
    "list": SECONDS,
    "uidl": SECONDS,
    "fifty": SPEED,
    "fifty_slow": SPEED,
    "huge": SPEED,
    "huge_slow": SPEED,
    "deleted": SECONDS,
}
FORMS = {SECONDS: ".3f", SPEED: ".1f"}
# what is compared, with whom (None: the faster one), the aim: at most for times, at least for speed
TARGETS = [
    ("cold", None, 0.6),
    ("named", "dovecot", 1.0),
    ("warm", None, 0.3),
    ("list", None, 1.0),
    ("uidl", None, 1.0),
    ("fifty", None, 2.5),
    ("fifty_slow", None, 2.5),
    ("huge", None, 2.5),
    ("huge_slow", None, 2.5),
    ("deleted", None, None),
]
MEMORY_TARGETS = {"many": 40.0, "huge": 16.0}
MILLION_MB = 400.0
LINEAR = 1.25  # of the time that is in proportion to the smallest mailbox's


def text(
    runs: list[dict], memory: dict[str, dict[str, float]], amounts: Amounts, rounds: int
) -> str:
    called = titles(amounts)
    parts = [medians(runs, called, rounds), ratios(runs, called), peaks(memory, called)]
    return "\n\n".join(part for part in parts if part)


def titles(amounts: Amounts) -> dict[str, str]:
    return {
        "cold": f"first STAT, cold, {amounts.many} messages",
        "named": "the same, sizes in the names",
        "warm": "first STAT, warm",
        "list": "LIST",
        "uidl": "UIDL",
        "fifty": f"RETR {amounts.fifty} of 50 KB",
        "fifty_slow": f"{amounts.slow} of them, delayed ACKs",
        "huge": f"RETR one of {amounts.huge_octets // 1_000_000} MB",
        "huge_slow": "the same, delayed ACKs",
        "deleted": f"DELE of {amounts.deleted}, QUIT",
        "idle": "idle, empty mailbox",
        "many": f"{amounts.many} messages, cold",
    }


def medians(runs: list[dict], called: dict[str, str], rounds: int) -> str:
    servers = names(runs)
    rows = []
    for key, unit in MEASURES.items():
        cells = [f"{median(of(runs, server, key).values()):{FORMS[unit]}}" for server in servers]
        rows.append([f"{called[key]}, {unit}", *cells])
    return table([f"medians of {rounds}", *servers], rows)


def ratios(runs: list[dict], called: dict[str, str]) -> str:
    peers = [server for server in names(runs) if server != OURS]
    if OURS not in names(runs) or not peers:
        return ""
    rows = []
    for key, given, aim in TARGETS:
        faster = MEASURES[key] == SPEED
        peer = given or best(runs, peers, key, max if faster else min)
        if peer not in peers:
            continue
        ratio = ratio_of(runs, peer, key)
        verdict = judged(ratio, aim, at_least=faster, unit=" x")
        rows.append([called[key], peer, f"{ratio:.2f} x", verdict])
    return table(["ours to the faster", "peer", "", "aim"], rows)


def best(runs: list[dict], servers: list[str], key: str, choose: Callable) -> str:
    return choose(servers, key=lambda server: median(of(runs, server, key).values()))


def ratio_of(runs: list[dict], peer: str, key: str) -> float:
    mine, other = of(runs, OURS, key), of(runs, peer, key)
    return median(mine[number] / other[number] for number in mine if number in other)


def of(runs: list[dict], server: str, key: str) -> dict[int, float]:
    """The values of one measure, by round."""
    return {run["round"]: run[key] for run in runs if run["server"] == server}


def peaks(memory: dict[str, dict[str, float]], called: dict[str, str]) -> str:
    if not memory:
        return ""
    rows = []
    for kind in ("idle", "many", "huge"):
        for server, found in memory.items():
            over = found[kind] - found["idle"]
            aim = MEMORY_TARGETS.get(kind) if server == OURS else None
            verdict = judged(over, aim, at_least=False, unit=" MB")
            numbers = [f"{one:.1f}" for one in (over, found[kind], found[f"{kind}_largest"])]
            rows.append([called[kind], server, *numbers, verdict])
    return table(["peak RSS, MB", "server", "over idle", "peak", "largest", "aim"], rows)


def growth(runs: list[dict], idle: float) -> str:
    keys = ("cold", "warm", "list", "uidl")
    heads = ["messages", *(f"{key} s" for key in keys), "peak RSS MB", "over idle"]
    rows = []
    for run in runs:
        memory = [f"{run['peak_mb']:.1f}", f"{run['peak_mb'] - idle:.1f}"]
        rows.append([str(run["messages"]), *(f"{run[key]:.3f}" for key in keys), *memory])
    text = table(heads, rows)
    return text if len(runs) < 2 else f"{text}\n\n{linear(runs, keys)}"


def linear(runs: list[dict], keys: tuple[str, ...]) -> str:
    first, last = runs[0], runs[-1]
    rows = []
    for key in keys:
        ratio = (last[key] / last["messages"]) / (first[key] / first["messages"])
        rows.append([key, f"{ratio:.2f} x", judged(ratio, LINEAR, at_least=False, unit=" x")])
    verdict = judged(last["peak_mb"], MILLION_MB, at_least=False, unit=" MB")
    rows.append(["peak RSS", f"{last['peak_mb']:.1f} MB", verdict])
    return table(["time for a message, last to first", "", "aim"], rows)
