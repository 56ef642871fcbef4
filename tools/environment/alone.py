"""A process without ComfyUI, as a plugin of pytest (`-p stepwise.tools.environment.alone`): importing it raises."""

import sys

from .inprocess import COMFYUI_MODULES

sys.modules.update(dict.fromkeys(COMFYUI_MODULES))
