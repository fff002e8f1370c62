"""Where the numbers of a report come from: all that is needed to repeat them."""

import platform
import shlex
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import datasets
import peft
import timm
import torch
import transformers

from ..training.run_folder import public_settings
from ..training.settings import DataSettings, public_name

NAMED = ("checkpoint", "adapter", "dataset", "config_name", "dataset_options", "split")
ALWAYS_SAID = ("checkpoint", "dataset", "split")  # in the command, also where it is the default


def provenance(settings: DataSettings, num_images: int, num_processes: int = 1) -> dict:
    """What was evaluated, by which command and code, where and when.

    Args:
        settings: of the command, with the fields in `NAMED`. num_images: in the split.
    """
    public = public_settings(settings, num_processes)
    libraries = (torch, transformers, datasets, timm, peft)
    return {
        **{name: public[name] for name in NAMED},
        "num_images": num_images,
        "command": command_of(settings),
        "commit": public["commit"],
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": {
            "python": platform.python_version(),
            **{library.__name__: library.__version__ for library in libraries},
        },
    }


def command_of(settings: DataSettings) -> str:
    """The command line that repeats a report; the folder of the data is named, not shown."""
    words = ["python", "evaluate_clear.py"]
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value != field.default or field.name in ALWAYS_SAID:
            is_data = field.name == "data_dir"
            value = f"{settings.dataset.upper()}_FOLDER" if is_data else public_name(value)
            words += [f"--{field.name}", str(value)]
    return shlex.join(words)


def hardware() -> str:
    """Processor, threads and accelerator of this process."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{processor_name()}, {torch.get_num_threads()} threads, {accelerator}"


def processor_name() -> str:
    """The processor's model where the system tells it, else its architecture."""
    table = Path("/proc/cpuinfo")  # Linux; elsewhere platform.processor() is the name
    lines = table.read_text().splitlines() if table.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return next((n for n in (*names, platform.processor(), platform.machine()) if n), "unknown")
