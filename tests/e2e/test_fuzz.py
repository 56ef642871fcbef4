"""Malformed prompts against the real server: a tenth of what benchmarks/fuzz_prompts.py makes."""

from stepwise.benchmarks.fuzz_prompts import files_under, fuzz
from stepwise.tests.e2e.conftest import COMFYUI
from stepwise.tools.environment.folders import ROOT

WATCHED = (COMFYUI / "output", COMFYUI / "input", COMFYUI / "custom_nodes", ROOT / "example_workflows", ROOT / "demo")


def test_every_malformed_prompt_is_answered_with_node_and_input(server, note):
    before = [files_under(folder) for folder in WATCHED]
    found = fuzz(server, count=50, seed=1)
    unclear = [f"{case.about}: {answer.text}" for case, answer in found if not answer.clear]
    assert not unclear, "\n".join(unclear)
    assert [files_under(folder) for folder in WATCHED] == before
    outcomes = [answer.outcome for _, answer in found]
    assert len(found) == 50
    assert outcomes.count("ran") < 25, "most of the faults must be faults"
    counts = ", ".join(f"{outcomes.count(each)} {each}" for each in sorted(set(outcomes)))
    note(f"{len(found)} malformed prompts: {counts}")
