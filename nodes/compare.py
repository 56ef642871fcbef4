"""Nodes that compare samplers: a row for each, a column for each seed or guidance scale."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from comfy_api.latest import io, ui

from ..compare import page
from ..samplers.parameters import InputError, counted, quoted
from .host.levels import read_sigmas
from .host.watched import with_scale
from .runs import folders
from .runs.comparison import ALL, Column, Comparison, Entry, rows_of, scale_columns, seed_columns
from .shared.inputs import chosen, growing
from .shared.labelled_grid import labelled_grid
from .shared.messages import Words, named, show_text, tell_page
from .shared.schema import CompareEntryType
from .shared.served import made_known

NAME = "Compare Samplers"
MOST = 20
EVENT = "stepwise.compared"
SUFFIX, STEM = ".html", "compare"
SEEDS, GUIDANCE = "seeds", "guidance"
SEEDS_INPUT = io.String.Input(
    "seeds",
    default="0-3",
    placeholder="that of the noise",
    tooltip="A column for each: numbers and ranges, for example 7, 12, 100-103. SKIP before one keeps its place and "
    "runs nothing. Empty: one column, with the seed of the noise.",
)
SCALES_INPUT = io.String.Input(
    "scales",
    default="1, 3, 7.5",
    tooltip="A column for each guidance scale, for example 1, 3, 7.5. SKIP before one keeps its place and runs "
    "nothing.",
)
COLUMNS = {
    each.key: each
    for each in (io.DynamicCombo.Option(SEEDS, [SEEDS_INPUT]), io.DynamicCombo.Option(GUIDANCE, [SCALES_INPUT]))
}
WORDS: Words = {each.id: (f"columns.{each.id}", None) for each in (SEEDS_INPUT, SCALES_INPUT)}


class StepwiseCompareEntry(io.ComfyNode):
    """A row of a comparison."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseCompareEntry",
            display_name="Compare Entry",
            category="stepwise/inspect",
            description="A row for Compare Samplers: a SAMPLER with its schedule and guider, under one name.",
            search_aliases=["stepwise", "compare", "grid", "xy plot", "row of a comparison"],
            inputs=[
                io.Sampler.Input("sampler", tooltip="Any SAMPLER, of any pack."),
                io.Sigmas.Input("sigmas", tooltip="The schedule that it runs on."),
                io.Guider.Input("guider", tooltip="Model and prompts. One guider may be wired to many entries."),
                io.String.Input(
                    "label",
                    default="",
                    placeholder="its own name",
                    tooltip="What the row is called. Begin it with SKIP, in capitals, to leave the row out and keep "
                    "its place.",
                ),
                io.String.Input(
                    "skip",
                    default="",
                    advanced=True,
                    placeholder="columns to leave out",
                    tooltip="Seeds or guidance scales, as they stand over the columns, that this row leaves out, for "
                    "example 7.5, 15; or all.",
                ),
            ],
            outputs=[CompareEntryType.Output("entry", tooltip="A row, for Compare Samplers.")],
        )

    @classmethod
    def execute(cls, sampler, sigmas, guider, label, skip="") -> io.NodeOutput:
        with named("Compare Entry"):
            if len(levels := read_sigmas(sigmas)) < 2:
                raise InputError(
                    "sigmas", f"has {counted(len(levels), 'value')}, and a step is between two", "add steps"
                )
        return io.NodeOutput(Entry(sampler, sigmas, guider, label, skip))


class StepwiseCompare(io.ComfyNode):
    """Samplers over seeds or guidance scales, as one picture and as a page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        entry = CompareEntryType.Input("entry", tooltip="A row, from Compare Entry.")
        return io.Schema(
            node_id="StepwiseCompare",
            display_name=NAME,
            category="stepwise/inspect",
            description="Runs samplers side by side, over seeds or guidance scales: one labelled picture, and a page "
            "to look closely, with the model calls, evaluations and seconds of each.",
            search_aliases=["stepwise", "compare", "grid", "xy plot", "benchmark", "side by side", "contact sheet"],
            inputs=[
                growing("entries", entry, MOST, "The rows, from Compare Entry."),
                io.Noise.Input("noise", tooltip="Starting noise. With seeds on the columns its own seed is replaced."),
                io.Latent.Input("latent_image", tooltip="What every run begins from."),
                io.Vae.Input("vae", tooltip="Makes the pictures."),
                io.DynamicCombo.Input(
                    "columns",
                    options=list(COLUMNS.values()),
                    tooltip="What differs from column to column.",
                ),
                io.Int.Input(
                    "equal_calls",
                    default=0,
                    min=0,
                    max=10000,
                    tooltip="0: every entry runs on its schedule as it is wired. Above 0: each schedule is resampled "
                    "to as many steps as make at most so many model calls, so that all rows cost about the same.",
                ),
                io.Int.Input(
                    "cell_size",
                    default=512,
                    min=64,
                    max=4096,
                    step=8,
                    advanced=True,
                    tooltip="The longer side of each picture in the image, in pixels, at most. The page has them "
                    "whole.",
                ),
                io.Combo.Input("theme", options=["dark", "light"], advanced=True, tooltip="The ground of the image."),
                io.String.Input(
                    "filename_prefix",
                    default="stepwise/compare",
                    tooltip="Folder and beginning of the page's name in ComfyUI's output folder; a number is added.",
                ),
            ],
            outputs=[io.Image.Output("image", tooltip="All pictures in one, with their labels.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            # An unknown choice arrives too, to be answered in words.
            accept_all_inputs=True,
        )

    @classmethod
    def execute(
        cls,
        noise,
        latent_image,
        vae,
        equal_calls,
        cell_size,
        theme,
        filename_prefix,
        entries=None,
        columns=None,
        **_: Any,
    ) -> io.NodeOutput:
        with named(NAME, WORDS):
            comparison = comparison_of(entries, noise, latent_image, vae, columns, equal_calls)
            folders.check_prefix(filename_prefix)
            try:
                comparison.run(lambda text: show_text(cls, text))
            except BaseException:
                # Cancel is one of these. What was done by then is worth keeping.
                with suppress(Exception):
                    told = saved(comparison, filename_prefix, equal_calls)
                    tell_page(EVENT, {"node": getattr(getattr(cls, "hidden", None), "unique_id", None), **told})
                raise
            told = saved(comparison, filename_prefix, equal_calls)
            image, numbered = labelled_grid(*comparison.axes, comparison.cells, cell_size, theme)
            done = counted(told["cells"], "cell") + (f", {told['failed']} failed" if told["failed"] else "")
            told["labels"] = [*numbered, *comparison.remarks]
            show_text(cls, "\n".join((done, *told["labels"])))
        return io.NodeOutput(image, ui={**ui.PreviewImage(image, cls=cls).as_dict(), "stepwise_page": [told]})


def comparison_of(
    entries: Mapping[str, Any] | None, noise: Any, latent_image: Any, vae: Any, columns: Any, equal_calls: int
) -> Comparison:
    """Raises InputError for what no cell could run with."""
    names = sorted(entries or {}, key=lambda each: int(each.rpartition("_")[2]))
    for name in names:
        if not isinstance(entries[name], Entry):
            raise InputError(f"entries.{name}", "is no row of a comparison", "wire a Compare Entry node into it")
    if not names:
        raise InputError("entries", "has no row wired", "wire a Compare Entry node to it")
    choice, given = chosen("columns", COLUMNS, columns)
    (text,) = [given.get(each.id, each.default) for each in COLUMNS[choice.key].inputs]
    across = scale_columns(text) if choice.key == GUIDANCE else seed_columns(text, noise)
    for name in names if choice.key == GUIDANCE else ():
        try:
            with_scale(entries[name].guider, 1.0)
        except InputError as error:
            raise InputError(f"entries.{name}", f"has a guider that {error.problem}", error.cure) from None
    for name in names:
        check_skipped(name, entries[name], across)
    found = [entries[name] for name in names]
    return Comparison(rows_of(found, across, latent_image, equal_calls), across, noise, latent_image, vae)


def check_skipped(name: str, entry: Entry, columns: Sequence[Column]) -> None:
    """Raises InputError where a row leaves out a column that is not there."""
    for word in entry.left_out:
        if word != ALL and not any(column.is_called(word) for column in columns):
            there = ", ".join(column.label for column in columns[:8])
            problem = f"skips {quoted(word)}, and the columns are {there}{', ...' if len(columns) > 8 else ''}"
            raise InputError(f"entries.{name}", problem, "change skip of that entry, or clear it")


def saved(comparison: Comparison, filename_prefix: str, equal_calls: int) -> dict[str, Any]:
    """Writes the page; what the node's own page is told of it."""
    done, all_cells = len(comparison.cells), len(comparison.rows) * len(comparison.columns)
    text = [f"{counted(done, 'cell')} of {all_cells}: cancelled" if done < all_cells else ""]
    text += [f"at most {counted(equal_calls, 'model call')} for each" if equal_calls else ""]
    rows, columns = comparison.axes
    head = "\n".join(filter(None, (", ".join(filter(None, text)), *comparison.remarks)))
    made = page(f"{rows.name} and {columns.name}", rows, columns, comparison.cells, head)
    data = made.encode()
    file, name = folders.save_new(data, filename_prefix, SUFFIX, STEM)
    name = name.removesuffix(" [output]")
    made_known(name, file, data)
    failed = sum(bool(cell.error) for cell in comparison.cells.values())
    return {"file": name, "done": done, "cells": all_cells, "failed": failed}
