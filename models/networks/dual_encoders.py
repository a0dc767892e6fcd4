"""Dual encoders of images and text (CLIP: Radford et al., ICML 2021), as classifiers of classes given in words.

The texts are embedded once, when a network is loaded by its name. The classifier is the image tower and one linear
layer, whose weights are the embeddings. A checkpoint holds these alone: reading it needs no text tower.
"""

import dataclasses
import difflib
import textwrap
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.layers import AttentionPool2d, to_2tuple
from timm.models import vision_transformer
from torch import nn
from torch.nn import functional

from camboxes.models.networks.by_name import OPEN_CLIP, Network, downloading
from camboxes.models.networks.preprocessing import Preprocessing
from camboxes.models.networks.prompts import Prompt, embed


class DualEncoder(nn.Module):
    """An image tower and embedded texts: logit = scale * cosine(embedding of the image, embedding of the text) + bias.

    The tower has `forward_features` and `forward_head` as timm's networks have them. The weights of `head`, a linear
    layer, are the embeddings of the texts, each of length `scale`.
    """

    def __init__(self, tower: Any, width: int, classes: int):
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes logits, [n, classes]."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Computes the maps or tokens that the tower pools."""
        return self.tower.forward_features(images)

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        """Computes logits from the result of `forward_features`."""
        return self.head(functional.normalize(self.tower.forward_head(features), dim=1))

    def get_classifier(self) -> nn.Linear:
        """Gives the linear layer, as timm's networks do."""
        return self.head


def load_dual_encoder(name: str, weights: str | None, prompts: Sequence[Prompt]) -> tuple[Network, bool]:
    """Loads both towers and embeds the texts; gives the classifier, and whether its logits need sigmoids (SigLIP).

    Args:
      name: `open_clip:NAME`, or `open_clip:NAME/PRETRAINED` for weights that open_clip finds in the hub's cache of
        this machine, or downloads.
      weights: a local file of both towers' weights, read with weights_only; None where the name gives them.
      prompts: the classes.

    Raises:
      ValueError: open_clip is not installed, an unknown name, weights given twice or not at all, a file that does not
        hold this network's weights, or an unknown kind of image tower.
      OSError: the weights or the tokenizer cannot be loaded.
    """
    open_clip = _open_clip()
    architecture, _, pretrained = name.removeprefix(OPEN_CLIP).partition("/")
    config = _config(open_clip, architecture)
    if weights is None:
        _check_published(open_clip, architecture, pretrained)
        model: Any = downloading(name, lambda: open_clip.create_model(architecture, pretrained))
    elif pretrained:
        raise ValueError(f"model {name} and the weights {weights} were both given; leave one of them out")
    else:
        if not Path(weights).is_file():
            raise OSError(f"weights {weights}: there is no such file")
        try:
            model = open_clip.create_model(architecture, str(Path(weights).absolute()))
        except Exception as error:  # unreadable, or of other tensors
            raise ValueError(
                f"weights {weights} are not those of {name} in open_clip's format "
                f"({type(error).__name__}: {textwrap.shorten(str(error), 200)})"
            ) from error
    network = _network(name, model.visual, config, len(prompts), open_clip.get_model_preprocess_cfg(model))
    try:
        tokenizer = open_clip.get_tokenizer(architecture)
    except Exception as error:  # some come from the hub, by way of a library that is not installed with open_clip
        raise OSError(f"the tokenizer of {name} could not be loaded ({type(error).__name__}: {error})") from error
    texts = embed(model.eval(), tokenizer, prompts)
    with torch.no_grad():
        network.module.get_parameter("head.weight").copy_(model.logit_scale.exp() * texts)
        bias = torch.zeros(1) if model.logit_bias is None else model.logit_bias
        network.module.get_parameter("head.bias").copy_(bias)
    return network, model.logit_bias is not None


def empty_dual_encoder(name: str, classes: int) -> Network:
    """Builds the image tower and the linear layer with random weights, and CLIP's own preprocessing."""
    open_clip = _open_clip()
    config = _config(open_clip, name.removeprefix(OPEN_CLIP).partition("/")[0])
    quick = config.get("quick_gelu", False)
    visual = open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"], quick)
    return _network(name, visual, config, classes, dataclasses.asdict(open_clip.transform.PreprocessCfg()))


def _network(name: str, visual: Any, config: Mapping[str, Any], classes: int, asked: Mapping[str, Any]) -> Network:
    module = DualEncoder(image_tower(name, visual), config["embed_dim"], classes)
    preprocessing = Preprocessing(
        tuple(asked["mean"]), tuple(asked["std"]), to_2tuple(visual.image_size)[0], asked["interpolation"]
    )
    return Network(name, module.eval(), preprocessing)


def _open_clip() -> Any:
    try:
        import open_clip
    except ModuleNotFoundError:
        raise ValueError(
            'networks with a text tower need open_clip, which is not installed: pip install ".[prompts]" (in the clone)'
        ) from None
    return open_clip


def _config(open_clip: Any, architecture: str) -> dict[str, Any]:
    config = open_clip.get_model_config(architecture)
    if config is None:
        near = ", ".join(difflib.get_close_matches(architecture, open_clip.list_models(), n=5)) or "none is near"
        raise ValueError(f"model {OPEN_CLIP}{architecture} is not known to open_clip; nearest names: {near}")
    return config


def _check_published(open_clip: Any, architecture: str, pretrained: str) -> None:
    """Raises a ValueError where open_clip has no such weights, or they were made for another activation."""
    name = OPEN_CLIP + (f"{architecture}/{pretrained}" if pretrained else architecture)
    plain, published = architecture.removesuffix("-quickgelu"), []
    for tag in open_clip.list_pretrained_tags_by_model(architecture):
        # open_clip also loads weights that were trained with the other activation, whose logits are wrong.
        quick = open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu")
        published.append(f"{OPEN_CLIP}{plain}{'-quickgelu' if quick else ''}/{tag}")
    if name not in published:
        raise ValueError(
            f"model {name}: which weights? Give a file as weights, or one of those that open_clip knows: "
            f"{', '.join(published) or 'none'}"
        )


def image_tower(name: str, visual: Any) -> nn.Module:
    """Wraps an image tower of open_clip as a network of timm's; CLIP's own towers then take images of any size."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel

    if isinstance(visual, ModifiedResNet):
        return _ResNet(visual)
    if isinstance(visual, TimmModel):
        return _Timm(visual)
    try:
        return _vision_transformer(visual)
    except (RuntimeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"the image tower of {name} is not built like CLIP's ({textwrap.shorten(str(error), 200)}); expected its "
            "ResNet, its vision transformer, or a network of timm's"
        ) from error


# Names of the parts of CLIP's attention pooling, and timm's names for them.
_POOL = {"positional_embedding": "pos_embed", "q_proj": "q", "k_proj": "k", "v_proj": "v", "c_proj": "proj"}


class _ResNet(nn.Module):
    """CLIP's ResNet, with timm's attention pooling, which resamples the position embeddings for other sizes."""

    def __init__(self, visual: Any):
        super().__init__()
        *layers, (_, pool) = visual.named_children()
        self.layers = nn.Sequential(OrderedDict(layers))
        self.pool = AttentionPool2d(
            pool.q_proj.in_features,
            feat_size=to_2tuple(visual.image_size)[0] // 32,
            out_features=pool.c_proj.out_features,
            num_heads=pool.num_heads,
            qkv_separate=True,
        )
        named = ((*key.partition("."), tensor) for key, tensor in pool.state_dict().items())
        self.pool.load_state_dict({_POOL[part] + dot + rest: tensor for part, dot, rest, tensor in named})

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)

    def forward_head(self, maps: torch.Tensor) -> torch.Tensor:
        return self.pool(maps)


class _Timm(nn.Module):
    """A network of timm's, and the projection that open_clip puts behind it."""

    def __init__(self, visual: Any):
        super().__init__()
        self.trunk = visual.trunk
        self.projection = visual.head

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.trunk.forward_features(images)

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return self.projection(self.trunk.forward_head(features))


def _vision_transformer(visual: Any) -> vision_transformer.VisionTransformer:
    """Rebuilds CLIP's vision transformer as timm's, which resamples the position embeddings for other sizes."""
    blocks = visual.transformer.resblocks
    pooling: dict[str, Any] = {"tok": "token", "avg": "avg"}
    tower = vision_transformer.VisionTransformer(
        img_size=visual.image_size,
        patch_size=visual.patch_size,
        num_classes=visual.output_dim,
        global_pool=pooling[visual.pool_type],
        embed_dim=visual.conv1.out_channels,
        depth=len(blocks),
        num_heads=blocks[0].attn.num_heads,
        mlp_ratio=blocks[0].mlp.c_fc.out_features / visual.conv1.out_channels,
        pre_norm=True,
        fc_norm=visual.final_ln_after_pool,
        dynamic_img_size=True,
        norm_layer=nn.LayerNorm,
        act_layer=type(blocks[0].mlp.gelu),
    )
    state = {f"visual.{key}": tensor for key, tensor in visual.state_dict().items()}
    tower.load_state_dict(vision_transformer.checkpoint_filter_fn(state, tower))
    return tower
