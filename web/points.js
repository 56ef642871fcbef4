// A curve is drawn with the mouse in Nodes 2.0 only. On the classic canvas its node says so, and gives its points as text.
import { app } from "../../scripts/app.js"
import { MARGIN, drawnWidget, follow } from "./shared.js"

const CURVE = "CURVE"
const WIDGET = "stepwise_points"
const HEIGHT = 108
const HINT = "Points, one a line: across and up, 0 to 1. Drawn with the mouse in Nodes 2.0."
const STRAIGHT = "linear" // a line of its own: straight lines between the points
const STYLE = `
.stepwise-points { box-sizing: border-box; display: flex; flex-direction: column; height: 100%; min-height: ${HEIGHT}px;
  padding: 5px 8px; gap: 2px; border-radius: 6px; font: 11px/14px sans-serif; color: var(--input-text, #ddd);
  background: var(--comfy-input-bg, #222); }
.stepwise-points div { color: var(--descrip-text, #999); }
.stepwise-points div.wrong { color: var(--error-text, #ff4444); }
.stepwise-points textarea { flex: 1 1 0; min-height: 0; padding: 2px 4px; border: 1px solid var(--border-color, #555);
  border-radius: 4px; outline: none; resize: none; color: inherit; background: transparent;
  font: 11px/15px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
`

function short(number) {
    return String(Number(number.toFixed(4)))
}

function written(curve) {
    const points = Array.isArray(curve) ? curve : (curve?.points ?? [])
    const lines = points.map(([x, y]) => `${short(x)} ${short(y)}`)
    return [...(curve?.interpolation === STRAIGHT ? [STRAIGHT] : []), ...lines].join("\n")
}

/** The curve that the text describes; throws what is wrong with it. */
function read(text) {
    const lines = text.split("\n").map((line, i) => [line.trim(), i + 1]).filter(([line]) => line)
    const straight = lines.some(([line]) => line === STRAIGHT)
    const points = lines.filter(([line]) => line !== STRAIGHT).map(([line, number]) => {
        const point = line.split(/[\s,;]+/).map(Number)
        if (point.length !== 2 || !point.every((each) => each >= 0 && each <= 1))
            throw new Error(`Line ${number} is not two numbers from 0 to 1, for example 0.5 0.25.`)
        return point
    })
    if (points.length < 2) throw new Error("A curve has two points at the least, each on a line of its own.")
    points.sort((a, b) => a[0] - b[0])
    const twice = points.find((point, i) => i && point[0] === points[i - 1][0])
    if (twice) throw new Error(`Two points are at ${short(twice[0])} across. Move one of them.`)
    return { points, interpolation: straight ? STRAIGHT : "monotone_cubic" }
}

function addPoints(node, curve) {
    const element = document.createElement("div")
    element.className = "stepwise-points"
    const hint = document.createElement("div")
    const text = document.createElement("textarea")
    text.spellcheck = false
    element.append(hint, text)
    const say = (problem) => {
        hint.textContent = problem || HINT
        hint.className = problem ? "wrong" : ""
    }
    const show = () => {
        if (document.activeElement === text) return
        text.value = written(curve.value)
        say("")
    }
    text.addEventListener("input", () => {
        try {
            curve.value = read(text.value)
            say("")
            curve.callback?.(curve.value)
            node.onWidgetChanged?.(curve.name, curve.value, undefined, curve)
        } catch (error) {
            say(error.message)
        }
    })
    text.addEventListener("blur", show)
    text.addEventListener("wheel", (event) => {
        if (text.scrollHeight > text.clientHeight && !event.ctrlKey) event.stopPropagation()
    })
    const height = () => HEIGHT + 2 * MARGIN
    const widget = drawnWidget(node, WIDGET, WIDGET, element, height, {
        canvasOnly: true, // nothing in Nodes 2.0, where the curve itself is
        getMaxHeight: height,
    })
    Object.defineProperty(widget, "hidden", { configurable: true, get: () => LiteGraph.vueNodesMode, set() {} })
    // Behind the values, which are saved by position, and before what is drawn of them.
    const place = node.widgets.findIndex((each) => each.serialize === false)
    node.widgets.splice(place, 0, node.widgets.pop())
    curve.stepwise_elsewhere = true // on the classic canvas it stands in our text
    follow(curve, "callback", show)
    follow(node, "onConfigure", show)
    show()
    const size = node.computeSize()
    node.setSize([Math.max(node.size[0], size[0]), Math.max(node.size[1], size[1])])
}

app.registerExtension({
    name: "stepwise.points",
    setup() {
        const style = document.createElement("style")
        style.textContent = STYLE
        document.head.append(style)
    },
    nodeCreated(node) {
        if (!node.comfyClass.startsWith("Stepwise")) return
        const { required } = node.constructor.nodeData?.input ?? {}
        for (const widget of [...(node.widgets ?? [])]) if (required?.[widget.name]?.[0] === CURVE) addPoints(node, widget)
    },
})
