"""The command: one workflow in, one out, and a report."""

import argparse
import io
import json
import os
import shutil
import sys
from pathlib import Path

from .files import BadWorkflow, load, written
from .report import Report
from .whole import converted

CONVERTED, SOME_LEFT, BAD_INPUT = 0, 1, 2
EPILOG = """exit status: 0 all converted, 1 some nodes left as they are (the file is written, the report says which and
why), 2 bad input (nothing is written)"""


def main(argv: list[str]) -> int:
    known = arguments(argv)
    try:
        made, report = converted(load(known.file), back=known.back, join=known.join)
        text = written(made)
        if known.output and not known.dry_run:
            write(known.output, text)
    except BadWorkflow as error:
        print(f"convert: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"convert: {known.output} cannot be written: {error.strerror}.", file=sys.stderr)
        return BAD_INPUT
    tell(report, known.json)
    return SOME_LEFT if report.left else CONVERTED


def arguments(argv: list[str]) -> argparse.Namespace:
    text = "Makes the sampling nodes of a workflow of ComfyUI into Stepwise's."
    parser = argparse.ArgumentParser(prog="convert", description=text, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("file", type=Path, help="a workflow, of the editor or of the API, or a PNG that carries one")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.json", help="where the result goes")
    parser.add_argument("--dry-run", action="store_true", help="write nothing, only report")
    parser.add_argument("--back", action="store_true", help="Stepwise's nodes into ComfyUI's, where these can do it")
    parser.add_argument(
        "--join",
        action="store_true",
        help="two KSampler (Advanced) as one run that goes on from its state, also where that changes the picture",
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    known = parser.parse_args(argv)
    if known.output is None and not known.dry_run:
        parser.error("say where the result goes, with -o, or --dry-run to write nothing")
    return known


def write(path: Path, text: str) -> None:
    """All of it or nothing; straight into what is no file, such as a pipe.

    Half a surrogate pair, which UTF-8 has not, is written as JSON's escape of it.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return
    path = Path(os.path.realpath(path))
    made = path.with_name(f".{path.name[:200]}-{os.getpid()}")
    try:
        with made.open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        if path.exists():
            shutil.copymode(path, made)
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def tell(report: Report, as_json: bool) -> None:
    """Prints the report, whatever a terminal can show, and as far as somebody reads it."""
    text = json.dumps(report.data(), indent=1) if as_json else report.text()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Nobody reads any more, as after `| head`; Python would say so again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
