// One click that goes on from a node's autosave: Load State beside it, with the file chosen and the state wired.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { choose } from "./load_state.js"
import { idOf, remember, takesSteps, workflowName } from "./page.js"

const LOADER = "StepwiseLoadState"
const GAP = 40
const EDGE = 80

// What this page was told of: the file of each node's last run that was saved.
const told = new WeakMap()

export function note(node, file) {
    told.set(node, file)
}

/** Wires a state on disk into a step node: by the Load State that it has, or a new one. */
export function goOn(node, file) {
    const slot = node.inputs.findIndex((input) => input.name === "state")
    const wired = node.getInputNode(slot)
    const loader = wired?.type === LOADER ? wired : placed(node)
    if (loader !== wired) loader.connect(0, node, slot)
    choose(loader, file)
    show(loader)
    app.canvas.setDirty(true, true)
    remember()
}

/** A new Load State to the left of a node, or below it where there is no room. */
function placed(node) {
    const loader = LiteGraph.createNode(LOADER)
    const title = LiteGraph.NODE_TITLE_HEIGHT
    const meets = ({ pos, size }) =>
        pos[0] < loader.pos[0] + loader.size[0] && loader.pos[0] < pos[0] + size[0] &&
        pos[1] - title < loader.pos[1] + loader.size[1] && loader.pos[1] - title < pos[1] + size[1]
    const below = ({ pos, size }) => pos[1] + size[1] + title + GAP
    const { nodes } = node.graph
    loader.pos = [node.pos[0] - loader.size[0] - GAP, node.pos[1]]
    if (nodes.some(meets)) loader.pos = [node.pos[0], below(node)]
    for (let other; (other = nodes.find(meets)); ) loader.pos = [loader.pos[0], below(other)]
    node.graph.add(loader)
    return loader
}

/** Moves the view by as little as brings a whole node into it, clear of the bars at its edges. */
function show(node) {
    const { ds, canvas } = app.canvas
    const { width, height } = canvas.getBoundingClientRect()
    const title = LiteGraph.NODE_TITLE_HEIGHT
    const sides = [[node.pos[0], node.size[0], width], [node.pos[1] - title, node.size[1] + title, height]]
    for (const [side, [begin, length, room]] of sides.entries()) {
        const beyond = begin + length + EDGE + ds.offset[side] - room / ds.scale
        if (beyond > 0) ds.offset[side] -= beyond
        if (begin - EDGE + ds.offset[side] < 0) ds.offset[side] = EDGE - begin
    }
}

/** The node's last autosave: the newest one that it has on disk, by its present name or by the one it had. */
async function lastOf(node) {
    const asked = new URLSearchParams({ workflow: workflowName(), title: node.title, node: idOf(node) })
    const { file } = await (await api.fetchApi(`/stepwise/autosave?${asked}`)).json()
    return file ?? told.get(node)
}

async function goOnFromAutosave(node) {
    const file = await lastOf(node)
    if (file) goOn(node, file)
    else {
        const detail = "This node has no autosave yet. Set autosave_every: a run that is cancelled or fails leaves one."
        app.extensionManager.toast.add({ severity: "info", summary: node.title, detail, life: 8000 })
    }
}

app.registerExtension({
    name: "stepwise.go_on",
    getNodeMenuItems(node) {
        if (!takesSteps(node)) return []
        return [{ content: "Go on from the autosave", callback: () => void goOnFromAutosave(node) }]
    },
})
