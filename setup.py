"""Finds the packages of the library; pyproject.toml says everything else."""

from setuptools import find_packages, setup

FOUND = find_packages(include=["samplers", "samplers.*", "convert", "compare"])
setup(packages=[f"stepwise.{name}" for name in FOUND])
