"""Packages of the operating system, where this process may install them."""

import os
import shutil
import subprocess
import sys

from .process import Failure, quiet, say


def apt_install(*packages: str) -> bool:
    """Install packages with apt-get; False where there is none, where we are not root, or when it fails."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    say(f"installing {' and '.join(packages)} with apt-get")
    options = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "stdin": subprocess.DEVNULL}
    try:
        quiet(["apt-get", "update"], "apt-get update failed:", **options)
        quiet(["apt-get", "install", "--yes", "--no-install-recommends", *packages], "apt-get failed:", **options)
    except Failure as failure:
        say(str(failure))
        return False
    return True
