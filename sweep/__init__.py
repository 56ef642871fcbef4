"""Sweeps: one workflow over many values, on any number of ComfyUI servers."""
