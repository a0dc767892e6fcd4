"""Networks and the maps that they give: PyTorch only, with no knowledge of Beam, files of a run, or commands.

`ModelSpec` and `MapSpec` are importable without torch; everything else is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from camboxes.models.spec import MapSpec as MapSpec
from camboxes.models.spec import ModelSpec as ModelSpec

if TYPE_CHECKING:
    from camboxes.models.cam.class_activation import class_activation_maps as class_activation_maps
    from camboxes.models.cam.methods import class_maps as class_maps
    from camboxes.models.classifier import Activations as Activations
    from camboxes.models.classifier import Classifier as Classifier
    from camboxes.models.classifier import load_classifier as load_classifier
    from camboxes.models.classifier import load_for_elsewhere as load_for_elsewhere
    from camboxes.models.execution.executable import keep_freed_memory as keep_freed_memory
    from camboxes.models.localization.localizer import Localization as Localization
    from camboxes.models.localization.localizer import Localizer as Localizer
    from camboxes.models.localization.localizer import out_of_memory as out_of_memory
    from camboxes.models.localization.localizer import passes_side_by_side as passes_side_by_side
    from camboxes.models.localization.localizer import use_one_core as use_one_core
    from camboxes.models.networks.preprocessing import Preprocessing as Preprocessing

_HOMES = {
    "Activations": "classifier",
    "Classifier": "classifier",
    "Localization": "localization.localizer",
    "Localizer": "localization.localizer",
    "Preprocessing": "networks.preprocessing",
    "class_activation_maps": "cam.class_activation",
    "class_maps": "cam.methods",
    "keep_freed_memory": "execution.executable",
    "load_classifier": "classifier",
    "load_for_elsewhere": "classifier",
    "out_of_memory": "localization.localizer",
    "passes_side_by_side": "localization.localizer",
    "use_one_core": "localization.localizer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
