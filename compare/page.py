"""The text of the page: its style (page.css), its script (page.js), and a table that can be read without either.

All text of the caller goes through `escaped`. The script builds no HTML from text, so nothing that a label holds is
ever read as markup; and the policy lets nothing run but that script.
"""

import base64
import hashlib
import html
import re
from pathlib import Path

from .axes import Axis, Cell, Cells, check_places

HERE = Path(__file__).parent
STYLE = (HERE / "page.css").read_text(encoding="utf-8")
SCRIPT = (HERE / "page.js").read_text(encoding="utf-8")
CONTROLS = (HERE / "controls.html").read_text(encoding="utf-8")
VIEW = (HERE / "view.html").read_text(encoding="utf-8")

# How each kind of picture begins. No SVG: it is a document of its own.
KINDS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
)
# What no text has: control characters but tab and line feed, halves of surrogate pairs, and the marks that turn the
# direction of what follows them.
UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def digest(text: str) -> str:
    """As a Content-Security-Policy names an inline script or style: 'sha256-...'."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; img-src data:; style-src {digest(STYLE)}; script-src {digest(SCRIPT)}; "
    "base-uri 'none'; form-action 'none'"
)


def page(title: str, rows: Axis, columns: Axis, cells: Cells, text: str = "") -> str:
    """The whole page: `title`, `text` below it, and the table of `cells`.

    Raises ValueError for a cell outside the axes and for a picture that is no PNG, JPEG, WebP or GIF; OSError for a
    picture's file that cannot be read.
    """
    check_places(rows, columns, cells)
    head = "".join(f'<th scope="col">{escaped(label)}</th>' for label in columns.labels)
    body = "\n".join(row_of(rows, columns, row, cells) for row in range(len(rows.labels)))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="dark light">
<title>{escaped(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<div><h1>{escaped(title)}</h1><p>{escaped(text)}</p></div>
{CONTROLS}</header>
<main>
<table>
<thead><tr><td class="corner"><span>{escaped(rows.name)} ↓</span> <span>{escaped(columns.name)} →</span></td>{head}</tr>
</thead>
<tbody>
{body}
</tbody>
</table>
<ol hidden></ol>
</main>
{VIEW}<script>{SCRIPT}</script>
</body>
</html>
"""


def row_of(rows: Axis, columns: Axis, row: int, cells: Cells) -> str:
    places = (cell_of(rows, columns, row, column, cells.get((row, column))) for column in range(len(columns.labels)))
    return f'<tr><th scope="row">{escaped(rows.labels[row])}</th>{"".join(places)}</tr>'


def cell_of(rows: Axis, columns: Axis, row: int, column: int, cell: Cell | None) -> str:
    """One place of the table. A picture is a button, and so can be reached with the keyboard."""
    where = " · ".join(", ".join(label.splitlines()) for label in (rows.labels[row], columns.labels[column]))
    if cell is None:
        return '<td><p class="none">not run</p></td>'
    sorts = {"calls": cell.calls, "evaluations": cell.evaluations, "seconds": cell.seconds}
    data = "".join(f' data-{name}="{value}"' for name, value in sorts.items() if value is not None)
    inside = []
    if cell.picture is not None:
        picture = f'<img alt="{escaped(where)}" src="{address(cell.picture, where)}">'
        inside.append(f'<button type="button" class="open">{picture}</button>')
    if cell.error:
        inside.append(f'<p class="error">{escaped(cell.error)}</p>')
    elif cell.picture is None:
        inside.append(f'<p class="none">{escaped(cell.note or "no picture")}</p>')
    said = [f'<b class="where">{escaped(where)}</b>', *(f"<span>{escaped(each)}</span>" for each in lines(cell))]
    inside.append(f"<figcaption>{''.join(said)}</figcaption>")
    return f'<td><figure data-row="{row}" data-column="{column}"{data}>{"".join(inside)}</figure></td>'


def lines(cell: Cell) -> list[str]:
    """What stands below a picture; a number stays beside its word."""
    together = cell.figures().replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    shown = cell.note if cell.picture is not None or cell.error else ""
    return [each for each in (together, shown) if each]


def escaped(text: str) -> str:
    """For any place in the page, between tags or between quotes."""
    return html.escape(UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text))


def address(picture: bytes | Path, where: str) -> str:
    """The picture itself, as an address."""
    data = picture if isinstance(picture, bytes) else picture.read_bytes()
    kind = next((kind for begins, kind in KINDS if begins.match(data)), None)
    if kind is None:
        raise ValueError(f"The picture at {where} is no PNG, JPEG, WebP or GIF: it begins with {data[:8]!r}.")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
