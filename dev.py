"""The one entry for people who work on Stepwise. It needs Python 3.11 or newer and nothing else.

python3 dev.py demo      start ComfyUI, run an example workflow with the official client, name the picture
python3 dev.py serve     open the editor with the pack in it
python3 dev.py test      lint, type-check and test everything
python3 dev.py bench     measure what docs/ states
python3 dev.py lock      pin the packages anew
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import webbrowser
from pathlib import Path

from tools.environment.browser import ensure_browser
from tools.environment.client import official_client
from tools.environment.folders import DEV, ROOT, program
from tools.environment.process import Command, Failure, Interrupted, call, output, raise_on_signals, say
from tools.environment.server import Server
from tools.environment.setup import lock, prepare

EXAMPLE = ROOT / "example_workflows" / "api" / "ksampler.json"
PICTURES = DEV / "output"
ENVIRONMENT = """
Everything lies in the folder .dev: the packages of ComfyUI and of the tests (.dev/env, about 6 GB), ComfyUI itself
(.dev/ComfyUI), pictures (.dev/output). It is made on the first run and checked on every other one. Delete it to start
over.

environment variables:
  COMFYUI_PATH   use the ComfyUI in this folder instead of the pinned one. Only its code is used: it runs with the
                 packages in .dev/env, not with its own, and with no custom node but this pack.
  CHROMIUM_PATH  the browser for the tests of the editor. Without it: Chromium, Chrome or Edge where they usually are,
                 else one is installed (apt-get for root, Playwright's download for others).
"""

SLOWEST = ["--durations", "20"]
# A process for each core takes file after file of tests, in the order of tests/conftest.py. In e2e each has a server
# and a browser of its own.
SPREAD = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"]
ALONE = ["-p", "stepwise.tools.environment.alone"]


def demo(cpu: bool) -> int:
    """Run an example workflow without an editor and name the picture it makes."""
    if not EXAMPLE.is_file():
        raise Failure(f"The example workflow is missing: {EXAMPLE}")
    comfyui = prepare(client=True)
    cpu = cpu or not has_accelerator()
    known = pictures()
    with tempfile.TemporaryDirectory(prefix="stepwise-demo-") as base:
        say(f"starting ComfyUI on the {'CPU' if cpu else 'GPU'}")
        started = time.monotonic()
        with Server(comfyui, program("env", "python"), Path(base), output=PICTURES, cpu=cpu) as server:
            say(f"ComfyUI is up after {time.monotonic() - started:.1f} s; running {EXAMPLE.relative_to(ROOT)}")
            started = time.monotonic()
            if status := call(**official_client(server, EXAMPLE), stdin=subprocess.DEVNULL):
                raise Failure(f"The workflow failed: the client ended with status {status}.\n{server.log_tail()}")
            seconds = time.monotonic() - started
    new = sorted(pictures() - known, key=lambda path: path.stat().st_mtime)
    if not new:
        raise Failure(f"The workflow ran, but saved no picture in {PICTURES}.")
    say(f"made in {seconds:.1f} s: {', '.join(str(path) for path in new)}")
    return 0


def serve(port: int, cpu: bool, open_browser: bool, arguments: list[str]) -> int:
    """Run the editor with the pack until Ctrl-C. Unknown options go to ComfyUI."""
    comfyui = prepare(client=False)
    cpu = cpu or not has_accelerator()
    say(f"starting ComfyUI on the {'CPU' if cpu else 'GPU'}")
    with Server(comfyui, program("env", "python"), DEV, port=port, cpu=cpu, echo=True, arguments=arguments) as server:
        # Alone in its line, terminals make a link of it.
        say(f"The editor is here (Ctrl-C ends it):\n\n    {server.url}\n")
        if open_browser and not webbrowser.open(server.url):
            say("There is no browser to open it in: click on the address, or copy it.")
        assert server.process is not None
        return server.process.wait()


def test(arguments: list[str]) -> int:
    """Lint, type-check and test everything, or, with arguments, run only pytest with those."""
    comfyui = prepare(client=True)
    browser = ensure_browser(program("env", "python"))
    pytest = [program("env", "pytest")]
    alone = quiet_environment()
    full = alone | {"COMFYUI_PATH": str(comfyui), "CHROMIUM_PATH": str(browser)}
    if arguments:
        return stage(" ".join(["pytest", *arguments]), [*pytest, *arguments], full)
    checks = (
        stage("ruff check .", [program("env", "ruff"), "check", "."], alone)
        or stage("ruff format --check .", [program("env", "ruff"), "format", "--check", "."], alone)
        or stage("pyright", [program("env", "pyright")], alone)
    )
    if checks:
        return checks
    statuses = [
        stage("pytest tests/samplers, without ComfyUI", [*pytest, *SLOWEST, *SPREAD, *ALONE, "tests/samplers"], alone),
        stage("pytest tests/nodes", [*pytest, *SLOWEST, *SPREAD, "tests/nodes"], full),
        stage("pytest tests/e2e", [*pytest, *SLOWEST, *SPREAD, "tests/e2e"], full),
    ]
    return next((status for status in statuses if status), 0)


def stage(name: str, command: Command, environment: dict[str, str]) -> int:
    """One part of the tests, by its exit status."""
    say(f"--- {name}")
    return call(command, cwd=ROOT, env=environment)


def bench(names: list[str]) -> int:
    """Run benchmarks, all or the named ones. All take some hours."""
    known = benchmarks()
    if unknown := sorted(set(names) - set(known)):
        raise Failure(f"There is no benchmark {', '.join(unknown)}. There are: {', '.join(known) or 'none'}.")
    if not known:
        raise Failure("There is no benchmark in benchmarks/.")
    environment = quiet_environment() | {"COMFYUI_PATH": str(prepare(client=False))}
    for name in names or known:
        say(f"--- benchmarks/{name}.py")
        if status := call([program("env", "python"), ROOT / "benchmarks" / f"{name}.py"], cwd=ROOT, env=environment):
            return status
    return 0


def benchmarks() -> list[str]:
    return sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


def quiet_environment() -> dict[str, str]:
    """The same sums on every machine: a fixed hash seed and number of threads, no path from outside. Compiled files are
    kept, apart from the sources: every one of the many processes of a test run would make them anew."""
    foreign = ("PYTHONPATH", "PYTHONSAFEPATH", "COMFYUI_PATH", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    # Threads that wait in a loop would take the core of what runs beside them.
    threads = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    settings = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "TQDM_DISABLE": "1", "MPLBACKEND": "Agg", "DO_NOT_TRACK": "1"}
    return kept | threads | settings | {"PYTHONPYCACHEPREFIX": str(DEV / "pycache")}


def has_accelerator() -> bool:
    question = "import torch; print(torch.accelerator.is_available())"
    return output([program("env", "python"), "-c", question], stdin=subprocess.DEVNULL) == "True"


def pictures() -> set[Path]:
    return {path for path in PICTURES.rglob("*") if path.is_file()}


def arguments_of(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="dev.py", description=__doc__, epilog=ENVIRONMENT, formatter_class=raw, usage="%(prog)s COMMAND ..."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS)

    def add(name: str, text: str, rest: str = "") -> argparse.ArgumentParser:
        usage = f"dev.py {name} [options] {rest}" if rest else None
        return commands.add_parser(name, description=text, usage=usage, allow_abbrev=False)

    command = add("demo", demo.__doc__ or "")
    command.add_argument("--cpu", action="store_true", help="do not look for a GPU")
    command = add("serve", serve.__doc__ or "", "[ComfyUI options]")
    command.add_argument("--port", type=int, default=8188, help="the port on the loopback interface (8188)")
    command.add_argument("--cpu", action="store_true", help="do not look for a GPU")
    command.add_argument("--open", action="store_true", help="open the page in the default browser")
    add("test", test.__doc__ or "", "[pytest arguments]")
    command = add("bench", bench.__doc__ or "")
    command.add_argument("names", nargs="*", metavar="name", help=f"one of: {', '.join(benchmarks()) or 'none yet'}")
    add("lock", "Pin the packages of the two .in files anew. Options go to uv, as --upgrade.", "[uv options]")

    known, rest = parser.parse_known_args(argv)
    if rest and known.command in ("demo", "bench"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    return known, [each for each in rest if each != "--"]


def main(argv: list[str]) -> int:
    known, rest = arguments_of(argv)
    raise_on_signals()
    try:
        match known.command:
            case "demo":
                return demo(known.cpu)
            case "serve":
                return serve(known.port, known.cpu, known.open, rest)
            case "test":
                return test(rest)
            case "bench":
                return bench(known.names)
            case _:
                lock(rest)
                return 0
    except Failure as failure:
        print(f"dev.py: {failure}", file=sys.stderr, flush=True)
        return 1
    except Interrupted as interrupted:
        print("dev.py: stopped", file=sys.stderr, flush=True)
        return interrupted.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
