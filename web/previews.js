// Live previews of every image of a batch as a grid, in the place of the first image: an option of a workflow, under
// Edit. It is saved with the workflow, and every step node reads it there (nodes/runs/face.py) when it runs.
import { app } from "../../scripts/app.js"
import { remember } from "./page.js"

const ID = "Stepwise.PreviewEveryImage"
const KEY = "stepwise_previews"
const EVERY = "every image"

function toggle() {
    const extra = (app.rootGraph.extra ??= {})
    const on = extra[KEY] !== EVERY
    if (on) extra[KEY] = EVERY
    else delete extra[KEY]
    remember()
    const detail = on
        ? "While Stepwise's nodes sample, previews show every image of a batch. Preview method in ComfyUI's settings must not be none."
        : "While Stepwise's nodes sample, previews show the first image of a batch."
    app.extensionManager.toast?.add({ severity: "info", summary: "Stepwise", detail, life: 5000 })
}

app.registerExtension({
    name: "stepwise.previews",
    commands: [
        { id: ID, icon: "pi pi-images", label: "Stepwise: previews of every image of a batch, on or off", function: toggle },
    ],
    menuCommands: [{ path: ["Edit"], commands: [ID] }],
})
