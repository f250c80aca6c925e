"""Views: other looks at an example that keep its category.

The term ``consistency`` asks q(c | x) to be the same for x and a view of it.

Shapes: B batch, K categories, X features.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, kl_div

from models.arguments import not_negative, picture, positive, share, whole
from models.recorded import Recorded

Classifier = Callable[[Tensor], dist.Categorical]
"""q(c | x) for x (B, X)."""


class View(Recorded, ABC):
    """A random change of grey levels (B, X) in [0, 1] that keeps each example's category.

    :cvar schedulable: names of float attributes that ``schedules`` may set between epochs.
    :cvar asks: whether the classifier has a say in it, and ``moved`` leaves that out.
    """

    schedulable: tuple[str, ...] = ()
    asks: bool = False

    @abstractmethod
    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        """The view (B, X), without a gradient."""

    def moved(self, grey: Tensor) -> Tensor:
        """The view without what the classifier has a say in (B, X); only of one that asks it."""
        raise NotImplementedError(f"{type(self).__name__} asks, and has no moved")


class Affine(View):
    """Small turns, stretches, shears and shifts of an image, and another tone.

    Each entry of the 2 x 2 matrix gets normal noise of ``stretch``, and each shift normal noise
    of ``shift`` half image widths. Grey levels are raised to a power whose logarithm is normal
    noise of ``tone``: the image gets darker or brighter, and black and white stay.

    In colour all channels are moved alike, and each gets the same power.

    :ivar moves: a factor on ``stretch``, ``shift`` and ``tone``, which ``schedules`` may set.
    :param shape: (height, width), or (3, height, width) of images in colour.
    :param stretch: standard deviation of the matrix's entries about the identity.
    :param shift: standard deviation of the shifts, 1 being half the image.
    :param tone: standard deviation of the logarithm of the power.
    :raises ValueError: for a negative or infinite number.
    """

    schedulable = ("moves",)

    def __init__(
        self,
        shape: Sequence[int],
        stretch: float = 0.1,
        shift: float = 0.1,
        tone: float = 0.0,
    ) -> None:
        for name, value in (("stretch", stretch), ("shift", shift), ("tone", tone)):
            not_negative(name, value)
        self.image = picture(shape)
        self.shape, self.stretch, self.shift, self.tone = tuple(shape), stretch, shift, tone
        self.moves = 1.0

    @property
    def moves(self) -> float:
        """A factor on every change.

        :raises ValueError: where it is set to a negative or infinite number.
        """
        return self._moves

    @moves.setter
    def moves(self, moves: float) -> None:
        not_negative("moves", moves)
        self._moves = moves

    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        return self.moved(grey)

    def moved(self, grey: Tensor) -> Tensor:
        """The images (B, X), moved and toned."""
        if self.moves == 0:
            return grey
        maps = self._maps(grey)
        return self._seen(self._toned(grey), maps, "zeros").clamp(0, 1).flatten(1)

    def _maps(self, grey: Tensor) -> Tensor:
        """A small affine map (B, 2, 3) for each image, from places in the view to places in it."""
        maps = torch.randn(len(grey), 2, 3, dtype=grey.dtype, device=grey.device)
        maps[..., :2] *= self.moves * self.stretch
        maps[..., 2] *= self.moves * self.shift
        return maps + torch.eye(2, 3, dtype=grey.dtype, device=grey.device)

    def _toned(self, grey: Tensor) -> Tensor:
        """The images (B, X), each of another tone."""
        if not self.tone:
            # So that its draws do not change those of the moves.
            return grey
        noise = torch.randn(len(grey), 1, dtype=grey.dtype, device=grey.device)
        return grey.pow((self.moves * self.tone * noise).exp())

    def _seen(self, grey: Tensor, maps: Tensor, beyond: str) -> Tensor:
        """The images (B, X) through the maps (B, 2, 3): (B, C, height, width).

        :param beyond: what lies beyond an image's edge.
        """
        images = grey.reshape(-1, *self.image)
        grid = affine_grid(maps, list(images.shape), align_corners=False)
        return grid_sample(images, grid, padding_mode=beyond, align_corners=False)


class Augmented(Affine):
    """Another shot of the same photograph: moved as by :class:`Affine`, cropped, turned, relit.

    A part of the image is cut out and enlarged to its size, and its left and right may change
    places. Beyond the edge the image is mirrored. Then brightness and contrast change, and in
    images in colour saturation and hue.

    :ivar moves: a factor on every change, which ``schedules`` may set; none makes more than all of
        an image, and the chance of a change of sides is at most one.
    :param shape: see :class:`Affine`, as for ``stretch``, ``shift`` and ``tone``.
    :param crop: least share of the area that is cut out; the share is uniform up to 1.
    :param flip: chance that left and right change places.
    :param brightness: the levels get a factor, uniform within this of 1.
    :param contrast: likewise their distances from the image's mean luminance.
    :param saturation: likewise their distances from grey of the same luminance.
    :param hue: largest turn of the colours about grey, a whole turn being 1.
    :raises ValueError: for a negative or infinite number, or a share that is none.
    """

    def __init__(
        self,
        shape: Sequence[int],
        stretch: float = 0.1,
        shift: float = 0.0,
        tone: float = 0.0,
        crop: float = 0.5,
        flip: float = 0.5,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.05,
    ) -> None:
        super().__init__(shape, stretch, shift, tone)
        share("flip", flip)
        positive("crop", crop)
        share("crop", crop)
        strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, value in (*strengths.items(), ("hue", hue)):
            not_negative(name, value)
        self.crop, self.flip = crop, flip
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.hue = saturation, hue

    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        if self.moves == 0:
            return grey
        maps, frames = self._maps(grey), self._frames(grey)
        maps = maps[..., :2] @ frames + torch.nn.functional.pad(maps[..., 2:], (2, 0))
        seen = self._seen(self._toned(grey), maps, "reflection")
        return self._relit(seen).clamp(0, 1).flatten(1)

    def _frames(self, grey: Tensor) -> Tensor:
        """What is cut out and whether it is turned, as maps (B, 2, 3)."""
        number, (size, across, down, side) = len(grey), _uniform(grey, 4)
        # However large the moves are, something is left.
        least = max(self.crop / 8, 1 - self.moves * (1 - self.crop))
        length = (least + (1 - least) * (size + 1) / 2).sqrt()
        turned = 1 - 2 * ((side + 1) / 2 < self.moves * self.flip).to(grey.dtype)
        frames = grey.new_zeros(number, 2, 3)
        frames[:, 0, 0], frames[:, 1, 1] = length * turned, length
        frames[:, 0, 2], frames[:, 1, 2] = (1 - length) * across, (1 - length) * down
        return frames

    def _relit(self, images: Tensor) -> Tensor:
        """Images (B, C, height, width) in another light."""
        bright, contrast, saturation, hue = (
            self.moves * strength * u.reshape(-1, 1, 1, 1)
            for strength, u in zip(
                (self.brightness, self.contrast, self.saturation, self.hue),
                _uniform(images, 4),
                strict=True,
            )
        )
        light, contrast = (1 + bright).clamp_min(0), (1 + contrast).clamp_min(0)
        if self.image[0] != 3:
            middle = images.mean((1, 2, 3), keepdim=True)
            return light * (middle + contrast * (images - middle))
        # Luminance and two differences from it, scaled as for television (ITU-R BT.470), in which
        # a turn keeps the strength of a colour; written out, since a GPU's recorded step takes no
        # matrix from the CPU.
        red, green, blue = images.split(1, dim=1)
        y = 0.299 * red + 0.587 * green + 0.114 * blue
        u, v = 0.492 * (blue - y), 0.877 * (red - y)
        middle = y.mean((2, 3), keepdim=True)
        y = light * (middle + contrast * (y - middle))
        scale, angle = light * contrast * (1 + saturation).clamp_min(0), 2 * math.pi * hue
        u, v = (
            scale * (angle.cos() * u - angle.sin() * v),
            scale * (angle.sin() * u + angle.cos() * v),
        )
        red, blue = y + v / 0.877, y + u / 0.492
        return torch.cat([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue], 1)


def _uniform(like: Tensor, number: int) -> Tensor:
    """Numbers from -1 to 1 (number, B), for a batch of images."""
    return 2 * torch.rand(number, len(like), dtype=like.dtype, device=like.device) - 1


class VirtualAdversarial(View):
    """The step that changes q(c | x) most, for data of which no transformation is known.

    One power iteration on the curvature of KL(q(c | x) || q(c | x + r)) in r, scaled to
    ``epsilon`` times the distance from each example to the ``neighbour``-th nearest in its batch
    (Miyato et al. 2018, equations 13 to 15; Hu et al. 2017, section 3.2 for the radius). An
    example that is alone in its batch has no neighbour but itself, and is not moved.

    :param epsilon: the step's length over the distance to that neighbour.
    :param neighbour: which neighbour in the batch sets the length.
    :param probe: length of the first, random step.
    :raises ValueError: for an epsilon below 0, a neighbour below 1 or a probe that is not above 0,
        or a number that is not finite.
    """

    def __init__(self, epsilon: float = 0.25, neighbour: int = 10, probe: float = 1.0) -> None:
        not_negative("epsilon", epsilon)
        whole("neighbour", neighbour)
        positive("probe", probe)
        self.epsilon, self.neighbour, self.probe = epsilon, neighbour, probe

    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        with torch.no_grad():
            before = classifier(grey).logits
            near = min(self.neighbour + 1, grey.shape[0])
            # What is missing of a row of a table is no distance.
            there = grey.nan_to_num()
            radius = torch.cdist(there, there).kthvalue(near, dim=1, keepdim=True).values
        with torch.enable_grad():
            step = self.probe * unit(torch.randn_like(grey))
            step.requires_grad_()
            after = classifier(grey + step).logits
            divergence = kl_div(after, before, reduction="sum", log_target=True)
            (direction,) = torch.autograd.grad(divergence, step)
        return (grey + self.epsilon * radius * unit(direction)).detach()


class AdversarialAffine(Affine):
    """An image moved as by :class:`Affine`, then pushed as by :class:`VirtualAdversarial`.

    The step finds boundaries where examples are few; the moves carry a category across what no
    step reaches. With ``moves`` at 0 at first, the step alone decides what the categories are.

    :param shape: see :class:`Affine`.
    :param stretch: see :class:`Affine`, as for ``shift`` and ``tone``.
    :param epsilon: see :class:`VirtualAdversarial`, as for ``neighbour`` and ``probe``; the
        distance is between the moved images.
    :raises ValueError: where one of the two refuses its numbers.
    """

    asks = True

    def __init__(
        self,
        shape: Sequence[int],
        stretch: float = 0.1,
        shift: float = 0.1,
        tone: float = 0.0,
        epsilon: float = 0.25,
        neighbour: int = 10,
        probe: float = 1.0,
    ) -> None:
        super().__init__(shape, stretch, shift, tone)
        self.adversary = VirtualAdversarial(epsilon, neighbour, probe)

    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        return self.adversary(self.moved(grey), classifier)


class Hidden(View):
    """A row of a table of which a random share of the columns is missing.

    A category that hangs on one column alone is then no longer told, and one that many columns
    tell is.

    :ivar share: of the columns, each hidden by itself; ``schedules`` may set it.
    :param columns: of the table: objects with ``kind``, ``width``, ``mean`` and ``scale``.
    :param share: of the columns.
    :raises ValueError: for data without columns, or a share outside of [0, 1).
    """

    schedulable = ("share",)

    def __init__(self, columns: Sequence[Any], share: float = 0.2) -> None:
        if not columns:
            raise ValueError("needs the columns of a table, and the data have none")
        self.widths = [column.width for column in columns]
        self.share = share

    @property
    def share(self) -> float:
        """The chance that a column is hidden.

        :raises ValueError: where it is set outside of [0, 1).
        """
        return self._share

    @share.setter
    def share(self, share: float) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"share must be at least 0 and below 1, not {share}")
        self._share = share

    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        return self.moved(grey)

    def moved(self, grey: Tensor) -> Tensor:
        """The rows (B, X) with columns hidden."""
        hidden = torch.rand(len(grey), len(self.widths), device=grey.device) < self.share
        each = [
            column.unsqueeze(-1).expand(-1, width)
            for column, width in zip(hidden.unbind(-1), self.widths, strict=True)
        ]
        return grey.masked_fill(torch.cat(each, -1), torch.nan)


class AdversarialHidden(Hidden):
    """A row with hidden columns, as of :class:`Hidden`, pushed as by :class:`VirtualAdversarial`.

    The step is taken where log(1 + count) is standardised as real columns are, so that no column
    weighs more for its unit.

    :param columns: see :class:`Hidden`, as for ``share``.
    :param epsilon: see :class:`VirtualAdversarial`, as for ``neighbour`` and ``probe``; what is
        missing is no distance.
    :raises ValueError: where one of the two refuses its numbers.
    """

    asks = True

    def __init__(
        self,
        columns: Sequence[Any],
        share: float = 0.2,
        epsilon: float = 0.4,
        neighbour: int = 10,
        probe: float = 10.0,
    ) -> None:
        super().__init__(columns, share)
        self.adversary = VirtualAdversarial(epsilon, neighbour, probe)
        self.counts = [
            (sum(self.widths[:number]), column.mean, column.scale)
            for number, column in enumerate(columns)
            if column.kind == "count"
        ]

    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        hidden = self.moved(grey)

        def as_it_was(even: Tensor) -> Tensor:
            x = self._changed(even, lambda u, mean, scale: (u * scale + mean).expm1().clamp_min(0))
            return x.masked_fill(hidden.isnan(), torch.nan)

        even = self._changed(
            hidden.nan_to_num(), lambda x, mean, scale: (x.log1p() - mean) / scale
        ).masked_fill(hidden.isnan(), 0.0)
        return as_it_was(self.adversary(even, lambda u: classifier(as_it_was(u))))

    def _changed(self, x: Tensor, change: Callable[[Tensor, float, float], Tensor]) -> Tensor:
        """x (B, X) with its counts changed."""
        if not self.counts:
            return x
        features = list(x.unbind(-1))
        for place, mean, scale in self.counts:
            features[place] = change(features[place], mean, scale)
        return torch.stack(features, -1)


class Same(View):
    """The example itself: no view."""

    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        return grey


def unit(vectors: Tensor) -> Tensor:
    """Vectors (B, X) of length one; a zero vector stays zero."""
    # The squares of a small gradient underflow: vectors are first scaled, by a power of two, which
    # changes no digit.
    size = torch.frexp(vectors.abs().amax(1, keepdim=True)).exponent
    vectors = torch.ldexp(vectors, -size.clamp_min(-100))
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)
