// Compare Samplers opens the page that it has written, from a run that ended or was cancelled.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { button, nodeAt } from "./page.js"
import { MARGIN, drawnWidget, follow } from "./shared.js"

const KIND = "StepwiseCompare"
const HEIGHT = 46
const STYLE = `
.stepwise-compare { box-sizing: border-box; display: flex; flex-direction: column; gap: 3px; width: 100%; padding: 3px 0;
  color: var(--input-text, #ddd); font: 11px/15px sans-serif; overflow: hidden; }
.stepwise-compare button { padding: 3px 8px; border: 0; border-radius: 4px; font: inherit; cursor: pointer;
  background: var(--component-node-widget-background, var(--comfy-input-bg, #222)); color: inherit; }
.stepwise-compare button:disabled { opacity: 0.5; cursor: default; }
.stepwise-compare .said { padding: 0 2px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; user-select: text; }
`
const bars = new WeakMap()

class Bar {
    constructor(node) {
        this.file = ""
        this.element = document.createElement("div")
        this.element.className = "stepwise-compare"
        this.open = button("Open the page", () => window.open(api.apiURL(this.address()), "_blank", "noopener"))
        this.open.disabled = true
        this.said = document.createElement("div")
        this.said.className = "said"
        this.said.textContent = "after a run"
        this.element.append(this.open, this.said)
        const height = () => HEIGHT + 2 * MARGIN
        drawnWidget(node, "stepwise_compare", "stepwise_compare", this.element, height, { getMaxHeight: height })
    }

    address() {
        return `/stepwise/compare?${new URLSearchParams({ file: this.file })}`
    }

    wrote({ file, done, cells, failed, labels = [] }) {
        this.file = file
        this.open.disabled = false
        const rest = [done < cells ? `${done} of ${cells} cells` : "", failed ? `${failed} failed` : ""].filter(Boolean)
        this.said.textContent = [...rest, ...labels, file].join(", ")
        this.said.title = [file, ...labels].join("\n")
    }
}

app.registerExtension({
    name: "stepwise.compare",
    setup() {
        const style = document.createElement("style")
        style.textContent = STYLE
        document.head.append(style)
        api.addEventListener("stepwise.compared", ({ detail }) => bars.get(nodeAt(detail.node))?.wrote(detail))
    },
    nodeCreated(node) {
        if (node.comfyClass !== KIND) return
        bars.set(node, new Bar(node))
        follow(node, "onExecuted", (output) => {
            const [told] = output?.stepwise_page ?? []
            if (told) bars.get(node).wrote(told)
        })
    },
})
