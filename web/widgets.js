// A node shows what people set: rare inputs fold, those of another choice are away, and those that a wired model answers
// say so. What an input is stands in its schema (nodes/shared/schema.py: `advanced`, `stepwise_only`, `stepwise_from`).
//
// Nodes 2.0 folds by itself. On the classic canvas it is done here, with a button; both keep the state in
// node.showAdvanced, which is saved with the workflow.
import { app } from "../../scripts/app.js"
import { follow, linkOf } from "./shared.js"

const OURS = /^Stepwise/
const BUTTON = "stepwise_more"
const CHOICES = "COMFY_DYNAMICCOMBO_V3"
const NAMES = "stepwise_widgets" // the names of the saved values, where these depend on a choice

function specsOf(node) {
    const { required, optional } = node.constructor.nodeData?.input ?? {}
    return { ...required, ...optional }
}

/** What the schema says of a widget; of one that came with a choice, what the chosen option says. */
function specOf(node, widget) {
    const specs = specsOf(node)
    const [group, name] = widget.name.split(".")
    if (name === undefined) return specs[group]?.[1]
    const chosen = valueOf(node, group)
    const { required, optional } = specs[group]?.[1].options?.find((option) => option.key === chosen)?.inputs ?? {}
    return { ...required, ...optional }[name]?.[1]
}

function valueOf(node, name) {
    return node.widgets.find((widget) => widget.name === name)?.value
}

function isWired(node, name) {
    return linkOf(node, node.inputs?.find((input) => input.name === name)) !== null
}

/** Whether another choice makes the input one that is not used. A wired one is always in sight. */
function isAway(node, widget) {
    const [name, value] = specOf(node, widget)?.stepwise_only ?? []
    if (!name || isWired(node, widget.name)) return false
    const prefix = widget.name.slice(0, widget.name.lastIndexOf(".") + 1)
    return valueOf(node, prefix + name) !== value
}

function isRare(node, widget) {
    return Boolean(widget.options?.advanced) && !isWired(node, widget.name)
}

function isFolded(node, widget) {
    return isRare(node, widget) && !node.showAdvanced
}

/** The page asks widgets themselves whether they are hidden, at each drawing. */
function dress(node, widget) {
    if (widget.stepwise_dressed) return
    Object.defineProperty(widget, "stepwise_dressed", { value: true })
    Object.defineProperties(widget, {
        hidden: {
            configurable: true,
            get: () =>
                isAway(node, widget) ||
                (!LiteGraph.vueNodesMode && (isFolded(node, widget) || Boolean(widget.stepwise_elsewhere))),
            set() {},
        },
        advanced: { configurable: true, get: () => isRare(node, widget), set() {} },
    })
}

/** What Nodes 2.0 draws is what stands in the state of a widget. */
function tell(node, widget) {
    const spec = specOf(node, widget)
    if (spec?.stepwise_only) (widget._state?.options ?? widget.options).hidden = isAway(node, widget)
    if (!spec?.stepwise_from) return
    const answered = isWired(node, spec.stepwise_from)
    widget.disabled = answered
    const name = widget.name.split(".").at(-1)
    widget.label = answered ? `${name} (${spec.stepwise_from})` : name
}

function refresh(node) {
    for (const widget of [...node.widgets]) {
        if (specOf(node, widget) === undefined) continue
        dress(node, widget)
        tell(node, widget)
    }
    const rare = node.widgets.filter((widget) => isRare(node, widget) && !isAway(node, widget)).length
    const button = node.widgets.find((widget) => widget.name === BUTTON)
    button.stepwise_rare = rare
    button.label = node.showAdvanced ? "less" : `more (${rare})`
    node.setDirtyCanvas?.(true, true)
}

/** Does what changes which widgets are in sight, and gives the node that much more or less height. */
function fitted(node, change) {
    const before = node.computeSize()[1]
    change()
    refresh(node)
    const more = node.computeSize()[1] - before
    if (more && !LiteGraph.vueNodesMode) node.setSize([node.size[0], node.size[1] + more])
}

function addButton(node) {
    const options = { serialize: false, canvasOnly: true }
    const button = node.addWidget("button", BUTTON, null, () => node.toggleAdvanced(), options)
    button.serialize = false
    Object.defineProperty(button, "hidden", {
        configurable: true,
        get: () => LiteGraph.vueNodesMode || !button.stepwise_rare,
        set() {},
    })
    // Behind the values, which are saved by position, and before what is drawn below them.
    const place = node.widgets.findIndex((widget) => widget.serialize === false)
    node.widgets.splice(place, 0, node.widgets.pop())
    node.toggleAdvanced = function () {
        this.graph?.incrementVersion?.()
        fitted(this, () => (this.showAdvanced = !this.showAdvanced))
    }
}

/** Whether a folded input is set to something else than it is by itself. */
function isSet(node, widget) {
    const spec = specOf(node, widget)
    const usual = spec?.default ?? spec?.options?.[0]
    return Boolean(widget.options?.advanced) && usual !== undefined && widget.value !== usual
}

/** Values are saved by position, and a choice brings widgets of its own: saved with their names, they are found again
 *  when an option has got another parameter since. */
function keepNames(node, choices) {
    const named = () => node.widgets.filter((widget) => widget.serialize !== false)
    follow(node, "onSerialize", (saved) => {
        saved.properties = { ...saved.properties, [NAMES]: named().map((widget) => widget.name) }
    })
    const configure = node.configure
    node.configure = function (saved, ...rest) {
        const names = saved.properties?.[NAMES]
        if (names && saved.widgets_values) {
            const values = new Map(names.map((name, i) => [name, saved.widgets_values[i]]))
            for (const name of choices) {
                const widget = node.widgets.find((each) => each.name === name)
                if (values.has(name)) widget.value = values.get(name)
            }
            const value = (widget) => (values.has(widget.name) ? values.get(widget.name) : widget.value)
            saved = { ...saved, widgets_values: named().map(value) }
        }
        return configure.call(this, saved, ...rest)
    }
}

function addFolding(node) {
    node.widgets ??= []
    const specs = specsOf(node)
    const choices = Object.keys(specs).filter((name) => specs[name][0] === CHOICES)
    node.showAdvanced = false
    addButton(node)
    refresh(node)
    const changed = () => fitted(node, () => {})
    for (const widget of node.widgets) if (widget.name !== BUTTON) follow(widget, "callback", changed)
    follow(node, "onWidgetChanged", changed)
    follow(node, "onInputAdded", () => refresh(node)) // a choice brings its inputs
    follow(node, "onConnectionsChange", () => refresh(node))
    follow(node, "onConfigure", (saved) => {
        // Saved before there was a fold: what is set in it is in sight.
        if (saved.showAdvanced === undefined) node.showAdvanced = node.widgets.some((widget) => isSet(node, widget))
        refresh(node)
    })
    if (choices.length) keepNames(node, choices)
    node.setSize([Math.max(node.size[0], node.computeSize()[0]), node.computeSize()[1]])
}

app.registerExtension({
    name: "stepwise.widgets",
    nodeCreated(node) {
        if (OURS.test(node.comfyClass) && Object.keys(specsOf(node)).length) addFolding(node)
    },
})
