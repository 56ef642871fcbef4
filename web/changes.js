// What has changed between two prompts in all that leads to a node: why the node would run again.
import { nodeAt } from "./page.js"

const SHORT = 40

function isLink(value) {
    return Array.isArray(value) && value.length === 2 && typeof value[0] === "string" && Number.isInteger(value[1])
}

/**
 * The inputs that differ, of the node `id` and of all that is wired into it. Each is told once, with the input of the
 * node itself through which it acts.
 */
export function changes(then, now, id) {
    const found = []
    const seen = new Set()
    const look = (id, through) => {
        if (seen.has(id)) return
        seen.add(id)
        const [old, present] = [then[id]?.inputs ?? {}, now[id]?.inputs ?? {}]
        for (const name of new Set([...Object.keys(old), ...Object.keys(present)])) {
            const [was, is] = [old[name], present[name]]
            const by = through ?? name
            if (isLink(was) && isLink(is)) {
                const same = was[1] === is[1] && then[was[0]]?.class_type === now[is[0]]?.class_type
                if (same && was[0] === is[0]) look(was[0], by)
                else found.push({ id, name, by, wire: true })
            } else if (JSON.stringify(was) !== JSON.stringify(is)) {
                found.push({ id, name, by, was, is, wire: isLink(was) || isLink(is) })
            }
        }
    }
    look(id, null)
    return found
}

function short(value) {
    const text = typeof value === "string" ? value : JSON.stringify(value)
    if (text === undefined) return "nothing"
    return text.length > SHORT ? `${text.slice(0, SHORT)}...` : text
}

function named(change, id) {
    return change.id === id ? change.name : `${change.name} of ${nodeAt(change.id)?.title ?? `node ${change.id}`}`
}

function told(change, id) {
    const name = change.id === id ? named(change, id) : `${change.by}: ${named(change, id)}`
    return change.wire ? `${name} is wired otherwise` : `${name} was ${short(change.was)}, is ${short(change.is)}`
}

/**
 * Of what differs, what lets a run begin anew: all of it, or, for a run that went on from a state, what leads to that
 * state and the loss of its wire. For the rest such a run goes on from its state again.
 */
export function beginnings(found, shown) {
    const lost = (each) => "is" in each && each.is === undefined
    return shown.went_on ? found.filter((each) => each.by === "state" && (each.id !== shown.node || lost(each))) : found
}

/** The changes in words: the first in full, and the names of the others. */
export function inWords(found, id) {
    const others = found.slice(2).map((each) => named(each, id))
    const first = found.slice(0, 2).map((each) => told(each, id))
    return first.join("; ") + (others.length ? `; and ${others.join(", ")}` : "")
}

function widgetOf(change) {
    return nodeAt(change.id)?.widgets?.find((each) => each.name === change.name)
}

function controlOf(widget) {
    return widget?.linkedWidgets?.find((each) => each.name === "control_after_generate")
}

/** Whether one of the inputs is changed by the page itself, after every run. */
export function moves(found) {
    return found.some((each) => (controlOf(widgetOf(each))?.value ?? "fixed") !== "fixed")
}

/** Whether all that differs can be put back: values of widgets, no wires. */
export function canPutBack(found) {
    return found.every((each) => !each.wire && each.was !== undefined && widgetOf(each))
}

/** Puts the values back, and keeps them: what moved by itself is fixed. */
export async function putBack(found) {
    for (const each of found) {
        const widget = widgetOf(each)
        widget.value = each.was
        widget.callback?.(each.was)
        const control = controlOf(widget)
        if (!control) continue
        control.value = "fixed"
        if (LiteGraph.vueNodesMode) await drawnAnew(nodeAt(each.id), widget)
    }
}

/** Nodes 2.0 looks at a control only when it begins to draw the widget. */
async function drawnAnew(node, widget) {
    const all = [...node.widgets]
    node.widgets = all.filter((each) => each !== widget)
    await new Promise((resolve) => setTimeout(resolve))
    node.widgets = all
}
