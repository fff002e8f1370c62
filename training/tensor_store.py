"""Tensors kept on disk between runs, each under the whole key of what it was computed from."""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


class TensorStore:
    """A folder of safetensors files, one for each key; a file of another key is never read.

    Args:
        folder: made when the first tensor is kept.
        kind: first part of the file names.
    """

    def __init__(self, folder: Path, kind: str):
        self.folder, self.kind = folder, kind

    def path(self, key: dict) -> Path:
        """Where the tensor of a key is kept."""
        digest = hashlib.sha256(canonical(key).encode()).hexdigest()
        return self.folder / f"{self.kind}-{digest[:32]}.safetensors"

    def load(self, key: dict) -> tuple[torch.Tensor, dict] | None:
        """The tensor of a key and what was noted with it; None: there is none, or a damaged one."""
        path = self.path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                notes = file.metadata()
                if notes["key"] != canonical(key):
                    return None
                return file.get_tensor("tensor"), json.loads(notes["notes"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return None

    def save(self, key: dict, tensor: torch.Tensor, notes: dict | None = None) -> None:
        """Keep a tensor: whole, under its final name, or not at all."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        metadata = {"key": canonical(key), "notes": json.dumps(notes or {})}
        try:
            save_file({"tensor": tensor.contiguous()}, partial, metadata)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def canonical(key: dict) -> str:
    """The one text of a key."""
    return json.dumps(key, sort_keys=True)
