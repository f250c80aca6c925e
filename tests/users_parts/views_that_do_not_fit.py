"""Views that a run must refuse, each for one reason."""

from torch import Tensor

from pyro_infocat.views import Classifier, View


class Abstract(View):
    pass


class OtherShape(View):
    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        return grey[:, :9]


class OtherType(View):
    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        return grey.double()


class NotFinite(View):
    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        return grey / 0


class Fails(View):
    def __call__(self, grey: Tensor, classifier: Classifier) -> Tensor:
        return grey.turned()
