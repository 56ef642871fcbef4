"""The committed example workflows are what their descriptions and the nodes' schemas give."""

import subprocess
import sys

TOOL = "stepwise.tools.generate.workflows"


def test_example_workflows_are_as_generated():
    done = subprocess.run([sys.executable, "-m", TOOL, "--check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
