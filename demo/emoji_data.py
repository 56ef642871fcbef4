"""Prepare the pictures and the words of the Emoji model: 1,600 emoji, 64 x 64 on white.

    apt-get install fonts-noto-color-emoji unicode-data unicode-cldr-core
    .dev/env/bin/python demo/emoji_data.py [--state .dev/emoji]

Pictures: Noto Color Emoji (SIL Open Font License 1.1). Names and groups: Unicode's emoji-test.txt; keywords: CLDR's
English annotations (both under the Unicode licence). Nothing of them is kept in the repository. Skin tones, flags and
components are left out.
"""

import argparse
import importlib
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, features
from safetensors.torch import save_file
from stepwise.tools.environment.inprocess import load_comfyui

FOLDERS = load_comfyui()
words = importlib.import_module("stepwise.nodes.host.emoji_words").words

PACK = Path(__file__).resolve().parent.parent
STATE = PACK / ".dev" / "emoji"
DATA_FILE = "emoji_data.safetensors"
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
NAMES = Path("/usr/share/unicode/emoji/emoji-test.txt")
KEYWORDS = [
    Path("/usr/share/unicode/cldr/common") / folder / "en.xml" for folder in ("annotations", "annotationsDerived")
]
SIZE = 64
# The one size of the font's bitmaps: 136 x 128 pixels, the drawing in the middle 128.
FONT_SIZE, BITMAP = 109, 128
SKIN_TONES = range(0x1F3FB, 0x1F400)
# How often a picture is drawn in training: its group, and variants, dials and signs that are letters less often.
GROUPS = {
    "Smileys & Emotion": 1.0,
    "Animals & Nature": 1.0,
    "Food & Drink": 1.0,
    "Travel & Places": 0.6,
    "Activities": 0.6,
    "Objects": 0.5,
    "People & Body": 0.25,
    "Symbols": 0.25,
}
RARE = [
    (re.compile(r"^(man|woman|men|women|family|couple with heart|kiss)\b"), 0.08),
    (re.compile(r"o\u2019clock|-thirty$"), 0.1),
    (re.compile(r"button$|^keycap"), 0.08),
]


def entries() -> list[dict]:
    """`{"emoji", "name", "group", "subgroup"}` of every fully qualified emoji that stays."""
    found, group, subgroup = [], "", ""
    for line in NAMES.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.partition(":")[2].strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.partition(":")[2].strip()
        match = re.match(r"([0-9A-F ]+);\s*fully-qualified\s*#\s*\S+\s+E[\d.]+\s+(.*)", line)
        if match is None or group in ("Flags", "Component"):
            continue
        codes = [int(code, 16) for code in match[1].split()]
        if not any(code in SKIN_TONES for code in codes):
            emoji = "".join(map(chr, codes))
            found.append({"emoji": emoji, "name": match[2], "group": group, "subgroup": subgroup})
    return found


def keywords() -> dict[str, list[str]]:
    """CLDR's English keywords by emoji, without variation selectors."""
    table = {}
    for path in KEYWORDS:
        for node in ElementTree.parse(path).iter("annotation"):
            if node.get("type") is None:
                table[node.get("cp").replace("\ufe0f", "")] = [part.strip() for part in node.text.split("|")]
    return table


def draw(font: ImageFont.FreeTypeFont, emoji: str) -> np.ndarray | None:
    """The emoji on white, `[64, 64, 3]` uint8, or None where the font has no single glyph for it."""
    left, top, right, bottom = font.getbbox(emoji)
    if right - left > 140 or right - left < 8:
        return None
    canvas = Image.new("RGBA", (right - left, bottom - top), (255, 255, 255, 0))
    ImageDraw.Draw(canvas).text((-left, -top), emoji, font=font, embedded_color=True)
    white = Image.new("RGBA", (BITMAP, BITMAP), (255, 255, 255, 255))
    layer = Image.new("RGBA", (BITMAP, BITMAP), (255, 255, 255, 0))
    layer.paste(canvas, ((BITMAP - canvas.width) // 2, (BITMAP - canvas.height) // 2))
    flat = Image.alpha_composite(white, layer).convert("RGB")
    pixels = np.asarray(flat, dtype=np.float32).reshape(SIZE, BITMAP // SIZE, SIZE, BITMAP // SIZE, 3).mean((1, 3))
    return None if pixels.min() > 250 else np.round(pixels).astype(np.uint8)


def prepare() -> tuple[torch.Tensor, list[dict]]:
    """Pictures `[N, 64, 64, 3]` uint8 and what is known of each."""
    if not features.check("raqm"):
        raise RuntimeError("Pillow without raqm draws joined emoji as several: install a Pillow that has it.")
    font, table = ImageFont.truetype(str(FONT), FONT_SIZE), keywords()
    pictures, kept, seen = [], [], set()
    for entry in entries():
        picture = draw(font, entry["emoji"])
        if picture is None or picture.tobytes() in seen:
            continue
        seen.add(picture.tobytes())
        spoken = words(entry["name"])
        extra = [words(text) for text in table.get(entry["emoji"].replace("\ufe0f", ""), [])]
        entry["words"] = spoken
        entry["keywords"] = [text for text in extra if text and text != spoken]
        rare = [weight for pattern, weight in RARE if pattern.search(entry["name"])]
        entry["weight"] = min(rare, default=GROUPS[entry["group"]])
        pictures.append(picture)
        kept.append(entry)
    return torch.from_numpy(np.stack(pictures)), kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, default=STATE, help="an ignored folder for data and checkpoints")
    arguments = parser.parse_args()
    pictures, kept = prepare()
    arguments.state.mkdir(parents=True, exist_ok=True)
    save_file({"pictures": pictures}, arguments.state / DATA_FILE, {"entries": json.dumps(kept)})
    vocabulary = {word for e in kept for word in e["words"] + [w for text in e["keywords"] for w in text]}
    print(f"{len(kept)} pictures, {len(vocabulary)} words, longest name {max(len(e['words']) for e in kept)} words")


if __name__ == "__main__":
    main()
