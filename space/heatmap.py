"""What an attribute looked at: integrated gradients of its logit on the pixels of the crop.

Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks" (ICML 2017), Section 3. The
baseline is the crop's own mean colour, so the map says what is lost when a place is blanked out.
Compared with plain gradients, the places that it marks lower the logit more when they are blanked.
"""

import io

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

STEPS = 8
CELL_SHARE = 8  # a cell is the width of the crop divided by this: finer detail is noise
HOT = np.array([[255, 214, 10], [255, 140, 0], [214, 40, 57]], dtype=float)  # weak to strong


def attribute_map(model, pixel_values: torch.Tensor, attribute: int) -> torch.Tensor:
    """How much each place of a crop speaks for an attribute.

    Args:
        model: ClearModel whose parameters need no gradients.
        pixel_values: (1, 3, height, width). attribute: its place in the logits.
    Returns: (height, width); negative where a place speaks against it. The sum is about the logit
        of the crop less that of a crop of one colour.
    """
    baseline = pixel_values.mean((2, 3), keepdim=True)
    difference = pixel_values - baseline
    shares = ((torch.arange(STEPS) + 0.5) / STEPS).view(-1, 1, 1, 1)
    path = (baseline + shares * difference).requires_grad_()  # (steps, 3, height, width)
    with torch.enable_grad():
        logits = model(pixel_values=path).logits[:, attribute]
        (gradients,) = torch.autograd.grad(logits.sum(), path)
    return (difference[0] * gradients.mean(0)).sum(0)


def cells(values: torch.Tensor) -> torch.Tensor:
    """Sums over square cells: (height, width) -> (rows, columns)."""
    side = max(values.shape[1] // CELL_SHARE, 1)
    return functional.avg_pool2d(values[None, None], side, ceil_mode=True)[0, 0] * side**2


def blend(crop: Image.Image, values: torch.Tensor) -> bytes:
    """The crop, greyed, with a warm glow where the map is positive, as JPEG."""
    heat = cells(values).clamp(min=0)
    heat = (heat / heat.max().clamp(min=1e-9)).numpy()
    smooth = Image.fromarray((heat * 255).astype(np.uint8)).resize(crop.size, Image.BICUBIC)
    strength = np.asarray(smooth, dtype=float)[..., None] / 255
    stops = np.linspace(0, 1, len(HOT))
    colour = np.concatenate([np.interp(strength, stops, HOT[:, i]) for i in range(3)], axis=2)
    grey = np.asarray(crop.convert("L").convert("RGB"), dtype=float)
    alpha = 0.8 * np.clip(strength * 1.4, 0, 1)
    mixed = (1 - alpha) * (0.85 * grey + 20) + alpha * colour
    stream = io.BytesIO()
    Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()
