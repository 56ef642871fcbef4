"""The table of cuts is what is measured."""

import importlib
import re

import pytest

markdown = importlib.import_module("stepwise.tools.generate.markdown")
resume = importlib.import_module("stepwise.benchmarks.resume")

HALF = resume.STEPS // 2


@pytest.fixture(scope="module")
def found():
    return list(resume.measured([HALF]))


def committed():
    """The cells of each row, by its label."""
    text = markdown.marked("resume").search(resume.CLAIMS.read_text(encoding="utf-8"))[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert tuple(rows[0]) == resume.HEAD
    return {label: cells for label, *cells in rows[2:]}


def test_the_table_has_what_is_measured_to_a_tenth(found):
    rows = committed()
    assert list(rows) == [lines.method.label for lines in found]
    for lines in found:
        half, worst, ours = rows[lines.method.label]
        assert ours == resume.percent(lines.ours[HALF]) == "0, bit for bit"
        if number := re.fullmatch(r"([\d.]+) %", half):
            assert lines.core[HALF] == pytest.approx(float(number[1]) / 100.0, rel=0.1)
            assert float(worst.removesuffix(" %")) >= float(number[1])
        else:
            assert half == resume.percent(lines.core[HALF]) == "below 0.01 %"
