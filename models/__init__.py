"""Networks and their class maps: PyTorch only, with no knowledge of Beam, files of a run, or commands.

Importing it loads no torch: `ModelSpec`, `MapSpec` and `METHODS` need none, and every other name is imported when it is
first asked for.
"""

from typing import TYPE_CHECKING, Any

from camboxes.models.spec import METHODS, MapSpec, ModelSpec

if TYPE_CHECKING:
    from camboxes.models.cam.class_activation import class_activation_maps
    from camboxes.models.cam.methods import class_maps
    from camboxes.models.classifier import Activations, Classifier
    from camboxes.models.loading import load_classifier
    from camboxes.models.localization.localizer import Localization, Localizer
    from camboxes.models.networks.preprocessing import Preprocessing

__all__ = [
    "METHODS",
    "Activations",
    "Classifier",
    "Localization",
    "Localizer",
    "MapSpec",
    "ModelSpec",
    "Preprocessing",
    "class_activation_maps",
    "class_maps",
    "load_classifier",
]

_HOMES = {
    "Activations": "classifier",
    "Classifier": "classifier",
    "Localization": "localization.localizer",
    "Localizer": "localization.localizer",
    "Preprocessing": "networks.preprocessing",
    "class_activation_maps": "cam.class_activation",
    "class_maps": "cam.methods",
    "load_classifier": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    importlib.import_module(f"{__name__}.without_compiler")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
