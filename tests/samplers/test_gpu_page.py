"""docs/gpu.md is what docs/gpu.json gives, and that is the newest of each part that was measured."""

import json

from stepwise.benchmarks import _gpu_page
from stepwise.tools.generate.generated import faults


def test_the_page_is_what_the_figures_give():
    assert faults(_gpu_page.files()) == [], "run: python benchmarks/gpu.py --page"


def test_a_part_is_of_the_newest_run_that_has_figures_of_it(tmp_path):
    """A part that was cut short before its first figure does not hide an older one; of times older ones are kept."""

    def run(name, **parts):
        file = tmp_path / name
        file.write_text(json.dumps({"machine": {"what": {"commit": name}}, **parts}))
        return file

    figure = {"ours": {"median": 2.0, "quartiles": [1.0, 3.0], "repetitions": 2, "all": [1.0, 3.0]}}
    old = {"waits": figure, "free, SD1.5": figure, "free, SDXL": figure}
    new = {"waits": figure, "free, SD1.5": figure, "free, SDXL": {"steps timed in a run": 6}}
    made = json.loads(_gpu_page.joined([run("first", **old), run("second", **new)]))
    commits = {name: part["machine"]["commit"] for name, part in made.items()}
    assert commits == {"waits": "second", "free, SD1.5": "second", "free, SDXL": "first"}
    assert made["free, SD1.5"]["earlier"]["machine"]["commit"] == "first"
    assert "earlier" not in made["waits"]
    assert made["free, SDXL"]["figures"]["ours"] == {"median": 2.0, "quartiles": [1.0, 3.0], "repetitions": 2}
