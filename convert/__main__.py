"""The command, as `python PACK/convert` and as `python -m stepwise.convert`."""

import importlib.util
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - an older Python gets a sentence instead of a syntax error
    sys.stderr.write("convert: Python 3.11 or newer is needed, and this is {}.{}.\n".format(*sys.version_info[:2]))
    sys.exit(2)

if __package__:
    from .command import main
else:
    # The folder is run by its path: it is loaded as a package of its own, and sees neither the pack nor its neighbours.
    sys.path.pop(0)
    HERE = Path(__file__).resolve().parent
    SPEC = importlib.util.spec_from_file_location(
        "stepwise_convert", HERE / "__init__.py", submodule_search_locations=[str(HERE)]
    )
    assert SPEC is not None
    assert SPEC.loader is not None
    sys.modules[SPEC.name] = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(sys.modules[SPEC.name])
    main = importlib.import_module(f"{SPEC.name}.command").main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
