// Live previews of every image of a batch as a grid, in the place of the first image: an option of a workflow, under
// Edit. It is saved with the workflow, and every step node reads it there (nodes/runs/face.py) when it runs. And their
// end: a picture that a node has made takes their place.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { nodeAt, remember } from "./page.js"

const ID = "Stepwise.PreviewEveryImage"
const KEY = "stepwise_previews"
const EVERY = "every image"
const LABEL = "Stepwise: previews of every image of a batch, on or off"

function toggle() {
    const extra = (app.rootGraph.extra ??= {})
    const on = extra[KEY] !== EVERY
    if (on) extra[KEY] = EVERY
    else delete extra[KEY]
    remember()
    const shown = on ? "every image of a batch, by ComfyUI's preview method" : "the first image of a batch"
    const detail = `While nodes of Stepwise sample, previews show ${shown}.`
    app.extensionManager.toast?.add({ severity: "info", summary: "Stepwise", detail, life: 5000 })
}

/** The page shows a node's last preview in the place of its pictures, and in Nodes 2.0 a second time under it. Only its
 * own store of outputs can take previews away, which it has no other way to. */
function forget(node) {
    const locator = node.graph === app.rootGraph ? String(node.id) : `${node.graph.id}:${node.id}`
    app.extensionManager._p?._s?.get("nodeOutput")?.revokePreviewsByLocatorId?.(locator)
    // The classic canvas looks for pictures where these are not what it has.
    node.images = node.preview = undefined
    node.setDirtyCanvas(true, true)
}

app.registerExtension({
    name: "stepwise.previews",
    setup() {
        api.addEventListener("executed", ({ detail }) => {
            const node = detail.output?.images ? nodeAt(detail.display_node ?? detail.node) : null
            if (node?.comfyClass?.startsWith("Stepwise")) forget(node)
        })
    },
    commands: [{ id: ID, icon: "pi pi-images", label: LABEL, function: toggle }],
    menuCommands: [{ path: ["Edit"], commands: [ID] }],
})
