// Load State shows what the chosen state holds, lists the states anew, and takes files: by a button, or dropped on it.
//
// An uploaded file goes where the host puts uploads, its input folder, by the host's own route.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import { button } from "./page.js"
import { MARGIN, drawnWidget, follow } from "./shared.js"

const LOADER = "StepwiseLoadState"
const WIDGET = "stepwise_summary"
const NOTHING = "no state saved yet" // nodes/runs/folders.py
const FOLDER = "stepwise"
const FORMAT = "stepwise state"
const HEADER_LIMIT = 16 * 2 ** 20
const HEIGHT = 116
const WIDTH = 340
const STYLE = `
.stepwise-summary { box-sizing: border-box; display: flex; flex-direction: column; gap: 4px; width: 100%; height: 100%;
  min-height: ${HEIGHT}px; padding: 6px 8px; border-radius: 6px; font: 11px/15px sans-serif; color: var(--input-text, #ddd);
  background: var(--component-node-widget-background, var(--comfy-input-bg, #222)); }
.stepwise-summary .buttons { display: flex; gap: 6px; }
.stepwise-summary .lines { flex: 1 1 0; min-height: 0; overflow: auto; overflow-wrap: anywhere; white-space: pre-wrap;
  user-select: text; cursor: text; }
.stepwise-summary .error { color: var(--error-text, #ff4444); }
.stepwise-summary button { padding: 2px 8px; border: 1px solid currentColor; border-radius: 4px; background: transparent;
  color: inherit; font: inherit; cursor: pointer; }
.stepwise-summary button:hover { background: rgba(128, 128, 128, 0.3); }
`

// A run that ends may have put another state in the place of the one that a node names.
const ENDS = ["execution_success", "execution_error", "execution_interrupted"]

const summaries = new WeakMap()
const onPage = new Set()

/** Chooses a file in a Load State, whether its list has it yet or not. */
export function choose(node, file) {
    return summaries.get(node).choose(file)
}

async function ask(question) {
    const response = await api.fetchApi(question)
    if (!response.ok) throw new Error(`the server answers ${response.status}`)
    return response.json()
}

/** Why a file is no state that could be uploaded, by its first bytes; "" for one that is. */
async function refusal(file) {
    if (!file.name.endsWith(".safetensors") || file.name.startsWith(".")) return "its name must end in .safetensors"
    const length = Number(new DataView(await file.slice(0, 8).arrayBuffer().then(padded)).getBigUint64(0, true))
    if (length > HEADER_LIMIT || length > file.size - 8) return "it is no safetensors file, or is cut short"
    try {
        const { __metadata__: marks } = JSON.parse(await file.slice(8, 8 + length).text())
        return marks?.format === FORMAT ? "" : "it is a safetensors file, but no state of Stepwise"
    } catch {
        return "it is no safetensors file"
    }
}

function padded(buffer) {
    const bytes = new Uint8Array(8)
    bytes.set(new Uint8Array(buffer))
    return bytes.buffer
}

class Summary {
    constructor(node) {
        this.node = node
        this.count = 0 // questions so far: only the answer to the latest counts
        this.chosen = false // by a person, a saved workflow or another module
        this.element = document.createElement("div")
        this.element.className = "stepwise-summary"
        const buttons = document.createElement("div")
        buttons.className = "buttons"
        buttons.append(button("Upload", () => this.pick()), button("Refresh", () => this.refresh()))
        this.lines = document.createElement("div")
        this.lines.className = "lines"
        this.element.append(buttons, this.lines)
    }

    get widget() {
        return this.node.widgets.find((each) => each.name === "file")
    }

    write(text, isError = false) {
        this.lines.textContent = text
        this.lines.classList.toggle("error", isError)
        this.node.setDirtyCanvas(true, true)
    }

    /** Lists the states anew; the newest one is taken where nothing was chosen. */
    async refresh() {
        try {
            const { files } = await ask("/stepwise/states")
            this.list(files)
            const value = this.widget.value
            if (!value || value === NOTHING || (!this.chosen && value !== files[0])) this.set(files[0] ?? NOTHING)
        } catch (error) {
            return this.write(`The states cannot be listed: ${error.message}.`, true)
        }
        return this.show()
    }

    list(files) {
        this.widget.options.values = files.length ? files : [NOTHING]
    }

    set(file) {
        this.widget.value = file
    }

    async choose(file) {
        this.chosen = true
        const { values } = this.widget.options
        if (!values.includes(file)) this.list([file, ...values.filter((each) => each !== NOTHING)])
        this.set(file)
        return this.show()
    }

    /** Says what is in the chosen file. */
    async show() {
        const number = ++this.count
        const input = this.node.inputs?.find((each) => each.name === "file")
        const file = this.widget.value
        let lines = []
        let error = ""
        if (input?.link != null) lines = ["file is wired: known when it runs"]
        else if (!file || file === NOTHING)
            lines = ["Save one with Save State or autosave_every, upload one, or drop its file here."]
        else {
            try {
                ;({ lines = [], error = "" } = await ask(`/stepwise/state?${new URLSearchParams({ file })}`))
            } catch (problem) {
                error = `Not known what it holds: ${problem.message}.`
            }
        }
        if (number === this.count) this.write(error || lines.join("\n"), Boolean(error))
    }

    pick() {
        const input = document.createElement("input")
        input.type = "file"
        input.accept = ".safetensors"
        input.addEventListener("change", () => input.files[0] && this.take(input.files[0]))
        input.click()
    }

    /** Uploads a state and chooses it. */
    async take(file) {
        const problem = await refusal(file)
        if (problem) return this.write(`${file.name} is not uploaded: ${problem}.`, true)
        this.write(`uploading ${file.name} ...`)
        const body = new FormData()
        body.append("image", file)
        body.append("type", "input")
        body.append("subfolder", FOLDER)
        const response = await api.fetchApi("/upload/image", { method: "POST", body }).catch(() => null)
        if (!response?.ok) {
            const why = response?.status === 413 ? "it is larger than --max-upload-size allows" : "the server refuses it"
            return this.write(`${file.name} is not uploaded: ${why}.`, true)
        }
        const { name, subfolder } = await response.json()
        return this.choose(`${subfolder ? `${subfolder}/` : ""}${name} [input]`)
    }
}

function hasFiles(event) {
    return [...(event.dataTransfer?.items ?? [])].some((each) => each.kind === "file")
}

function addSummary(node) {
    const summary = new Summary(node)
    summaries.set(node, summary)
    onPage.add(summary)
    follow(node, "onRemoved", () => onPage.delete(summary))
    drawnWidget(node, WIDGET, "stepwise_summary", summary.element, () => HEIGHT + 2 * MARGIN)
    follow(summary.widget, "callback", () => {
        summary.chosen = true
        summary.show()
    })
    follow(node, "onConfigure", () => {
        summary.chosen = true
        summary.show()
    })
    follow(node, "onConnectionsChange", () => summary.show())
    node.onDragOver = hasFiles
    node.onDragDrop = async (event) => {
        const [file] = event.dataTransfer?.files ?? []
        if (!file) return false
        await summary.take(file)
        return true
    }
    const size = node.computeSize()
    node.setSize([Math.max(node.size[0], size[0], WIDTH), Math.max(node.size[1], size[1])])
    summary.refresh()
}

app.registerExtension({
    name: "stepwise.load_state",
    setup() {
        const style = document.createElement("style")
        style.textContent = STYLE
        document.head.append(style)
        for (const end of ENDS) api.addEventListener(end, () => onPage.forEach((summary) => summary.show()))
    },
    nodeCreated(node) {
        if (node.comfyClass === LOADER) addSummary(node)
    },
})
