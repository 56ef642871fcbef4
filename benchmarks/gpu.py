"""What only a GPU can say: the results of every check and time of docs/gpu.md.

    python benchmarks/gpu.py --seconds 500 --commit REV --out FOLDER     measures, and writes FOLDER/gpu.json
    python benchmarks/gpu.py --join OLD.json NEW.json                    writes docs/gpu.json from such results
    python benchmarks/gpu.py --page                                      writes docs/gpu.md from docs/gpu.json
    python benchmarks/gpu.py --small                                     all of it in little, on any computer

Run it with the Python of a ComfyUI that has the GPU; COMFYUI_PATH names its folder. Results come in their order of
importance and are written as they come, so a run that is cut short has lost only the rest. No weights are needed: the
networks have the architectures of SD1.5, SDXL and Flux and random numbers.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if importlib.util.find_spec("stepwise") is None:
    # Outside of the environment of dev.py.
    links = Path(tempfile.mkdtemp(prefix="stepwise-gpu-"))
    (links / "stepwise").symlink_to(ROOT)
    sys.path.insert(0, str(links))

BEGAN = time.time()


def machine(commit: str) -> dict[str, Any]:
    import torch
    from comfyui_version import __version__ as comfyui

    cuda = torch.cuda.is_available()
    backends = torch.backends
    return {
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "capability": list(torch.cuda.get_device_capability()) if cuda else [],
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "cuDNN": backends.cudnn.version() if cuda else None,
        "python": sys.version.split()[0],
        "ComfyUI": comfyui,
        "commit": commit,
        "threads": torch.get_num_threads(),
        "cudnn.benchmark": backends.cudnn.benchmark,
        "cudnn.deterministic": backends.cudnn.deterministic,
        "cudnn.allow_tf32": backends.cudnn.allow_tf32,
        "matmul.allow_tf32": backends.cuda.matmul.allow_tf32,
    }


def measure(known: argparse.Namespace) -> None:
    import torch
    from stepwise.benchmarks import _gpu_first_call, _gpu_times
    from stepwise.benchmarks._gpu_checks import correctness
    from stepwise.benchmarks._gpu_networks import flux, sd15, sdxl
    from stepwise.benchmarks._gpu_runs import Results
    from stepwise.benchmarks._gpu_waits import counted

    known.out.mkdir(parents=True, exist_ok=True)
    results = Results(known.out / "gpu.json", known.seconds, BEGAN)
    results.put("machine", "what", machine(known.commit))
    results.put("machine", "seconds to import all", round(time.time() - BEGAN, 1))
    kept: dict[str, Any] = {}
    parts: list[tuple[str, float, Any]] = []

    def part(name: str, seconds: float, work: Any) -> None:
        if not known.only or any(each in name for each in known.only):
            parts.append((name, seconds, work))

    def subject(name: str, make: Any) -> Any:
        if name not in kept:
            kept[name] = make(known.small)
        return kept[name]

    def sd15_calls(end: float) -> None:
        results.put("first call", "in the first process", _gpu_first_call.calls(subject("SD1.5", sd15)))

    def first_call(end: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            given = (results, end, Path(folder), subject("SD1.5", sd15), known.small)
            _gpu_first_call.first_call(*given)

    def free(name: str) -> Any:
        return lambda end: _gpu_times.free(results, name, repetitions, end, known.small)

    def whole(name: str, make: Any) -> Any:
        return lambda end: _gpu_times.whole(results, name, subject(name, make), repetitions, end, known.small)

    repetitions = 2 if known.small else known.repetitions
    # The seconds are what an H200 takes; whatever there is is shared out like them.
    part("correctness", 30.0, lambda end: correctness(results, end))
    part("waits", 14.0, lambda end: counted(results, end))
    part("calls of SD1.5", 6.0, sd15_calls)
    part("free SD1.5", 10.0, free("SD1.5"))
    part("first call", 45.0, first_call)
    part("whole SDXL", 80.0, whole("SDXL", sdxl))
    part("free Wan 720p", 75.0, free("Wan 720p"))
    part("whole Flux", 80.0, whole("Flux", flux))
    part("whole SD1.5", 40.0, whole("SD1.5", sd15))
    part("free SDXL", 15.0, free("SDXL"))
    part("free Flux 2048", 25.0, free("Flux 2048"))
    share = results.left / sum(seconds for _, seconds, _ in parts)
    with torch.inference_mode():
        for name, seconds, work in parts:
            results.part(name, seconds * share, work)
    results.put("machine", "seconds in all", round(time.time() - BEGAN, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=500.0, help="how long it may take in all")
    parser.add_argument("--commit", default="", help="the revision that is measured, for the page")
    parser.add_argument("--out", type=Path, default=ROOT / ".dev" / "gpu", help="where gpu.json goes")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--only", nargs="*", help="the parts whose names have one of these words")
    parser.add_argument("--small", action="store_true", help="little networks and few repetitions, on the CPU too")
    parser.add_argument("--page", action="store_true", help="write docs/gpu.md from docs/gpu.json")
    parser.add_argument("--join", nargs="+", type=Path, help="write docs/gpu.json from these results, oldest first")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    known = parser.parse_args()
    if known.page or known.join:
        from stepwise.benchmarks import _gpu_page
        from stepwise.tools.generate import generated

        if known.join:
            generated.write({_gpu_page.DATA: _gpu_page.joined(known.join)})
        if known.page:
            generated.write(_gpu_page.files())
        return
    import torch

    cuda = torch.cuda.is_available() and not os.environ.get("FORCE_CPU")
    if not cuda and not known.small:
        print("There is no GPU: nothing is measured. --small runs all of it in little.")
        return
    import logging
    import warnings

    from stepwise.tools.environment.inprocess import load_comfyui

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    folder = load_comfyui("--gpu-only", cpu=False) if cuda else load_comfyui()
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    if known.role:
        from stepwise.benchmarks._gpu_first_call import in_a_new_process

        with torch.inference_mode():
            in_a_new_process(known.role, known.folder, known.small)
    else:
        measure(known)
    folder.cleanup()


if __name__ == "__main__":
    main()
