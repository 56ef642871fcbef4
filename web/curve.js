// Every schedule node shows its curve as soon as one of its widgets changes, before anything is queued.
//
// The numbers are the pack's own: the page sends the widgets' values to /stepwise/schedule (nodes/shared/preview.py). What a
// wired model was trained on is known once a run has loaded it. The node then sends it along with its result, and it is
// sent back with the next questions, as long as nothing changes in what the model comes from.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { MARGIN, drawnWidget, follow, linkOf } from "./shared.js"

const SCHEDULE = /^Stepwise.+Schedule$/
const NAMED = "StepwiseNamedSchedule" // whose levels only a run knows
const WIDGET = "stepwise_curve"
const HEIGHT = 84
const PATIENCE = 60 // milliseconds without another change before the pack is asked
const REMEMBERED = 50 // models
const SVG = "http://www.w3.org/2000/svg"
const STYLE = `
.stepwise-curve { box-sizing: border-box; display: flex; flex-direction: column; height: ${HEIGHT}px; overflow: hidden;
  min-height: ${HEIGHT}px; max-height: ${HEIGHT}px; padding: 6px 8px 4px; gap: 2px; border-radius: 6px;
  background: var(--component-node-widget-background, var(--comfy-input-bg, #222)); color: var(--input-text, #ddd); font: 11px/14px sans-serif; cursor: default; }
.stepwise-curve svg { flex: 1 1 0; min-height: 0; width: 100%; overflow: visible; }
.stepwise-curve path { fill: none; stroke: currentColor; vector-effect: non-scaling-stroke; stroke-linecap: round; }
.stepwise-curve .line { stroke-width: 1.5; stroke-linejoin: round; opacity: 0.75; }
.stepwise-curve .dots { stroke-width: 4; }
.stepwise-curve .zero { stroke-width: 7; }
.stepwise-curve .drop { stroke-width: 1; stroke-dasharray: 2 3; opacity: 0.6; }
.stepwise-curve .text, .stepwise-curve .note { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.stepwise-curve .note { color: var(--descrip-text, #999); }
.stepwise-curve .error { color: var(--error-text, #ff4444); overflow: auto; overflow-wrap: anywhere; }
.stepwise-curve :empty:not(path) { display: none; }
`

// What wired models were trained on, by where they come from (see `modelOf`): it outlives undo and reload of a workflow.
const models = new Map()
const nodes = new Set()

/** Where the wired model comes from, or null if none is wired: all that decides what comes over the wire, as text. */
function modelOf(node) {
    const link = linkOf(node, node.inputs?.find((input) => input.name === "model"))
    if (!link) return null
    const numbers = new Map() // each node is told once: two wires often come from the same one
    const told = []
    const tell = (graph, { origin_id, origin_slot }) => {
        const origin = graph.getNodeById(origin_id)
        if (!origin) return [String(graph.id), origin_slot] // the inputs of a subgraph
        if (!numbers.has(origin)) {
            const number = numbers.size
            numbers.set(origin, number)
            const values = (origin.widgets ?? []).map((widget) => String(widget.value))
            told[number] = [origin.type, origin.mode, values]
            for (const input of origin.inputs ?? []) {
                const link = linkOf(origin, input)
                if (link) told[number].push([input.name, tell(graph, link)])
            }
        }
        return [numbers.get(origin), origin_slot]
    }
    return JSON.stringify([tell(node.graph, link), told])
}

/** What is declared of a node's inputs, by name. */
function specsOf(node) {
    const { required, optional } = node.constructor.nodeData.input
    return { ...required, ...optional }
}

/** The names of widgets that take their value from a wire, which only a run knows: their own, or that of a socket other
 * than the model which answers them. */
function wired(node) {
    const inputs = (node.inputs ?? []).filter((input) => linkOf(node, input))
    const sockets = new Set(inputs.map((input) => input.name).filter((name) => name !== "model"))
    const answered = Object.entries(specsOf(node)).filter(([, spec]) => sockets.has(spec[1]?.stepwise_from))
    return [...inputs.filter((input) => input.widget).map((input) => input.name), ...answered.map(([name]) => name)]
}

/** The widgets' values, without those that the wired model answers: a run does not look at them. */
function valuesOf(node, model) {
    const specs = specsOf(node)
    const counts = (name) => name in specs && !(model !== null && specs[name][1]?.stepwise_from === "model")
    const ours = node.widgets.filter((widget) => counts(widget.name))
    return Object.fromEntries(ours.map((widget) => [widget.name, widget.value]))
}

function noteFor(node, model) {
    if (model !== null && !models.has(model)) {
        const what = node.comfyClass === "StepwiseFlowSchedule" ? "shift" : "range"
        return `model not run yet: its ${what} may differ`
    }
    const names = wired(node)
    return names.length ? `${names.join(", ")} wired: drawn from the widgets` : ""
}

/** A widget that takes its value from a wire holds another one, which may well be no good: the run has the say. */
function unknown(node) {
    const names = wired(node)
    return names.length ? `${names.join(", ")} wired: drawn after a run` : ""
}

function remember(model, trained) {
    models.delete(model)
    models.set(model, trained)
    if (models.size > REMEMBERED) models.delete(models.keys().next().value)
}

class Curve {
    constructor(node) {
        this.node = node
        this.asked = "" // the question that the curve answers, or will
        this.count = 0 // questions so far: only the answer to the latest counts
        this.element = document.createElement("div")
        this.element.className = "stepwise-curve"
        this.element.curve = this
        this.clear()
    }

    /** The curve's numbers, and whatever is said about them: what the tests look at. */
    clear(note = "") {
        this.sigmas = []
        this.error = ""
        this.note = note
        this.element.replaceChildren()
        this.element.title = note
        if (note) this.write("note", note)
    }

    write(kind, text) {
        const line = document.createElement("div")
        line.className = kind
        line.textContent = text
        this.element.append(line)
    }

    show(sigmas, note) {
        this.clear()
        this.sigmas = sigmas
        this.note = note
        const steps = sigmas.length - 1
        const text = `${steps} step${steps === 1 ? "" : "s"}, ${short(sigmas[0])} to ${short(sigmas.at(-1))}`
        this.element.append(drawn(sigmas))
        this.write("text", text)
        if (note) this.write("note", note)
        this.element.title = note ? `${text}\n${note}` : text
    }

    complain(error) {
        this.clear()
        this.error = error
        this.element.title = error
        this.write("error", error)
    }

    /** Asks for the curve of the values that the node has when nothing changed any more for a moment. */
    refresh() {
        clearTimeout(this.timer)
        this.timer = setTimeout(() => this.ask(), PATIENCE)
    }

    async ask() {
        const { node } = this
        if (!node.graph) return
        const model = modelOf(node)
        const values = valuesOf(node, model)
        const trained = model === null ? null : models.get(model) ?? null
        const question = JSON.stringify([values, model, trained !== null, wired(node)])
        if (question === this.asked) return
        this.asked = question
        const number = ++this.count
        let answer
        try {
            const body = JSON.stringify({ node: node.comfyClass, values, trained })
            const response = await api.fetchApi("/stepwise/schedule", {
                method: "POST",
                headers: { "Content-Type": "application/json" },
                body,
            })
            answer = await response.json()
        } catch (error) {
            console.debug("Stepwise: no curve", error)
            answer = null
        }
        if (number !== this.count) return
        if (answer?.sigmas) this.show(answer.sigmas, noteFor(node, model) || (model === null ? answer.made_for : ""))
        else if (answer?.note) this.clear(answer.note)
        else if (answer?.error && unknown(node)) this.clear(unknown(node))
        else if (answer?.error) this.complain(answer.error)
        else {
            this.asked = "" // the next change asks again
            this.clear()
        }
    }

    /** A run has the last word: it knows the model and what comes over wires. */
    executed(output) {
        if (!output?.stepwise_sigmas?.length) return
        const model = modelOf(this.node)
        const trained = output.stepwise_trained?.[0]
        if (model !== null && trained) remember(model, trained)
        this.count++
        this.show(output.stepwise_sigmas, "")
        // A widget may have changed while the run was on its way. Where wires bring values, only a run has them.
        if (wired(this.node).length || this.node.comfyClass === NAMED) {
            const known = model !== null && models.has(model)
            this.asked = JSON.stringify([valuesOf(this.node, model), model, known, wired(this.node)])
        } else this.refresh()
    }
}

function short(sigma) {
    return String(Number(sigma.toPrecision(4)))
}

/** Sigma over the step, on a logarithmic scale; a 0 stands at the lower edge, with a broken line to it. */
function drawn(sigmas) {
    const logs = sigmas.map((sigma) => (sigma > 0 ? Math.log(sigma) : null))
    const positive = logs.filter((log) => log !== null)
    const [low, high] = [Math.min(...positive), Math.max(...positive)]
    const floor = positive.length < sigmas.length ? 84 : 100
    const x = (i) => ((100 * i) / (sigmas.length - 1)).toFixed(3)
    const y = (log) => (high > low ? ((high - log) / (high - low)) * floor : floor / 4).toFixed(3)
    const at = (i) => `${x(i)} ${logs[i] === null ? 100 : y(logs[i])}`
    const dot = (i) => `M${at(i)}h0`
    const steps = [...sigmas.keys()]
    const above = steps.filter((i) => logs[i] !== null)
    const edges = steps.slice(1).filter((i) => logs[i] === null || logs[i - 1] === null)
    const paths = {
        line: above.map((i) => `${i > 0 && logs[i - 1] !== null ? "L" : "M"}${at(i)}`).join(""),
        drop: edges.map((i) => `M${at(i - 1)}L${at(i)}`).join(""),
        dots: sigmas.length > 60 ? "" : above.map(dot).join(""),
        zero: steps.filter((i) => logs[i] === null).map(dot).join(""),
    }
    const picture = document.createElementNS(SVG, "svg")
    picture.setAttribute("viewBox", "0 0 100 100")
    picture.setAttribute("preserveAspectRatio", "none")
    for (const [kind, data] of Object.entries(paths)) {
        const path = document.createElementNS(SVG, "path")
        path.setAttribute("class", kind)
        path.setAttribute("d", data)
        picture.append(path)
    }
    return picture
}

function addCurve(node) {
    const curve = new Curve(node)
    const height = () => HEIGHT + 2 * MARGIN
    const widget = drawnWidget(node, WIDGET, "stepwise_curve", curve.element, height, { getMaxHeight: height })
    for (const each of node.widgets) if (each !== widget) follow(each, "callback", () => curve.refresh())
    follow(node, "onWidgetChanged", () => curve.refresh())
    follow(node, "onConnectionsChange", () => curve.refresh())
    follow(node, "onConfigure", () => curve.refresh())
    follow(node, "onExecuted", (output) => curve.executed(output))
    follow(node, "onAdded", () => nodes.add(curve))
    follow(node, "onRemoved", () => nodes.delete(curve))
    const size = node.computeSize()
    node.setSize([Math.max(node.size[0], size[0]), Math.max(node.size[1], size[1])])
    curve.refresh()
}

app.registerExtension({
    name: "stepwise.curve",
    setup() {
        const style = document.createElement("style")
        style.textContent = STYLE
        document.head.append(style)
        // What no event of a node tells: values set by other extensions, and changes in what the model comes from.
        api.addEventListener("graphChanged", () => nodes.forEach((curve) => curve.refresh()))
    },
    nodeCreated(node) {
        if (SCHEDULE.test(node.comfyClass)) addCurve(node)
    },
    afterConfigureGraph() {
        nodes.forEach((curve) => curve.refresh())
    },
})
