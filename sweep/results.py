"""What is read of a result folder: status, export, page, prompt."""

import argparse
import json
import time

from . import export
from .store import Store
from .values import BadSweep

DONE = 0


def status(known: argparse.Namespace) -> int:
    with Store(known.folder) as store:
        counts = store.counts()
        print(f"{counts['finished']}/{counts['cells']} cells, {counts['calls_done']}/{counts['calls']} model calls")
        print(hosts_table(store))
        if (number := store.carried())[0]:
            print(f"{number[0]} autosaves carried, {number[1] / 2**20:.1f} MiB")
        for row in store.base.execute("SELECT number, error FROM cells WHERE wanted = 1 AND error IS NOT NULL"):
            print(f"cell {row['number']}: {row['error']}")
        for row in store.base.execute("SELECT at, host, what FROM faults ORDER BY at"):
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(row['at']))}  {row['host']}  {row['what']}")
    return DONE


def hosts_table(store: Store) -> str:
    lines = [f"{'host':32} {'cells':>7} {'seconds':>9} {'went on':>8} {'faults':>7}"]
    for row in store.hosts():
        told = f"{row['host'] or '-':32} {row['cells']:7} {row['seconds']:9.1f} {row['went_on']:8} {row['faults']:7}"
        lines.append(told)
    return "\n".join(lines)


def exported(known: argparse.Namespace) -> int:
    with Store(known.folder) as store, known.output.open("w", encoding="utf-8", newline="") as out:
        print(f"{export.table(store, out)} cells in {known.output}")
    return DONE


def paged(known: argparse.Namespace) -> int:
    bad = [each for each in known.at if "=" not in each]
    if bad:
        raise BadSweep(*(f"--at {each} is not AXIS=VALUE" for each in bad))
    fixed = dict(each.split("=", 1) for each in known.at)
    with Store(known.folder) as store:
        text = export.html(store, known.down, known.across, fixed, known.folder.stem)
    known.output.write_text(text, encoding="utf-8")
    print(known.output)
    return DONE


def prompted(known: argparse.Namespace) -> int:
    with Store(known.folder) as store:
        found = store.base.execute("SELECT prompt FROM cells WHERE wanted = 1 AND number = ?", (known.cell,)).fetchone()
    if found is None:
        raise BadSweep(f"there is no cell {known.cell} in {known.folder}")
    print(json.dumps(json.loads(found["prompt"]), indent=1, ensure_ascii=False))
    return DONE
