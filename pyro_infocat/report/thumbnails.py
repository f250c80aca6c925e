"""Examples as small PNG pictures, within the page or side by side in one.

Shapes: N examples, X features.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

LARGEST = 48
"""Dots of a thumbnail's longer side; larger images are made smaller."""


def pictures(x: Tensor, shape: Sequence[int]) -> list[Image.Image]:
    """Images (N, X) in [0, 1]: grey ones of (height, width) in ink on white, as in figures/."""
    values: NDArray[np.float64] = x.detach().cpu().double().numpy().clip(0, 1)
    bytes_of = (values * 255).round().astype(np.uint8).reshape(len(values), *shape)
    coloured = len(shape) == 3
    ready = np.moveaxis(bytes_of, 1, -1) if coloured else 255 - bytes_of
    return [_small(Image.fromarray(np.ascontiguousarray(one))) for one in ready]


def _small(image: Image.Image) -> Image.Image:
    longer = max(image.size)
    if longer <= LARGEST:
        return image
    width, height = (max(1, round(side * LARGEST / longer)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def data_uri(image: Image.Image) -> str:
    """A picture as the address of an image in HTML."""
    content = io.BytesIO()
    image.save(content, "png", optimize=True)
    return png_uri(content.getvalue())


def png_uri(content: bytes) -> str:
    """The bytes of a PNG as such an address."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def sprite(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size in a square of rows, as TensorBoard's projector cuts them out again."""
    across = int(np.ceil(np.sqrt(len(images))))
    width, height = images[0].size
    sheet = Image.new(images[0].mode, (across * width, across * height), "white")
    for number, image in enumerate(images):
        sheet.paste(image, (number % across * width, number // across * height))
    return sheet
