// What several of the pack's web parts do.

/** Calls `after` with the arguments of `object[name]` whenever that was called. */
export function follow(object, name, after) {
    const before = object[name]
    object[name] = function (...values) {
        const result = before?.apply(this, values)
        after.apply(this, values)
        return result
    }
}

export function linkOf(node, input) {
    return input?.link == null ? null : node.graph?.getLink?.(input.link) ?? node.graph?.links?.[input.link] ?? null
}

export const MARGIN = 6 // around what is drawn in a node

/** A widget that draws `element`, at least as high as `height()` says: nothing of it is saved, and nothing is sent. */
export function drawnWidget(node, name, type, element, height, options = {}) {
    const widget = node.addDOMWidget(name, type, element, {
        serialize: false, // nothing in the prompt
        hideOnZoom: false,
        margin: MARGIN,
        getMinHeight: height,
        getValue: () => "",
        setValue: () => {},
        ...options,
    })
    widget.serialize = false // nothing in the saved workflow
    return widget
}
