"""Classes given as text: parses the lines of a file of prompts, and embeds them with a text tower."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional


class Prompt(NamedTuple):
    """The label of a class, and its names in prompts; at least one."""

    label: str
    names: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The label, and then the other names."""
        return tuple(dict.fromkeys((self.label, *self.names)))


def read_prompts(lines: Sequence[str]) -> list[Prompt]:
    """Parses lines `LABEL` or `LABEL: NAME, NAME`; empty lines are skipped, underscores in names mean spaces.

    Raises:
      ValueError: no label at all, a label twice, or a colon without a name behind it.
    """
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        label, colon, rest = (part.strip() for part in line.partition(":"))
        given = rest.split(",") if colon else [label]
        names = tuple(name.strip().replace("_", " ") for name in given if name.strip())
        if not label or not names:
            raise ValueError(f"prompts, line {number}: {line.strip()!r} is not LABEL, or LABEL: NAME, NAME")
        if label in prompts:
            raise ValueError(f"prompts, line {number}: the label {label!r} is there twice; remove one of them")
        prompts[label] = Prompt(label, names)
    if not prompts:
        raise ValueError("prompts: there is no label; expected one a line")
    return list(prompts.values())


def embed(model: Any, tokenizer: Callable[..., torch.Tensor], prompts: Sequence[Prompt]) -> torch.Tensor:
    """Computes the text embeddings of classes as CLIP's zero-shot classifier (Radford et al. 2021, section 3.1.4).

    Each name is put into CLIP's 80 templates for ImageNet ("a photo of a {}."). The embeddings of its texts, each of
    length 1, are averaged and normalised again; so are the embeddings of a class's names.

    The model is one of open_clip's, in evaluation mode; its text tower may not take longer texts afterwards.

    Returns:
      float32 [classes, width], of length 1.
    """
    from open_clip import CLIP, OPENAI_IMAGENET_TEMPLATES, build_zero_shot_classifier

    names = [name for prompt in prompts for name in prompt.names]
    if isinstance(model, CLIP) and model.text_pool_type == "argmax" and model.attn_mask is not None:
        # Tokens behind a text's end do not change its embedding, and would be four fifths of the work.
        texts = [template(name) for name in names for template in OPENAI_IMAGENET_TEMPLATES]
        longest = int(tokenizer(texts).argmax(1).max()) + 1
        model.positional_embedding = nn.Parameter(model.positional_embedding[:longest])
        model.attn_mask = model.attn_mask[:longest, :longest]
        tokenizer = functools.partial(tokenizer, context_length=longest)
    of_names = build_zero_shot_classifier(model, tokenizer, names, OPENAI_IMAGENET_TEMPLATES).T
    of_classes = of_names.split([len(prompt.names) for prompt in prompts])
    return functional.normalize(torch.stack([part.mean(0) for part in of_classes]), dim=1)
