"""Workflows of ComfyUI's sampling nodes made into Stepwise's, and back.

Plain Python: neither torch nor ComfyUI is needed, nor imported.

    python PACK/convert IN.json -o OUT.json        from any folder
    python -m stepwise.convert IN.json -o OUT.json

`converted` does the same with the data in memory. What it knows of nodes, samplers and schedulers is table.json, which
tools/generate/conversion.py makes of the registry and of the twins in docs/names.md.
"""

from .files import BadWorkflow
from .report import Report
from .whole import converted

__all__ = ["BadWorkflow", "Report", "converted"]
