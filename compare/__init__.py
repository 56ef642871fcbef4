"""One HTML page that shows pictures along two axes, and lets them be laid over each other.

Plain Python: neither torch nor ComfyUI is needed, nor imported.

    rows = Axis("sampler", ("Euler", "DPM++ 2M"))
    columns = Axis("seed", ("1", "2", "3"))
    cells = {
        (0, 0): Cell(Path("euler_1.png"), calls=20, evaluations=40, seconds=1.3),
        (1, 2): Cell(png_bytes, calls=20, evaluations=40, seconds=1.4, note="fp16"),
        (1, 0): Cell(error="out of memory"),
    }
    html = page("Two samplers", rows, columns, cells)

A cell is found by its row and its column, counted from 0; one that is missing was not run. The text that comes back is
the whole page, with every picture in it: write it as UTF-8 under any name that ends in .html. It loads nothing, asks
nothing of the network and keeps nothing; `POLICY` is the Content-Security-Policy that it carries and that a server may
send along, to which `sandbox allow-scripts` may be added.
"""

from .axes import Axis, Cell
from .page import POLICY, page

__all__ = ["POLICY", "Axis", "Cell", "page"]
