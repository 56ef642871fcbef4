// Nodes whose job is text show it: whole, as it was written, to be selected and scrolled.
//
// What they say comes with their result (`text` in the outputs of a run), from the cache too.
import { app } from "../../scripts/app.js"
import { MARGIN, drawnWidget } from "./shared.js"

const TABLES = new Set(["StepwisePlanTable", "StepwiseSamplerReport", "StepwiseTrajectory"])
const SPEAKERS = new Set([...TABLES, "StepwiseCheckSigmas", "StepwiseInspectState", "StepwiseSaveState"])
const WIDGET = "stepwise_text"
const HEIGHT = 96 // at the least; the node's own height gives it more
const WIDTH = 360
const STYLE = `
.stepwise-text { box-sizing: border-box; display: block; width: 100%; height: 100%; min-height: ${HEIGHT}px; margin: 0;
  padding: 6px 8px; border: 0; border-radius: 6px; outline: none; resize: none; overflow: auto; cursor: text;
  user-select: text; background: var(--component-node-widget-background, var(--comfy-input-bg, #222));
  color: var(--input-text, #ddd); font: 11px/15px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.stepwise-text.table { white-space: pre; }
`

function addText(node) {
    const element = document.createElement("textarea")
    element.className = TABLES.has(node.comfyClass) ? "stepwise-text table" : "stepwise-text"
    element.readOnly = true
    element.spellcheck = false
    element.placeholder = "what it says, after a run"
    // What is scrolled here is not the canvas.
    element.addEventListener("wheel", (event) => {
        if (element.scrollHeight > element.clientHeight && !event.ctrlKey) event.stopPropagation()
    })
    drawnWidget(node, WIDGET, "stepwise_text", element, () => HEIGHT + 2 * MARGIN)
    const executed = node.onExecuted
    node.onExecuted = function (output) {
        executed?.apply(this, arguments)
        if (output?.text) element.value = [output.text].flat().join("\n")
    }
    const size = node.computeSize()
    node.setSize([Math.max(node.size[0], size[0], WIDTH), Math.max(node.size[1], size[1])])
}

app.registerExtension({
    name: "stepwise.text",
    setup() {
        const style = document.createElement("style")
        style.textContent = STYLE
        document.head.append(style)
    },
    nodeCreated(node) {
        if (SPEAKERS.has(node.comfyClass)) addText(node)
    },
})
