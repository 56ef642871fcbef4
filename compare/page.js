// What a reader can do with the table: sizes, order, and two pictures over each other. No HTML is made of text here.
"use strict"

const one = (selector, from = document) => from.querySelector(selector)
const all = (selector, from = document) => [...from.querySelectorAll(selector)]

const figures = all("figure")
const shown = figures.filter((each) => one("img", each))
const places = new Map(figures.map((each) => [each, each.parentNode]))
const [table, list, view, stage] = ["table", "ol", "#view", "#stage"].map((each) => one(each))

// The table: as large as fits, and in which order.
const rows = all("tbody tr").length
const columns = all("thead th").length

function setSize(pixels) {
    document.documentElement.style.setProperty("--tile", `${pixels}px`)
    one("#size").value = pixels
    for (const img of all("figure img")) img.classList.toggle("pixels", pixels >= 2 * img.naturalWidth)
}

function sizeThatFits() {
    const free = document.documentElement.clientWidth - 132 - 40 - 18
    const natural = Math.max(0, ...shown.map((each) => one("img", each).naturalWidth)) || 256
    return Math.round(Math.min(Math.max(free / columns - 12, 96), Math.max(natural, 320), 512))
}

function order(by) {
    const key = by.replace("-", "")
    table.hidden = Boolean(by)
    list.hidden = !by
    if (!by) {
        for (const [figure, place] of places) place.append(figure)
        list.replaceChildren()
        return
    }
    const sign = by.startsWith("-") ? -1 : 1
    const value = (figure) => Number(figure.dataset[key] ?? sign * Infinity) * sign // what is not known comes last
    const sorted = [...figures].sort((a, b) => value(a) - value(b) || 0)
    list.replaceChildren(
        ...sorted.map((figure) => {
            const item = document.createElement("li")
            item.append(figure)
            return item
        }),
    )
}

function switchTheme() {
    const root = document.documentElement
    const light = getComputedStyle(root).colorScheme.includes("light")
    root.dataset.theme = light ? "dark" : "light"
}

// The view: A and B, how they are shown, and which part of them.
const look = { a: 0, b: 0, mode: "one", strength: { wipe: 50, blend: 50, difference: 30 }, scale: 0, x: 0, y: 0 }
const picture = (index) => one("img", shown[index])
const caption = (index) => all("figcaption span", shown[index]).map((each) => each.textContent).join(" · ")
const amplification = () => 2 ** (look.strength.difference / 20) // 1 to 32

function layers(indices) {
    const made = document.createElement("div")
    made.className = "layers"
    made.append(...indices.map((index) => picture(index).cloneNode()))
    return made
}

function pane(indices, marks) {
    const made = document.createElement("div")
    made.className = "pane"
    made.append(layers(indices))
    for (const mark of marks) {
        const said = document.createElement("span")
        said.className = `mark ${mark.toLowerCase()}`
        said.textContent = mark
        made.append(said)
    }
    return made
}

function draw() {
    const { a, b, mode } = look
    const panes = {
        one: () => [pane([a], ["A"])],
        beside: () => [pane([a], ["A"]), pane([b], ["B"])],
        wipe: () => [pane([b, a], ["A", "B"])],
        blend: () => [pane([a, b], ["A", "B"])],
        difference: () => [pane([a, b], [])],
    }
    stage.replaceChildren(...panes[mode]())
    if (mode === "wipe") {
        const edge = document.createElement("div")
        edge.className = "edge"
        one(".layers", stage).append(edge)
    }
    one(".layers", stage).classList.toggle("difference", mode === "difference")
    for (const each of all("[data-mode]", view)) each.setAttribute("aria-pressed", each.dataset.mode === mode)
    one("#amount").hidden = !(mode in look.strength)
    one("#strength").value = look.strength[mode] ?? 50
    one("#first").value = a
    one("#second").value = b
    one("footer .a span").textContent = caption(a)
    one("footer .b span").textContent = caption(b)
    one("footer .b").hidden = mode === "one"
    place()
}

/** Puts the pictures where they are looked at. A scale of 0 shows the whole. */
function place() {
    const { a, mode } = look
    const { naturalWidth: width, naturalHeight: height } = picture(a)
    const [first] = all(".pane", stage)
    const fit = Math.min(first.clientWidth / width, first.clientHeight / height)
    const scale = look.scale || fit
    if (!look.scale) {
        look.x = (first.clientWidth - width * fit) / 2
        look.y = (first.clientHeight - height * fit) / 2
    }
    for (const each of all(".layers", stage)) {
        each.style.width = `${width * scale}px`
        each.style.height = `${height * scale}px`
        each.style.transform = `translate(${look.x}px, ${look.y}px)`
        for (const img of all("img", each)) img.classList.toggle("pixels", scale >= 2)
    }
    const [under, over] = all("img", stage)
    if (mode === "wipe") {
        over.style.clipPath = `inset(0 ${100 - look.strength.wipe}% 0 0)`
        one(".edge", stage).style.left = `${look.strength.wipe}%`
    }
    if (mode === "blend") over.style.opacity = look.strength.blend / 100
    if (mode === "difference") one(".layers", stage).style.filter = `brightness(${amplification()})`
    one("#scale").textContent = `${Math.round(scale * 100)}%`
    const percent = `${look.strength[mode]}%`
    one("#said").textContent = mode === "difference" ? `× ${amplification().toFixed(1)} · ${distance()}` : percent
}

const measured = new Map()

/** How far B is from A, of the 255 steps of a colour. */
function distance() {
    const key = `${look.a} ${look.b}`
    if (!measured.has(key)) measured.set(key, measure(picture(look.a), picture(look.b)))
    return measured.get(key)
}

function measure(a, b) {
    if (a.naturalWidth !== b.naturalWidth || a.naturalHeight !== b.naturalHeight) return "of two sizes: B is stretched"
    const [left, right] = [a, b].map((each) => {
        const canvas = document.createElement("canvas")
        canvas.width = each.naturalWidth
        canvas.height = each.naturalHeight
        const context = canvas.getContext("2d", { willReadFrequently: true })
        context.drawImage(each, 0, 0)
        return context.getImageData(0, 0, canvas.width, canvas.height).data
    })
    let sum = 0
    let most = 0
    for (let i = 0; i < left.length; i += 1) {
        const apart = Math.abs(left[i] - right[i]) // of opacity too, where both have 255
        sum += apart
        most = Math.max(most, apart)
    }
    return most === 0 ? "equal" : `mean ${((sum / left.length) * (4 / 3)).toFixed(2)}, largest ${most} of 255`
}

/** Zooms about a point of the stage, which stays where it is. */
function zoom(factor, x = null, y = null) {
    const first = one(".pane", stage)
    const now = one(".layers", stage).getBoundingClientRect().width / picture(look.a).naturalWidth
    const next = Math.min(Math.max(now * factor, 0.05), 64)
    const [cx, cy] = [x ?? first.clientWidth / 2, y ?? first.clientHeight / 2]
    look.x = cx - ((cx - look.x) * next) / now
    look.y = cy - ((cy - look.y) * next) / now
    look.scale = next
    place()
}

function open(a, b, mode) {
    Object.assign(look, { a, b, mode, scale: 0 })
    if (!view.open) view.showModal()
    draw()
}

/** The next picture from B on, in a direction of the table. */
function neighbour(down, right) {
    const at = shown[look.mode === "one" ? look.a : look.b].dataset
    let [row, column] = [Number(at.row) + down, Number(at.column) + right]
    for (; row >= 0 && row < rows && column >= 0 && column < columns; row += down, column += right) {
        const found = shown.findIndex((each) => Number(each.dataset.row) === row && Number(each.dataset.column) === column)
        if (found >= 0) return found
    }
    return null
}

const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }

function onKey(event) {
    if (event.target.matches("select, input")) return
    const found = event.key in ARROWS ? neighbour(...ARROWS[event.key]) : null
    if (event.key === " ") Object.assign(look, { a: look.b, b: look.a })
    else if (event.key === "+" || event.key === "-") return zoom(event.key === "+" ? 1.25 : 0.8)
    else if (event.key === "0") look.scale = 0
    else if (found !== null) look[look.mode === "one" ? "a" : "b"] = found
    else return
    event.preventDefault()
    draw()
}

// Two that are picked in the table open over each other.
let picked = null

function pick(figure) {
    const before = picked
    picked = before === null ? figure : null
    figure.classList.toggle("chosen", before === null)
    before?.classList.remove("chosen")
    if (before !== null && before !== figure) open(shown.indexOf(before), shown.indexOf(figure), "wipe")
}

function begin() {
    one("#controls").hidden = false
    one("#size").addEventListener("input", (event) => setSize(Number(event.target.value)))
    one("#order").addEventListener("change", (event) => order(event.target.value))
    one("#theme").addEventListener("click", switchTheme)
    for (const form of all("form")) form.addEventListener("submit", (event) => event.preventDefault())
    for (const [index, figure] of shown.entries()) {
        const button = document.createElement("button")
        Object.assign(button, { type: "button", className: "pick", textContent: "compare" })
        button.title = "pick two to lay them over each other"
        button.addEventListener("click", () => pick(figure))
        figure.append(button)
        one(".open", figure).addEventListener("click", () => open(index, (index + 1) % shown.length, "one"))
        for (const select of [one("#first"), one("#second")]) select.add(new Option(picture(index).alt, index))
    }
    for (const each of all("[data-mode]")) {
        each.addEventListener("click", () => draw(Object.assign(look, { mode: each.dataset.mode, scale: 0 })))
    }
    one("#first").addEventListener("change", (event) => draw((look.a = Number(event.target.value))))
    one("#second").addEventListener("change", (event) => draw((look.b = Number(event.target.value))))
    one("#strength").addEventListener("input", (event) => {
        look.strength[look.mode] = Number(event.target.value)
        place()
    })
    one("#in").addEventListener("click", () => zoom(1.25))
    one("#out").addEventListener("click", () => zoom(0.8))
    one("#fit").addEventListener("click", () => place((look.scale = 0)))
    one("#close").addEventListener("click", () => view.close())
    view.addEventListener("keydown", onKey)
    stage.addEventListener("wheel", onWheel, { passive: false })
    stage.addEventListener("pointerdown", onGrab)
    addEventListener("resize", () => view.open && place())
    setSize(sizeThatFits())
}

function paneAt(event) {
    const found = event.target.closest(".pane") ?? one(".pane", stage)
    const box = found.getBoundingClientRect()
    return [event.clientX - box.left, event.clientY - box.top]
}

function onWheel(event) {
    event.preventDefault()
    zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, ...paneAt(event))
}

function onGrab(event) {
    const from = { x: event.clientX - look.x, y: event.clientY - look.y }
    stage.setPointerCapture(event.pointerId)
    stage.classList.add("moving")
    const scale = one(".layers", stage).getBoundingClientRect().width / picture(look.a).naturalWidth
    const move = (moved) => {
        Object.assign(look, { scale, x: moved.clientX - from.x, y: moved.clientY - from.y })
        place()
    }
    const end = () => {
        stage.classList.remove("moving")
        stage.removeEventListener("pointermove", move)
    }
    stage.addEventListener("pointermove", move)
    stage.addEventListener("pointerup", end, { once: true })
    stage.addEventListener("pointercancel", end, { once: true })
}

// Sizes are those of the pictures, which are there at once but decoded a little later.
Promise.allSettled(shown.map((each) => one("img", each).decode())).then(begin)
