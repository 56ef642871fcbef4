// A step node says on its face what it did, what is worth a remark, whether the next run would begin anew, and where an
// ended run was saved. It has no such lines, and no room for them, while there is nothing to say.
//
// What it did comes with its result (nodes/runs/face.py), with the part of the prompt that leads to it: as long as the
// page would send the same again, the host has the result at hand, and a run goes on from there.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { beginnings, canPutBack, changes, inWords, moves, putBack } from "./changes.js"
import { goOn, note } from "./go_on.js"
import { button, heightAt, nodeAt, remember, takesSteps } from "./page.js"
import { MARGIN, drawnWidget, follow } from "./shared.js"

const WIDGET = "stepwise_face"
const PATIENCE = 150 // milliseconds without another change before the page's prompt is compared
const STYLE = `
.stepwise-face { box-sizing: border-box; display: flex; flex-direction: column; gap: 4px; width: 100%; padding: 6px 8px;
  border-radius: 6px; overflow-wrap: anywhere; user-select: text; cursor: text; font: 11px/15px sans-serif;
  background: var(--component-node-widget-background, var(--comfy-input-bg, #222)); color: var(--input-text, #ddd); }
.stepwise-face .did, .stepwise-face .saved { font-weight: 600; }
.stepwise-face .anew, .stepwise-face .stale, .stepwise-face .remark { border-left: 3px solid #d9a531; padding-left: 6px; }
.stepwise-face button { align-self: flex-start; padding: 2px 8px; border: 1px solid currentColor; border-radius: 4px;
  background: transparent; color: inherit; font: inherit; cursor: pointer; }
.stepwise-face button:hover { background: rgba(128, 128, 128, 0.3); }
`

// The faces of nodes that have said something.
const faces = new WeakMap()
const paused = new Set()

class Face {
    constructor(node) {
        this.node = node
        this.shown = null // what the last run left
        this.anew = ""
        this.stale = []
        this.saved = null
    }

    /** A run of this node has ended well, or its result came from the cache. */
    executed(shown) {
        const before = this.shown
        const found = before?.paused ? beginnings(changes(before.with, shown.with, shown.node), shown) : []
        const what = shown.went_on ? "Its state is new" : "Began anew"
        this.anew = found.length ? `${what}: ${inWords(found, shown.node)}.` : ""
        if (!this.anew) this.anew = this.newState(shown)
        this.shown = shown
        this.saved = null
        this.stale = []
        if (shown.paused) paused.add(this)
        else paused.delete(this)
        this.draw()
        compareSoon()
    }

    /** A run of this node was cancelled or failed, and was saved: what there was to say of a pause before it is past. */
    ended(saved) {
        this.saved = saved
        this.anew = ""
        this.stale = []
        paused.delete(this)
        this.draw()
    }

    /** What there is to say where the wired state is none that was paused before, but of a new run. */
    newState({ node, with: upstream }) {
        for (const id of Object.keys(upstream)) {
            const other = id === node ? null : faces.get(nodeAt(id))
            if (other?.anew.startsWith("Began anew")) return `Its state is new. ${other.node.title}: ${other.anew}`
        }
        return ""
    }

    /** Compares what the page would send now with what the paused run was made of. */
    compare(prompt) {
        const { node, with: upstream } = this.shown
        const here = nodeAt(node) === this.node && node in prompt
        const stale = here ? changes(upstream, prompt, node) : []
        if (JSON.stringify(stale) === JSON.stringify(this.stale)) return
        this.stale = stale
        this.draw()
    }

    write(kind, text) {
        const line = document.createElement("div")
        line.className = kind
        line.textContent = text
        this.element.append(line)
    }

    draw() {
        this.element ??= document.createElement("div")
        this.element.className = "stepwise-face"
        this.element.replaceChildren()
        const { shown, stale, saved } = this
        if (saved) {
            this.write("saved", `saved at step ${saved.step} of ${saved.steps}: ${saved.file}`)
            this.element.append(button("Go on from it", () => goOn(this.node, saved.file)))
        } else if (shown?.did) this.write("did", shown.did)
        if (this.anew) this.write("anew", this.anew)
        if (stale.length) {
            const why = moves(stale) ? ' It changes after every run: set "control after generate" to fixed.' : ""
            const causes = beginnings(stale, shown)
            const next = causes.length ? "begins anew" : "goes on from its state again"
            this.write("stale", `The next run ${next}: ${inWords(causes.length ? causes : stale, shown.node)}.${why}`)
            if (canPutBack(stale)) this.element.append(button("Put back and keep", () => this.keep()))
        }
        for (const remark of shown?.remarks ?? []) this.write("remark", remark)
        this.measured = null
        this.fit()
    }

    async keep() {
        await putBack(this.stale)
        remember()
        compareSoon()
    }

    /** Gives the lines their room in the node, and takes it back where there are none. */
    fit() {
        const { node } = this
        const said = this.element.childNodes.length > 0
        if (said) this.widget ??= this.add()
        else if (this.widget) node.removeWidget(this.widget)
        if (!said) this.widget = null
        const before = node.size[1] - (this.grown ?? 0)
        const height = said ? Math.max(before, node.computeSize()[1]) : before
        this.grown = height - before
        node.setSize([node.size[0], height])
        node.setDirtyCanvas(true, true)
    }

    /** The canvas asks at every frame. */
    height() {
        const width = this.node.size[0] - 2 * MARGIN
        if (this.measured?.width !== width) this.measured = { width, height: heightAt(this.element, width) + 2 * MARGIN }
        return this.measured.height
    }

    add() {
        const height = () => this.height()
        return drawnWidget(this.node, WIDGET, "stepwise_face", this.element, height, { getMaxHeight: height })
    }
}

let timer = 0

function compareSoon() {
    clearTimeout(timer)
    if (paused.size) timer = setTimeout(compare, PATIENCE)
}

async function compare() {
    const { output } = await app.graphToPrompt()
    for (const face of paused) face.compare(output)
}

function faceFor(node) {
    if (!faces.has(node)) faces.set(node, new Face(node))
    return faces.get(node)
}

app.registerExtension({
    name: "stepwise.face",
    setup() {
        const style = document.createElement("style")
        style.textContent = STYLE
        document.head.append(style)
        api.addEventListener("graphChanged", compareSoon)
        api.addEventListener("promptQueued", compareSoon)
        api.addEventListener("stepwise.saved", ({ detail }) => {
            const node = nodeAt(detail.node)
            if (!node || !takesSteps(node)) return
            const face = faceFor(node)
            face.ended(detail)
            note(node, detail.file)
        })
    },
    nodeCreated(node) {
        if (!takesSteps(node)) return
        follow(node, "onExecuted", (output) => {
            const [shown] = output?.stepwise_face ?? []
            if (shown) faceFor(node).executed(shown)
        })
        follow(node, "onRemoved", () => paused.delete(faces.get(node)))
        follow(node, "onWidgetChanged", compareSoon)
    },
})
