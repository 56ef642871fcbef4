// Tells the server the name of a workflow with each run, since an autosave is named by it.
//
// The host sends the workflow itself, without a name. The name is put beside it while a prompt is made, and at no other
// time: a workflow that is saved has none.
import { app } from "../../scripts/app.js"
import { takesSteps, workflowName } from "./page.js"
import { follow } from "./shared.js"

const followed = new WeakSet()
let queueing = false

function onQueue() {
    if (!followed.has(app.rootGraph)) {
        followed.add(app.rootGraph)
        follow(app.rootGraph, "onSerialize", (data) => {
            if (queueing) data.extra = { ...data.extra, stepwise: { workflow: workflowName() } }
        })
    }
    // The prompt is made before anything else can happen.
    queueing = true
    setTimeout(() => (queueing = false))
}

app.registerExtension({
    name: "stepwise.workflow_name",
    nodeCreated(node) {
        const widget = takesSteps(node) && node.widgets?.find((each) => each.name === "autosave_every")
        if (widget) follow(widget, "beforeQueued", onQueue)
    },
})
