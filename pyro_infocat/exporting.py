"""A finished run's guide as a program for other places: raw examples to categories.

Shapes: B batch, C columns of a table, D latent dimensions, K categories, X features.
"""

import copy
import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import pyro
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from guides.guide import Guide
from guides.relaxed import SoftCode
from models import CatVAE
from pyro_infocat.catalogue import Column, Facts
from pyro_infocat.errors import UserError, attributed
from pyro_infocat.evaluation.means import mean_of
from pyro_infocat.loading import Run
from pyro_infocat.storage.files import replace
from pyro_infocat.version import made_by

Given = Literal["bytes", "grey"]
"""How images are given: as bytes from 0 to levels - 1, or as grey levels in [0, 1]."""

OUTPUTS = ("q", "z", "category")

OPSET = 20
"""Of ONNX: the first whose GridSample is what the encoder Upright needs."""


class Categoriser(nn.Module):
    """x to q(c | x) (B, K), z (B, D), the mean of q(z | x, c) for the likeliest c, and c (B,).

    x is images (B, height, width), in colour (B, 3, height, width), or rows of a table (B, C) in
    float64, a number in the table's own units for each column: of a category or a binary column the
    place among the column's values, and NaN where a value is missing. Other data are given as the
    run's reader gave them, (B, X).

    A run on binarised images takes grey levels here: it draws nothing, so that the same image
    always has the same answer.

    :param given: how images are given.
    """

    def __init__(self, run: Run, given: Given = "bytes") -> None:
        super().__init__()
        # At once, so that a guide that reads the prior reads the copy of it.
        copied = copy.deepcopy(nn.ModuleList([run.model, run.guide])).cpu().eval()
        model, self.guide = cast(CatVAE, copied[0]), cast(Guide, copied[1])
        for part in self.guide.modules():
            if isinstance(part, SoftCode):
                # Its dropout at test time would make every answer another.
                part.rate = 0.0
        # Known as a part of this module, or a guide that reads it could not be exported.
        self.prior = model.prior
        self.facts, self.given = run.facts, given
        self.columns = Columns(run.facts.columns) if run.facts.columns else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, z and category."""
        if self.columns is not None:
            x = self.columns(x)
        x = x.to(self.prior.logits.dtype).flatten(1)
        if self.facts.images and self.given == "bytes":
            x = x / (self.facts.levels - 1)
        category, latent = self.guide.posterior(x)
        likeliest = category.logits.argmax(-1)
        return category.probs, mean_of(latent(likeliest)), likeliest

    def examples(self) -> Tensor:
        """Two examples of the kind that it takes."""
        if self.facts.columns:
            return torch.zeros(2, len(self.facts.columns), dtype=torch.float64)
        if self.facts.images and self.given == "bytes":
            return torch.zeros(2, *self.facts.shape, dtype=torch.uint8)
        return torch.zeros(2, *self.facts.shape)


class Columns(nn.Module):
    """Rows of a table (B, C) as x (B, X)."""

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.columns = tuple(columns)

    def forward(self, table: Tensor) -> Tensor:
        parts = []
        for column, values in zip(self.columns, table.unbind(1), strict=True):
            one = values.unsqueeze(1)
            if column.kind == "real":
                one = (one - column.mean) / column.scale
            elif column.kind == "category":
                places = torch.arange(column.width, dtype=one.dtype)
                # What is missing stays so: NaN equals nothing.
                one = torch.where(one.isnan(), one, (one == places).to(one.dtype))
            parts.append(one)
        return torch.cat(parts, 1)


def exported(run: Run, given: Given = "bytes") -> ExportedProgram:
    """A run's :class:`Categoriser` as a program of PyTorch, for batches of any size.

    :raises UserError: for a guide of one's own that cannot be exported.
    """
    module = Categoriser(run, given).eval()
    path = run.settings.guide.class_path
    remedy = "its posterior must be written in tensor operations alone"
    with (
        torch.no_grad(),
        pyro.validation_enabled(False),
        attributed("guide", f"{path} cannot be exported", remedy),
    ):
        shapes = {"x": {0: Dim("batch", min=1)}}
        return torch.export.export(module, (module.examples(),), dynamic_shapes=shapes)


def description(run: Run, given: Given) -> dict[str, Any]:
    """What a program in another place should know of its input."""
    facts: Facts = run.facts
    what: dict[str, Any] = {"shape": list(facts.shape), "outputs": list(OUTPUTS)}
    if facts.columns:
        what = {"outputs": list(OUTPUTS), "columns": [
            {"name": one.name, "kind": one.kind, "values": list(one.values)}
            for one in facts.columns
        ]}  # fmt: skip
    elif facts.images:
        what |= {"given": given, "levels": facts.levels}
    return {**what, "observation": run.observation, "made_by": made_by()}


def write(run: Run, out: Path, given: Given = "bytes") -> None:
    """Write the program as .pt2, or as .onnx.

    :raises UserError: where it cannot be made, or packages are missing for it.
    :raises OSError: where it cannot be written.
    """
    said = json.dumps(description(run, given))
    content = io.BytesIO()
    with warnings.catch_warnings():
        # What PyTorch deprecates in itself.
        warnings.simplefilter("ignore")
        if out.suffix == ".onnx":
            content.write(_onnx(exported(run, given), said))
        else:
            torch.export.save(exported(run, given), content, extra_files={"infocat.json": said})
    replace(out, content.getvalue())


def _onnx(program: ExportedProgram, said: str) -> bytes:
    """The program in ONNX's format, as one file with its parameters."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f".onnx needs the package {error.name}; install pyro_infocat[export], as in pip "
            "install '.[export]', or give a .pt2",
            "out",
        ) from error
    made = torch.onnx.export(
        program,
        input_names=["x"],
        output_names=list(OUTPUTS),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    if made is None:
        raise UserError("PyTorch made no ONNX program", "out")
    proto = made.model_proto
    _name_the_batch(proto.graph)
    onnx.helper.set_model_props(proto, {"infocat": said})
    return proto.SerializeToString()


def _name_the_batch(graph: Any) -> None:
    """Call the one size that is not fixed ``batch``, in the place of a number of PyTorch's own."""
    given = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == given:
                size.dim_param = "batch"
