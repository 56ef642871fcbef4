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
