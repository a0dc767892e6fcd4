"""The FiftyOne operators that the review panel calls.

The panel is pipeline/review/plugin/dist/index.umd.js. Operators take ids and plain values, and return plain values, or
`{"problem": sentence}` with a sentence for the reviewer. The plugin's __init__.py calls `register`.
"""

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone import ViewField as F

from camboxes.models.counts import counted
from camboxes.pipeline.review.actions import Reviewed, ReviewError, Rule
from camboxes.transforms import BoxRule

_MOST_AT_ONCE = 1000  # images that are drawn while the App waits; the delegated worker draws more than these


class _Operator(foo.Operator):
    """An operator for the panel alone."""

    @property
    def config(self) -> foo.OperatorConfig:
        """The operator's name is the class name in lower case."""
        name = type(self).__name__.lower()
        return foo.OperatorConfig(name=name, label=f"camboxes: {name}", unlisted=True)

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Answers the panel."""
        try:
            return self._answer(Reviewed(ctx.dataset), ctx)
        except ReviewError as problem:
            return {"problem": str(problem)}

    def _answer(self, reviewed: Reviewed, ctx: Any) -> dict[str, Any]:
        raise NotImplementedError


class See(_Operator):
    """Returns the panel's values for images, by id. Parameter: samples, their ids in FiftyOne."""

    def _answer(self, reviewed: Reviewed, ctx: Any) -> dict[str, Any]:
        return {"seen": {key: reviewed.seen(reviewed.sample(key)) for key in ctx.params["samples"]}}


class Redraw(_Operator):
    """Draws an image's boxes again. Parameters: sample, and those of a `Rule`; without a threshold, as in the run."""

    def _answer(self, reviewed: Reviewed, ctx: Any) -> dict[str, Any]:
        if ctx.params.get("threshold") is None:
            return reviewed.reset(ctx.params["sample"])
        return reviewed.redraw(ctx.params["sample"], _rule(ctx.params))


class Decide(_Operator):
    """Records a decision about an image.

    Parameters: sample; verdict: accepted, rejected or skipped; boxes: label and bounding_box of those that were shown.
    """

    def _answer(self, reviewed: Reviewed, ctx: Any) -> dict[str, Any]:
        return reviewed.decide(ctx.params["sample"], ctx.params["verdict"], ctx.params["boxes"])


class Undo(_Operator):
    """Cancels the last decision about an image. Parameter: sample."""

    def _answer(self, reviewed: Reviewed, ctx: Any) -> dict[str, Any]:
        return reviewed.undo(ctx.params["sample"])


class Progress(_Operator):
    """Returns the counts of images by verdict, and by class."""

    def _answer(self, reviewed: Reviewed, ctx: Any) -> dict[str, Any]:
        return {"counts": reviewed.counts(), "classes": reviewed.progress()}


class Order(_Operator):
    """Returns the ids of the view's images, in its order. Parameter: sort, the grid's own order, or None."""

    def _answer(self, reviewed: Reviewed, ctx: Any) -> dict[str, Any]:
        sort = ctx.params.get("sort")
        view = ctx.view.sort_by(sort["field"], reverse=sort["descending"]) if sort else ctx.view
        return {"samples": view.values("id")}


class Apply(_Operator):
    """Draws the boxes of all undecided images of the view by a rule: of every label, or of one.

    Parameters: those of a `Rule`; without a threshold, as in the run; everywhere: take the whole dataset instead of the
    view. FiftyOne's delegated worker draws more than a thousand images; the answer is empty then.
    """

    @property
    def config(self) -> foo.OperatorConfig:
        """Allows the operator to run here and on the worker."""
        return foo.OperatorConfig(
            name="apply",
            label="camboxes: apply a threshold",
            unlisted=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_delegation(self, ctx: Any) -> bool:
        """Whether the worker runs it."""
        return len(self._images(ctx)) > _MOST_AT_ONCE

    def _answer(self, reviewed: Reviewed, ctx: Any) -> dict[str, Any]:
        keys = self._images(ctx).values("id")
        done = 0
        for done in reviewed.apply(keys, _rule(ctx.params)):
            ctx.set_progress(progress=done / len(keys), label=f"{done} of {counted(len(keys), 'image')}")
        return {"images": done}

    def _images(self, ctx: Any) -> Any:
        images = _undecided(ctx.dataset if ctx.params.get("everywhere") else ctx.view)
        label = ctx.params.get("label")
        return images if label is None else images.match(F("labels.classifications.label").contains([label]))


def _undecided(images: "fo.DatasetView | fo.Dataset") -> "fo.DatasetView":
    return images.match((F("verdict") == None) & (F("status") != "rejected"))  # noqa: E711 (FiftyOne's expression)


def _rule(params: Mapping[str, Any]) -> Rule:
    if params.get("threshold") is None:
        return Rule(None, params.get("label"))
    try:
        boxes = BoxRule(float(params["threshold"]), float(params["min_area"]), params["boxes"])
        return Rule(boxes, params.get("label"))
    except ValueError as error:
        raise ReviewError(str(error)) from error


def register(plugin: Any) -> None:
    """Registers the operators with FiftyOne."""
    for operator in (See, Redraw, Decide, Undo, Progress, Order, Apply):
        plugin.register(operator)
