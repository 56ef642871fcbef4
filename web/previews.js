// Live previews of every image of a batch as a grid, in the place of the first image: an option of a workflow, under
// Edit. It is saved with the workflow, and every step node reads it there (nodes/runs/face.py) when it runs.
import { app } from "../../scripts/app.js"
import { remember } from "./page.js"

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

app.registerExtension({
    name: "stepwise.previews",
    commands: [{ id: ID, icon: "pi pi-images", label: LABEL, function: toggle }],
    menuCommands: [{ path: ["Edit"], commands: [ID] }],
})
