"""Imports torchvision and timm without PyTorch's compiler, which takes nearly as long to import as PyTorch.

Both ask for the compiler while they are imported (torchvision 0.29, timm 1.0.31): for RoI align, for what wraps images
in tensors of their own, for an iterator of NaFlexViT. No pass of camboxes calls these. Functions stand in for the
compiler's, and import it when they are called.
"""

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_COMPILER, _UTILS = "torch._dynamo", "torch._dynamo.utils"


def _import() -> None:
    import torch  # noqa: F401  it defers its own import of the compiler

    if _COMPILER not in sys.modules:
        sys.modules |= {_COMPILER: _stand_in(_COMPILER, disable=_disable, __path__=[]),
                        _UTILS: _stand_in(_UTILS, is_compile_supported=_is_compile_supported)}  # fmt: skip
        try:
            _import_libraries()
        except (ImportError, AttributeError):  # another version, which wants more of the compiler
            pass
        finally:
            del sys.modules[_COMPILER], sys.modules[_UTILS]
    _import_libraries()


def _import_libraries() -> None:
    for name in ("torchvision.transforms.v2.functional", "timm"):
        importlib.import_module(name)


def _stand_in(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content)
    return module


def _is_compile_supported(device_type: str) -> bool:
    return importlib.import_module(_UTILS).is_compile_supported(device_type)


def _disable(function: Callable[..., Any], *options: Any, **named: Any) -> Callable[..., Any]:
    @functools.wraps(function)
    def disabled(*args: Any, **kwargs: Any) -> Any:
        return importlib.import_module(_COMPILER).disable(function, *options, **named)(*args, **kwargs)

    return disabled


_import()
