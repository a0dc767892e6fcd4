"""Checkpoints: a folder with weights.safetensors, and classifier.json with everything else about the classifier."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camboxes.models.networks import by_name
from camboxes.models.networks.by_name import GAP, OPEN_CLIP, Network
from camboxes.models.networks.class_names import Names, names_from_json
from camboxes.models.networks.dual_encoders import empty_dual_encoder, load_dual_encoder
from camboxes.models.networks.gap_conversions import gap_network
from camboxes.models.networks.preprocessing import Preprocessing
from camboxes.models.networks.prompts import read_prompts
from camboxes.models.networks.state_dicts import read_state
from camboxes.models.spec import ModelSpec, check_statistics

DESCRIPTION, WEIGHTS = "classifier.json", "weights.safetensors"


@dataclasses.dataclass(frozen=True)
class Description:
    """Everything about a classifier but its weights: the contents of classifier.json."""

    network: str  # its qualified name, such as "gap:timm:tf_efficientnet_lite0"
    class_names: Names  # of each class, the one that is shown first; empty for a class without a name
    preprocessing: Preprocessing  # the one that its weights were trained with
    multilabel: bool = False  # whether probabilities are sigmoids of the logits rather than their softmax
    map_stride: int | None = None  # see `ModelSpec.map_stride`
    # The training's settings, data and metrics; empty for a library's own weights.
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> bytes:
        """Serialises the description as classifier.json."""
        values = dataclasses.asdict(self)
        kept = ("mean", "std", "size", "interpolation")
        values["preprocessing"] = {name: values["preprocessing"][name] for name in kept}
        return (json.dumps({"schema_version": 1} | values, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Description":
        """Parses classifier.json; fields with a default may be missing.

        Raises:
          ValueError, KeyError, TypeError: a field is missing, unknown or wrong.
        """
        values = json.loads(data)
        if (version := values.pop("schema_version", 1)) != 1:
            raise ValueError(f"schema_version is {version!r}; expected 1")
        values["class_names"] = names_from_json(values["class_names"])
        asked = values["preprocessing"]
        for field in ("mean", "std"):
            check_statistics(field, asked[field])
        if asked["interpolation"] not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation is {asked['interpolation']!r}; expected bilinear or bicubic")
        values["preprocessing"] = Preprocessing(**asked | {"mean": tuple(asked["mean"]), "std": tuple(asked["std"])})
        return cls(**values)


def find_network(spec: ModelSpec) -> tuple[Network, Description | None]:
    """Loads the network that a spec names, and its description where it comes from a checkpoint or from prompts.

    Raises:
      ValueError: an unknown name, a folder that is no checkpoint, weights of another network, a GAP conversion without
        weights, or a dual encoder without prompts.
      OSError: weights that cannot be loaded.
    """
    folder = Path(spec.name)
    if spec.name.startswith(OPEN_CLIP):
        if spec.prompts is None:
            raise ValueError(f"{spec.name} has no classes of its own: give it prompts, one for each label")
        if spec.classes is not None:
            raise ValueError(f"the classes of {spec.name} are its prompts; leave the other class names out")
        prompts = read_prompts(spec.prompts)
        network, multilabel = load_dual_encoder(spec.name, spec.weights, prompts)
        names = tuple(prompt.class_names for prompt in prompts)
        return network, Description(network.name, names, network.preprocessing, multilabel)
    if spec.prompts is not None:
        raise ValueError(
            f"model {spec.name!r} has classes of its own; leave the prompts out, or name a network with a text tower: "
            "open_clip:NAME"
        )
    if (folder / DESCRIPTION).is_file():
        if spec.weights is not None:
            raise ValueError(f"model {spec.name!r} is a checkpoint with its own weights; leave out {spec.weights!r}")
        try:
            described = Description.from_json((folder / DESCRIPTION).read_bytes())
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{folder / DESCRIPTION} is not what camboxes train writes ({type(error).__name__}: {error}); "
                "docs/how-to/own-networks.md has an example"
            ) from error
        network = _with_weights(described.network, str(folder / WEIGHTS))
        return dataclasses.replace(network, preprocessing=described.preprocessing), described
    try:
        name = by_name.qualified_name(spec.name)
    except ValueError:
        if not folder.is_dir():
            raise
        raise ValueError(
            f"model {spec.name!r} is a folder without {DESCRIPTION}; expected one that camboxes train wrote"
        ) from None
    if name.startswith(GAP) and spec.weights is None:
        raise ValueError(
            f"{name} has no trained weights: train the model {spec.name} with camboxes train, then give the folder "
            "that it writes as the model"
        )
    return _with_weights(name, spec.weights), None


def _with_weights(name: str, weights: str | None) -> Network:
    if not name.startswith((GAP, OPEN_CLIP)):
        return by_name.load_network(name, weights)
    assert weights is not None, "find_network refuses a conversion without, and reads a dual encoder's elsewhere"
    state = read_state(weights)
    if "head.weight" not in state:
        raise ValueError(
            f"weights {weights} are not those of {name}: there is no head.weight among them; if they are those of the "
            f"network that it converts, name that: {name.removeprefix(GAP)}"
        )
    classes = len(state["head.weight"])
    if name.startswith(OPEN_CLIP):
        network = empty_dual_encoder(name, classes)
    else:
        network = gap_network(by_name.empty_network(name.removeprefix(GAP)), classes)
    by_name.load_state(network, state, weights)
    return network
