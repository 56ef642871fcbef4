"""The help pages in the panel as people have it: narrow, and nothing in it out of sight."""

import re
from pathlib import Path

from stepwise.tests.e2e.test_curve import CANVASES, SCREENSHOTS

PAGES = Path(__file__).resolve().parents[2] / "web" / "docs"
# A page with the settings of every choice, one with curves, one with formulas, and one of each other kind.
CHOSEN = ["KSampler", "Restart", "DPMpp2M", "UniPCSampler", "Sample", "DrawnCurveGuidance", "PlotSigmas", "SplitSigmas"]
ADD = """type => {
    app.graph.clear()
    const node = LiteGraph.createNode(type)
    node.pos = [60, 60]
    app.graph.add(node)
    app.canvas.selectNode(node)
}"""
# The panel's width, what reaches out of it, and the lines of the lists of inputs and outputs: whether all is seen.
SEEN = """() => {
    const page = document.querySelector('[data-testid=properties-panel] .markdown-content, .markdown-content')
    const panel = page.closest('[data-testid=properties-panel]') ?? page.parentElement
    const { left, right, width } = panel.getBoundingClientRect()
    const out = [...page.querySelectorAll('*')].filter(each => {
        const box = each.getBoundingClientRect()
        const hides = each.clientWidth && each.scrollWidth > each.clientWidth + 1
        return box.left < left - 1 || box.right > right + 1 || hides
    })
    const lines = [...page.querySelectorAll('li')].filter(line => {
        const name = line.querySelector('strong')
        return name?.querySelector('code')?.innerText === name?.innerText && name
    }).map(line => {
        const range = document.createRange()
        range.selectNodeContents(line)
        const boxes = [...range.getClientRects()]
        return [line.innerText, boxes.every(box => box.left >= left && box.right <= right)]
    })
    return { width, scrolls: page.scrollWidth > page.clientWidth + 1, lines,
             out: out.map(each => each.tagName + ' ' + each.innerText.slice(0, 60)) }
}"""


@CANVASES
def test_a_page_fits_the_panel_and_every_meaning_is_seen(open_editor, nodes2):
    editor = open_editor(nodes2=nodes2)
    for name in CHOSEN if nodes2 else CHOSEN[:2]:
        editor.page.evaluate(ADD, f"Stepwise{name}")
        editor.settle()
        editor.page.get_by_test_id("info-button").first.click()
        editor.page.wait_for_selector(".markdown-content li strong code")
        editor.page.wait_for_function(
            "title => document.querySelector('.markdown-content h1')?.innerText === title", arg=title(name)
        )
        seen = editor.page.evaluate(SEEN)
        editor.screenshot(SCREENSHOTS / f"help-{name}-{'nodes2' if nodes2 else 'classic'}.png")
        assert 250 < seen["width"] < 340
        assert seen["out"] == []
        assert not seen["scrolls"]
        assert [line for line, whole in seen["lines"] if not whole] == []
        text = (PAGES / f"Stepwise{name}.md").read_text(encoding="utf-8")
        told = re.findall(r"^- \*\*`([^`]+)`\*\* \(.+?\) (\S.*)$", text, re.MULTILINE)
        assert len(seen["lines"]) == len(told)
        for (line, _), (name_of_input, meaning) in zip(seen["lines"], told, strict=True):
            assert line.startswith(name_of_input)
            assert meaning.replace("`", "").replace("*", "")[-30:] in line


def title(name):
    return (PAGES / f"Stepwise{name}.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
