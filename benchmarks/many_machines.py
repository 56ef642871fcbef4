"""What a sweep costs beside the computing, and what it survives: docs/many_machines.md quotes what this prints.

python3 dev.py bench many_machines              both
.dev/env/bin/python -m benchmarks.many_machines scale [CELLS]     servers that compute nothing
.dev/env/bin/python -m benchmarks.many_machines kills [KILLS]     four real servers on the digits
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import psutil
import torch
import yaml
from stepwise.sweep.store import Store
from stepwise.tests.support.stub_comfyui import PROMPT
from stepwise.tests.support.sweep_runs import Run, axes, faults, latents, written
from stepwise.tools.environment.folders import DEV, ROOT
from stepwise.tools.environment.process import signal_group
from stepwise.tools.environment.server import Server

COMFYUI = Path(os.environ.get("COMFYUI_PATH") or DEV / "ComfyUI")
STUBS, HOSTS = 2, 4


def stub():
    command = [sys.executable, ROOT / "tests" / "support" / "stub_comfyui.py", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def scale(cells: int) -> None:
    """Cells that compute nothing: all of their time is the engine's, the client's and the result folder's."""
    with tempfile.TemporaryDirectory(prefix="stepwise-sweep-") as folder, contextlib.ExitStack() as stack:
        servers = [stub() for _ in range(STUBS)]
        for process, _ in servers:
            stack.callback(process.kill)
        file = Path(folder) / "sweep.yaml"
        (Path(folder) / "workflow.json").write_text(json.dumps(PROMPT))
        sweep = {"workflow": "workflow.json", "axes": {"seed": {"input": "1.seed", "seeds": f"0..{cells - 1}"}}}
        file.write_text(yaml.safe_dump(sweep))
        run = stack.enter_context(Run(file, [url for _, url in servers], "--quiet"))
        driver = psutil.Process(run.process.pid)
        samples = []
        while run.process.poll() is None:
            done = len_of(run)
            if done and (not samples or done >= samples[-1][0] + cells // 10):
                with contextlib.suppress(psutil.NoSuchProcess):
                    workers = run.workers()
                    spent = [sum(each.cpu_times()[:2]) for each in (driver, *workers)]
                    samples.append((done, driver.memory_info().rss / 2**20, spent[0], sum(spent[1:])))
                    print(f"after {done} cells: driver {samples[-1][1]:.0f} MiB, {spent[0]:.0f} s", flush=True)
            time.sleep(0.2)
        run.ended()
        with Store(run.folder) as store:
            ends = sorted(row[0] for row in store.base.execute("SELECT finished FROM cells"))
            inside = [row[0] for row in store.base.execute("SELECT seconds FROM cells")]
        size = sum(path.stat().st_size for path in run.folder.iterdir() if path.is_file()) / cells
    first, last = samples[0], samples[-1]
    count = last[0] - first[0]
    print(f"{cells} cells on {STUBS} servers that compute nothing, {ends[-1] - ends[0]:.0f} s from first to last")
    print(f"a cell, wall clock over both servers        {1e3 * (ends[-1] - ends[0]) / (cells - 1):6.1f} ms")
    print(f"a cell inside its worker, median            {1e3 * median(inside):6.1f} ms")
    print(f"driver, processor time a cell               {1e3 * (last[2] - first[2]) / count:6.1f} ms")
    print(f"worker, processor time a cell               {1e3 * (last[3] - first[3]) / count:6.1f} ms")
    print(f"database, bytes a cell                      {size:6.0f}")


def len_of(run: Run) -> int:
    found = run.asked("SELECT count(finished) FROM cells")
    return found[0][0] if found else 0


def kills(number: int) -> None:
    """A worker, a server and the driver killed in turn at seeded points; then all latents beside those of one run."""
    random.seed(20)
    with tempfile.TemporaryDirectory(prefix="stepwise-sweep-") as base, contextlib.ExitStack() as stack:
        servers = [Server(COMFYUI, Path(sys.executable), Path(base) / f"host{n}") for n in range(HOSTS)]
        for server in servers:
            stack.callback(server.stop)
        for server in servers:
            server.base.mkdir()
        again = ThreadPoolExecutor(HOSTS)
        list(again.map(lambda server: server.start(), servers))
        urls = [server.url for server in servers]
        seeds = max(2 * number // 5, 2)
        cells = 12 * seeds
        points = sorted(random.sample(range(1, cells * 9 // 10), number))
        run = stack.enter_context(Run(written(Path(base) / "many", axes=axes(seeds), autosave_every=2), urls))
        for place, point in enumerate(points):
            run.until(lambda point=point: len_of(run) >= point)
            what = ("worker", "server", "driver")[place % 3]
            kill(what, run, servers, again)
            print(f"kill -9 of a {what} after {len_of(run)} of {cells} cells", flush=True)
        run.ended(600)
        one = stack.enter_context(Run(written(Path(base) / "one", axes=axes(seeds)), urls[:1]))
        one.ended(600)
        expected, found = latents(one.folder), latents(run.folder)
        equal = sum(torch.equal(found[point], latent) for point, latent in expected.items())
        with Store(run.folder) as store:
            counts, went_on = store.counts(), sum(bool(row["went_on_from"]) for row in store.rows())
            for row in store.hosts():
                print(f"{row['host']}: {row['cells']} cells, {row['seconds']:.0f} s, {row['faults']} faults")
            print(f"share of the time that a server had a cell: {busy(store):.0%}")
        for each in faults(run.folder):
            print(f"  {each['host']}  {each['what']}")
        print(f"{number} kills: {counts['finished']} of {cells} cells, {went_on} went on from an autosave elsewhere")
        print(f"{equal} of {len(expected)} latents equal those of one server without faults, bit for bit")


def busy(store: Store) -> float:
    """What the cells took, over what the servers had from the first cell's end to the last one's."""
    rows = [row for row in store.rows() if row["finished"]]
    ends = [row["finished"] for row in rows]
    return sum(row["seconds"] for row in rows) / (HOSTS * (max(ends) - min(ends)))


def kill(what: str, run: Run, servers: list[Server], again: ThreadPoolExecutor) -> None:
    """With -9; a server is started again while the others go on."""
    if what == "worker":
        if workers := run.workers():
            random.choice(workers).send_signal(signal.SIGKILL)
    elif what == "server":
        server = random.choice(servers)
        if server.process is not None:
            signal_group(server.process, signal.SIGKILL)
            server.process.wait()
            server.process = None
            again.submit(server.start)
    else:
        run.kill()
        run.start()


def main(arguments: list[str]) -> None:
    known = {"scale": (scale, 10_000), "kills": (kills, 20)}
    for name in [arguments[0]] if arguments else known:
        part, number = known[name]
        part(int(arguments[1]) if len(arguments) > 1 else number)


if __name__ == "__main__":
    main(sys.argv[1:])
