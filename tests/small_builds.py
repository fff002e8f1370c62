"""What the tests of all builders share: crops that tell their number, builds in a cache of a test.

A test file takes the fixtures by `pytest_plugins = ["clear_par.tests.small_builds"]` and names its
builder in a fixture `builder_class`.
"""

import io

import numpy as np
import pytest
from datasets import disable_progress_bars, enable_progress_bars
from PIL import Image

from clear_par.datasets_scripts.verification import VerificationError, VerificationReport

RED_STEP = 6  # grey levels between two numbers: far enough for JPEG, and 40 numbers fit


@pytest.fixture
def no_progress_bars():
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture
def build(tmp_path, builder_class):
    """Build the small data set, in a cache of this test's own."""

    def build(small, **kwargs):
        cache = str(tmp_path / "cache")
        builder = builder_class(data_dir=small.root, cache_dir=cache, **kwargs)
        builder.download_and_prepare()
        return builder

    return build


def deviations(build, small, **kwargs):
    """The report of a data set that is refused, and the text of the error."""
    with pytest.raises(VerificationError) as caught:
        build(small, **kwargs)
    return caught.value.report, str(caught.value)


def deviations_and_nothing_left(build, small, **kwargs):
    """As `deviations`, in a test that has built nothing before: no file stays behind."""
    found = deviations(build, small, **kwargs)
    cache = small.root.parent / "cache"
    left = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []
    return found


def records(builder_class, small, **kwargs):
    """What the files say, without building tables."""
    builder = builder_class(data_dir=small.root, **kwargs)
    report = VerificationReport(builder_class.__name__.lower())
    return builder.read_records(builder.find_source(str(small.root)), report), report


def errors_of(builder_class, small):
    return records(builder_class, small)[1].errors


def encoded(number, kind):
    """A crop whose red tells its number, as the content of a file."""
    pixels = np.random.default_rng(number).integers(0, 40, (40, 20, 3), dtype=np.uint8)
    pixels[..., 0] = RED_STEP * number
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def number_shown(image):
    return round(np.asarray(image.convert("RGB"))[..., 0].mean() / RED_STEP)


def cells(texts):
    """Texts as MATLAB holds them: a column of cells."""
    return np.array(texts, dtype=object).reshape(-1, 1)
