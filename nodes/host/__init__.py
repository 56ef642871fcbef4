"""The adapter to ComfyUI: its models, samplers and guiders, and ours in their terms."""
