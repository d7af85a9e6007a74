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
from report import judged, names

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
        "named": "  the same, sizes in the names",
        "warm": "first STAT, warm",
        "list": "LIST",
        "uidl": "UIDL",
        "fifty": f"RETR {amounts.fifty} of 50 KB",
        "fifty_slow": f"  {amounts.slow} of them, delayed ACKs",
        "huge": f"RETR one of {amounts.huge_octets // 1_000_000} MB",
        "huge_slow": "  delayed ACKs",
        "deleted": f"DELE of {amounts.deleted}, QUIT",
        "idle": "idle, empty mailbox",
        "many": f"{amounts.many} messages, cold",
    }


def medians(runs: list[dict], called: dict[str, str], rounds: int) -> str:
    servers = names(runs)
    lines = [f"{f'Medians of {rounds} rounds':36}{'':6}{row(servers)}"]
    for key, unit in MEASURES.items():
        cells = [f"{median(of(runs, server, key).values()):{FORMS[unit]}}" for server in servers]
        lines.append(f"{called[key]:36}{unit:6}{row(cells)}")
    return "\n".join(lines)


def row(cells: list[str]) -> str:
    return "".join(f"{cell:>12}" for cell in cells)


def ratios(runs: list[dict], called: dict[str, str]) -> str:
    peers = [server for server in names(runs) if server != OURS]
    if OURS not in names(runs) or not peers:
        return ""
    lines = [f"{'Ours to the faster':36}{'peer':12}{'ratio':>10}     target"]
    for key, given, aim in TARGETS:
        faster = MEASURES[key] == SPEED
        peer = given or best(runs, peers, key, max if faster else min)
        if peer not in peers:
            continue
        ratio = ratio_of(runs, peer, key)
        verdict = judged(ratio, aim, at_least=faster, unit=" x")
        lines.append(f"{called[key]:36}{peer:12}{ratio:10.2f} x   {verdict}".rstrip())
    return "\n".join(lines)


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
    lines = [f"{'Peak RSS, MB':36}{'server':12}{'over idle':>10}{'peak':>8}{'largest':>9}   target"]
    for kind in ("idle", "many", "huge"):
        for server, found in memory.items():
            over = found[kind] - found["idle"]
            aim = MEMORY_TARGETS.get(kind) if server == OURS else None
            verdict = judged(over, aim, at_least=False, unit=" MB")
            numbers = f"{over:10.1f}{found[kind]:8.1f}{found[f'{kind}_largest']:9.1f}"
            lines.append(f"{called[kind]:36}{server:12}{numbers}   {verdict}".rstrip())
    return "\n".join(lines)


def growth(runs: list[dict], idle: float) -> str:
    keys = ("cold", "warm", "list", "uidl")
    lines = [
        f"{'messages':>10}{row([f'{key} s' for key in keys])}{'peak RSS MB':>14}{'over idle':>12}"
    ]
    for run in runs:
        times = row([f"{run[key]:.3f}" for key in keys])
        memory = f"{run['peak_mb']:14.1f}{run['peak_mb'] - idle:12.1f}"
        lines.append(f"{run['messages']:10}{times}{memory}")
    if len(runs) < 2:
        return "\n".join(lines)
    first, last = runs[0], runs[-1]
    lines.append(f"\n{'Time for a message, last to first':36}{'ratio':>10}     target")
    for key in keys:
        ratio = (last[key] / last["messages"]) / (first[key] / first["messages"])
        verdict = judged(ratio, LINEAR, at_least=False, unit=" x")
        lines.append(f"{key:36}{ratio:10.2f} x   {verdict}")
    verdict = judged(last["peak_mb"], MILLION_MB, at_least=False, unit=" MB")
    lines.append(f"{'peak RSS':36}{last['peak_mb']:10.1f} MB  {verdict}")
    return "\n".join(lines)
