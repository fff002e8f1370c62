"""What every test shares: an offline Hub, module files of its own, the optional shared folder."""

import os
import tempfile
from pathlib import Path

import pytest

# Set before any test imports a Hugging Face library: they read both once, at import.
os.environ["HF_HUB_OFFLINE"] = "1"
# Remote code is cached by content; a cache of one run cannot hand back another run's files.
_modules_cache = tempfile.TemporaryDirectory(prefix="clear_par_modules_")
os.environ["HF_MODULES_CACHE"] = _modules_cache.name

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Real annotations and reference values, which the repository may not carry."""
    folder = Path(os.environ.get("CLEAR_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data folder, not found at {folder}; set CLEAR_SHARED")
    return folder
