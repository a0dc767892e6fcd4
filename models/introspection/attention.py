"""Computes attention step by step, so that its weights can be recorded, whichever way a network calls it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_SOFTMAX = (torch.softmax, torch.Tensor.softmax, functional.softmax)


class OpenAttention(TorchFunctionMode):
    """Hands the weights of every attention of the calling thread's passes to a function, and goes on with its result.

    Networks call attention in three ways: a fused function that does not return the weights
    (`scaled_dot_product_attention`), `nn.MultiheadAttention`, or step by step, with a softmax over a square matrix. The
    first two are computed like the third. Nothing is hooked, and no network is changed.
    """

    def __init__(self, take: Callable[[torch.Tensor], torch.Tensor]):
        """Takes the function that gets the weights, [n, heads, queries, keys], each row with a sum of 1."""
        super().__init__()
        self._take = take

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention and not kwargs.get("enable_gqa"):
            return self._attend(*args, **kwargs)
        if func is functional.multi_head_attention_forward and _is_packed(*args, **kwargs):
            return self._attend_with_heads(args, kwargs["attn_mask"])
        output = func(*args, **kwargs)
        if func in _SOFTMAX and output.dim() == 4 and output.shape[2] == output.shape[3]:
            return self._take(output)
        return output

    def _attend(  # noqa: PLR0917 - its arguments are those of the function that it stands for
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """Computes `functional.scaled_dot_product_attention` by its definition, without dropout."""
        scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return self._take(scores.softmax(-1)) @ value

    def _attend_with_heads(self, args: Sequence[Any], attn_mask: torch.Tensor | None) -> tuple[torch.Tensor, None]:
        """Computes `functional.multi_head_attention_forward` of sequences [length, n, channels]; see `_is_packed`."""
        *sequences, _, heads, in_weight, in_bias, _, _, _, _, out_weight, out_bias = args
        biases = (None, None, None) if in_bias is None else in_bias.chunk(3)
        query, key, value = (
            functional.linear(*of_one).unflatten(2, (heads, -1)).permute(1, 2, 0, 3)
            for of_one in zip(sequences, in_weight.chunk(3), biases, strict=True)
        )
        attended = self._attend(query, key, value, attn_mask).permute(2, 0, 1, 3).flatten(2)
        return functional.linear(attended, out_weight, out_bias), None


def _is_packed(query: torch.Tensor, *args: Any, **options: Any) -> bool:
    """Whether it is attention as in vision transformers: one packed weight for queries, keys and values, no extras."""
    _, _, _, _, _, _, extra_key, extra_value, zeros, *_ = args
    extra = extra_key is not None or extra_value is not None or zeros or options["key_padding_mask"] is not None
    return query.dim() == 3 and not (extra or options["use_separate_proj_weight"] or options["need_weights"])
