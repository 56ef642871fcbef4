// Workflows of ComfyUI's sampling nodes made into Stepwise's by one click, and back: the graph in front is sent to the
// pack's route, and what comes back takes its place, in one step of undo.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { button, remember } from "./page.js"

const ROUTE = "/stepwise/convert"
const THERE = "Stepwise: convert this workflow"
const BACK = "Stepwise: convert back to ComfyUI's nodes"
const ONE = "Convert to Stepwise"
const ONE_BACK = "Convert to ComfyUI's node"
// Nodes that sample, and nodes that make a SAMPLER.
const SAMPLING = /^(KSampler(Advanced|Select)?|Sampler(Custom(Advanced)?|EulerAncestral|LMS|DPMPP_\w+|SEEDS2|ER_SDE|SASolver))$/
const OURS = /^Stepwise/
const MAKES = /\wSampler$/
const PANEL = "stepwise-report"
const STYLE = `
.${PANEL} { position: fixed; right: 24px; bottom: 64px; z-index: 1200; display: flex; flex-direction: column; gap: 8px;
  width: 440px; max-height: 60vh; padding: 12px 14px; border-radius: 8px; font: 13px/18px sans-serif;
  color: var(--input-text, #ddd); background: var(--comfy-menu-bg, #353535); box-shadow: 0 4px 16px #000a; }
.${PANEL} header { font-weight: bold; }
.${PANEL} ul { flex: 1 1 auto; min-height: 0; margin: 0; padding: 0; overflow: auto; list-style: none; user-select: text; }
.${PANEL} li { padding: 4px 0 4px 8px; border-left: 3px solid #8888; margin-bottom: 4px; overflow-wrap: anywhere; }
.${PANEL} li small { display: block; opacity: 0.8; font-size: 12px; }
.${PANEL} li.same-picture { border-color: #4caf50; }
.${PANEL} li.same-law { border-color: #ffb300; }
.${PANEL} li.left { border-color: #ef5350; }
.${PANEL} footer { display: flex; gap: 8px; justify-content: flex-end; }
.${PANEL} button { padding: 3px 12px; border: 1px solid currentColor; border-radius: 4px; background: transparent;
  color: inherit; font: inherit; cursor: pointer; }
.${PANEL} button:hover { background: rgba(128, 128, 128, 0.3); }
`

/** The graph that is in front: "" for the root, else the id of a subgraph. */
function nameOf(graph) {
    return !graph || graph === app.rootGraph ? "" : String(graph.id)
}

async function convert({ back = false, only = null } = {}) {
    const body = JSON.stringify({ workflow: app.rootGraph.serialize(), back, ...(only ? { only } : {}) })
    try {
        const headers = { "Content-Type": "application/json" }
        const response = await api.fetchApi(ROUTE, { method: "POST", headers, body })
        const answer = await response.json()
        if (!response.ok) throw new Error(answer.error ?? `the server answers ${response.status}`)
        const { workflow, report } = answer
        if (report.entries.some((entry) => entry.kind !== "left")) await replace(workflow)
        show(report)
    } catch (error) {
        const summary = "The workflow stays as it is"
        app.extensionManager.toast.add({ severity: "error", summary, detail: error.message, life: 10000 })
    }
}

/** Puts a workflow in the place of the one in front: in its tab, at the same view, and so that undo brings it back. */
async function replace(workflow) {
    remember()
    const active = app.extensionManager.workflow?.activeWorkflow
    const tracker = active?.changeTracker
    const before = tracker && JSON.parse(JSON.stringify(tracker.activeState))
    const undone = tracker ? [...tracker.undoQueue] : []
    const { scale, offset } = app.canvas.ds
    const view = [scale, [...offset], nameOf(app.canvas.graph)]
    await app.loadGraphData(workflow, true, false, active)
    await settled()
    await lookAt(...view)
    if (!tracker) return
    remember()
    tracker.undoQueue.splice(0, tracker.undoQueue.length, ...undone, before)
    tracker.redoQueue.length = 0
    tracker.updateModified?.()
}

/** Nodes 2.0 measures new nodes over some frames, and writes their sizes down: waits until it is done. */
async function settled() {
    const sizes = () => JSON.stringify(app.canvas.graph.nodes.map((node) => [...node.pos, ...node.size]))
    let before = ""
    for (let [frames, still] = [0, 0]; frames < 120 && still < 8; frames++) {
        await new Promise(requestAnimationFrame)
        const now = sizes()
        still = now === before ? still + 1 : 0
        before = now
    }
}

/** Goes back to the graph that was in front, and to its view; the page shows the root after it has loaded. */
async function lookAt(scale, offset, name) {
    const inner = name && app.rootGraph.subgraphs?.get(name)
    if (inner) {
        app.canvas.setGraph(inner)
        await settled()
    }
    if (name && !inner) return
    app.canvas.ds.scale = scale
    app.canvas.ds.offset[0] = offset[0]
    app.canvas.ds.offset[1] = offset[1]
    app.canvas.setDirty(true, true)
}

function element(tag, text = "", name = "") {
    const made = document.createElement(tag)
    made.textContent = text
    if (name) made.className = name
    return made
}

function lineOf(entry) {
    const line = element("li", "", entry.kind.replaceAll(" ", "-"))
    const title = entry.title === entry.was ? entry.was : `${entry.title} (${entry.was})`
    line.append(element("div", entry.now ? `${title} → ${entry.now}` : title))
    line.append(element("small", entry.place ? `node ${entry.id} in ${entry.place}` : `node ${entry.id}`))
    const said = entry.why ? `${entry.kind}: ${entry.why}` : entry.kind
    for (const text of [...(entry.sampling || entry.why ? [said] : []), ...entry.notes]) line.append(element("small", text))
    return line
}

/** What was done, until it is closed. */
function show(report) {
    document.querySelector(`.${PANEL}`)?.remove()
    const panel = element("div", "", PANEL)
    panel.setAttribute("role", "dialog")
    panel.append(element("header", report.summary))
    const list = element("ul")
    const first = [...report.entries].sort((one, other) => other.sampling - one.sampling)
    list.append(...first.map(lineOf), ...report.advice.map((text) => element("li", text)))
    const buttons = element("footer")
    const undo = button("Undo", async () => {
        panel.remove()
        await app.extensionManager.command.execute("Comfy.Undo")
    })
    if (report.entries.some((entry) => entry.kind !== "left")) buttons.append(undo)
    buttons.append(button("Close", () => panel.remove()))
    panel.append(list, buttons)
    document.body.append(panel)
}

function commands() {
    return [
        { id: "Stepwise.Convert", label: THERE, icon: "pi pi-arrow-right", function: () => convert() },
        { id: "Stepwise.ConvertBack", label: BACK, icon: "pi pi-arrow-left", function: () => convert({ back: true }) },
    ]
}

app.registerExtension({
    name: "stepwise.convert",
    commands: commands(),
    menuCommands: [{ path: ["Edit"], commands: ["Stepwise.Convert", "Stepwise.ConvertBack"] }],
    setup() {
        const style = document.createElement("style")
        style.textContent = STYLE
        document.head.append(style)
    },
    getCanvasMenuItems() {
        return [{ content: THERE, callback: () => void convert() }]
    },
    getNodeMenuItems(node) {
        const only = [[nameOf(node.graph), String(node.id)]]
        if (SAMPLING.test(node.comfyClass)) return [{ content: ONE, callback: () => void convert({ only }) }]
        const inputs = node.constructor.nodeData?.inputs ?? {}
        const samples = OURS.test(node.comfyClass) && ("end_step" in inputs || MAKES.test(node.comfyClass))
        return samples ? [{ content: ONE_BACK, callback: () => void convert({ only, back: true }) }] : []
    },
})
