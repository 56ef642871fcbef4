// What several modules ask of the page: its nodes by the ids of a run, its workflow, its elements.
import { app } from "../../scripts/app.js"

/** The node with this id in a run: "8", or "12:8" for node 8 in the subgraph of node 12. */
export function nodeAt(id) {
    let graph = app.rootGraph
    let node = null
    for (const part of String(id).split(":")) {
        node = graph?.getNodeById(Number(part)) ?? graph?.getNodeById(part) ?? null
        graph = node?.subgraph
    }
    return node
}

/** The id that a node has in a run, or "" where it is in no graph. */
export function idOf(node, graph = app.rootGraph, path = "") {
    if (node.graph === graph) return path + node.id
    for (const each of graph.nodes) {
        const found = each.subgraph ? idOf(node, each.subgraph, `${path}${each.id}:`) : ""
        if (found) return found
    }
    return ""
}

/** Whether a node takes steps, and so can stop, save and go on. */
export function takesSteps(node) {
    return node.comfyClass?.startsWith("Stepwise") && "autosave_every" in (node.constructor.nodeData?.inputs ?? {})
}

/** The name of the workflow in front, as its tab has it. */
export function workflowName() {
    return app.extensionManager.workflow?.activeWorkflow?.filename ?? ""
}

/** Makes what was done one step of undo. */
export function remember() {
    const tracker = app.extensionManager.workflow?.activeWorkflow?.changeTracker
    if (tracker?.captureCanvasState) tracker.captureCanvasState()
    else tracker?.checkState?.()
}

/** How many pixels high an element is at a width. */
export function heightAt(element, width) {
    const copy = element.cloneNode(true)
    copy.style.cssText = `position: absolute; visibility: hidden; height: auto; width: ${width}px`
    document.body.append(copy)
    const height = copy.offsetHeight
    copy.remove()
    return height
}

export function button(text, act) {
    const made = document.createElement("button")
    made.type = "button"
    made.textContent = text
    made.addEventListener("pointerdown", (event) => event.stopPropagation())
    made.addEventListener("click", act)
    return made
}
