"""Views: other looks at an example that keep its category.

The term ``consistency`` asks q(c | x) to be the same for x and a view of it.

Shapes: B batch, K categories, X features.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, kl_div

from models.recorded import Recorded

Classifier = Callable[[Tensor], dist.Categorical]
"""q(c | x) for x (B, X)."""


class View(Recorded, ABC):
    """A random change of grey levels (B, X) in [0, 1] that keeps each example's category.

    :cvar schedulable: names of float attributes that ``schedules`` may set between epochs.
    """

    schedulable: tuple[str, ...] = ()

    @abstractmethod
    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        """The view (B, X), without a gradient."""


class Affine(View):
    """Small turns, stretches, shears and shifts of an image, and another tone.

    Each entry of the 2 x 2 matrix gets normal noise of ``stretch``, and each shift normal noise
    of ``shift`` half image widths. Grey levels are raised to a power whose logarithm is normal
    noise of ``tone``: the image gets darker or brighter, and black and white stay.

    :ivar moves: a factor on ``stretch``, ``shift`` and ``tone``, which ``schedules`` may set.
    :param shape: (height, width).
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
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, not {value}")
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
        if not 0 <= moves < math.inf:
            raise ValueError(f"moves must be at least 0 and finite, not {moves}")
        self._moves = moves

    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        if self.moves == 0:
            return grey
        number = len(grey)
        moves = torch.randn(number, 2, 3, dtype=grey.dtype, device=grey.device)
        moves[..., :2] *= self.moves * self.stretch
        moves[..., 2] *= self.moves * self.shift
        moves += torch.eye(2, 3, dtype=grey.dtype, device=grey.device)
        if self.tone:
            # Left out where it is off, so that its draws do not change those of the moves.
            noise = torch.randn(number, 1, dtype=grey.dtype, device=grey.device)
            grey = grey.pow((self.moves * self.tone * noise).exp())
        images = grey.reshape(number, 1, *self.shape)
        grid = affine_grid(moves, list(images.shape), align_corners=False)
        return grid_sample(images, grid, align_corners=False).clamp(0, 1).flatten(1)


class VirtualAdversarial(View):
    """The step that changes q(c | x) most, for data of which no transformation is known.

    One power iteration on the curvature of KL(q(c | x) || q(c | x + r)) in r, scaled to
    ``epsilon`` times the distance from each example to the ``neighbour``-th nearest in its batch
    (Miyato et al. 2018, equations 13 to 15; Hu et al. 2017, section 3.2 for the radius). An
    example that is alone in its batch has no neighbour but itself, and is not moved.

    :param epsilon: the step's length over the distance to that neighbour.
    :param neighbour: which neighbour in the batch sets the length.
    :param probe: length of the first, random step.
    :raises ValueError: for an epsilon below 0, a neighbour below 1 or a probe that is not above 0.
    """

    def __init__(self, epsilon: float = 0.25, neighbour: int = 10, probe: float = 1.0) -> None:
        if epsilon < 0:
            raise ValueError(f"epsilon must be at least 0, not {epsilon}")
        if neighbour < 1:
            raise ValueError(f"neighbour must be at least 1, not {neighbour}")
        if probe <= 0:
            raise ValueError(f"probe must be above 0, not {probe}")
        self.epsilon, self.neighbour, self.probe = epsilon, neighbour, probe

    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        with torch.no_grad():
            before = classifier(grey).logits
            near = min(self.neighbour + 1, grey.shape[0])
            radius = torch.cdist(grey, grey).kthvalue(near, dim=1, keepdim=True).values
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

    :param shape: (height, width).
    :param stretch: see :class:`Affine`, as for ``shift`` and ``tone``.
    :param epsilon: see :class:`VirtualAdversarial`, as for ``neighbour`` and ``probe``; the
        distance is between the moved images.
    :raises ValueError: where one of the two refuses its numbers.
    """

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
        return self.adversary(super().__call__(grey, classifier), classifier)


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
