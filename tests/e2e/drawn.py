"""What a person sees of a node's widgets, on either canvas."""

# The text that the classic canvas draws in one pass, with the place of each line on the graph.
LINES = """() => {
    const lines = []
    const { prototype } = CanvasRenderingContext2D
    const fill = prototype.fillText
    prototype.fillText = function (text, x, y, ...rest) {
        const at = this.getTransform().transformPoint(new DOMPoint(x, y))
        lines.push([String(text), at.x, at.y])
        return fill.call(this, text, x, y, ...rest)
    }
    try { app.canvas.draw(true, true) } finally { prototype.fillText = fill }
    const { scale, offset } = app.canvas.ds
    const ratio = app.canvas.canvas.width / app.canvas.canvas.clientWidth
    return lines.map(([text, x, y]) => [text, x / ratio / scale - offset[0], y / ratio / scale - offset[1]])
}"""
BOX = """id => {
    const { pos, size } = app.graph.getNodeById(id)
    return [pos[0], pos[1], pos[0] + size[0], pos[1] + size[1]]
}"""
# Where a widget is on the screen of the classic canvas.
PLACE = """([id, name]) => {
    const node = app.graph.getNodeById(id)
    const widget = node.widgets.find(each => each.name === name)
    const at = [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.y + 10]
    const [x, y] = app.canvas.convertOffsetToCanvas(at)
    const box = app.canvas.canvas.getBoundingClientRect()
    return [box.left + x, box.top + y]
}"""


def drawn(editor, node, nodes2):
    """The words that are drawn in a node."""
    editor.settle()
    if nodes2:
        return editor.page.locator(f"[data-node-id='{node}']").inner_text().split("\n")
    left, top, right, bottom = editor.page.evaluate(BOX, node)
    lines = editor.page.evaluate(LINES)
    return [text for text, x, y in lines if left <= x <= right and top <= y <= bottom]


def unfold(editor, node, nodes2):
    """Presses the button for more inputs, or for fewer."""
    if nodes2:
        editor.page.locator(f"[data-node-id='{node}']").get_by_text("advanced inputs").click()
    else:
        editor.page.mouse.click(*editor.page.evaluate(PLACE, [node, "stepwise_more"]))
    editor.settle()
    editor.page.wait_for_timeout(100)


def choose(editor, node, name, choice, nodes2):
    """Opens the list of a combo and clicks on one of it."""
    if nodes2:
        editor.page.locator(f"[data-node-id='{node}']").get_by_role("combobox", name=name, exact=True).click()
        editor.page.get_by_role("option", name=choice, exact=True).click()
    else:
        editor.page.mouse.click(*editor.page.evaluate(PLACE, [node, name]))
        editor.page.locator(".litemenu-entry").get_by_text(choice, exact=True).click()
    editor.settle()
    editor.page.wait_for_timeout(100)
