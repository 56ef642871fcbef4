"""What a sweep costs beside the computing, and what it survives: writes its tables into docs/many_machines.md.

    python3 dev.py bench many_machines              all of it; some twenty minutes
    .dev/env/bin/python -m benchmarks.many_machines PART [NUMBER]

scale: NUMBER cells (10,000) on two servers that compute nothing. use: what part of their time one, two and four servers
have something to do, where a cell takes two seconds of a processor that this machine need not have. kills: four real
servers, while workers, servers and the command are killed NUMBER times (20) and servers hang and go on.
"""

import sys

from stepwise.benchmarks import _sweep_kills, _sweep_stubs
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate.markdown import filled

PAGE = ROOT / "docs" / "many_machines.md"
PARTS = {
    "scale": (_sweep_stubs.scale, [10_000]),
    "use": (_sweep_stubs.use, []),
    "kills": (_sweep_kills.kills, [20]),
}


def main(arguments: list[str]) -> None:
    for name in arguments[:1] or PARTS:
        part, given = PARTS[name]
        made = part(*(map(int, arguments[1:]) if arguments[1:] else given))
        print(made)
        if not arguments[1:]:
            PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), made, name), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
