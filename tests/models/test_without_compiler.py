import subprocess
import sys

import torch

from camboxes.models import without_compiler

LOADS = """
import sys
{before}
import camboxes.models.without_compiler
print("torch._dynamo" in sys.modules, "timm" in sys.modules and "torchvision" in sys.modules)
{then}
"""


def _printed(before, then):
    code = LOADS.format(before=before, then=then)
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split("\n")


def test_the_compiler_is_imported_when_it_is_called():
    then = (
        "roi = sys.modules['torchvision.ops.roi_align']\n"
        "print(roi.is_compile_supported('cpu'))\n"
        "import torch; print(torch._dynamo is sys.modules['torch._dynamo'], bool(torch._dynamo.__file__))\n"
        "print(roi.is_compile_supported('cpu') is torch._dynamo.utils.is_compile_supported('cpu'))"
    )
    assert _printed("", then)[:4] == ["False True", "True", "True True", "True"]


def test_a_library_that_wants_more_of_the_compiler_gets_it():
    """A part of torchvision that takes another function from it while it is imported."""
    more = "import torch.compiler; torch.compiler.disable = lambda f: __import__('torch._dynamo')._dynamo.explain and f"
    assert _printed(more, "")[0] == "True True"


def test_a_function_that_is_not_compiled_gives_what_it_gave():
    disabled = without_compiler._disable(lambda value, by=2: value * by)
    assert disabled(3) == 6 and disabled(3, by=3) == 9
    assert torch._dynamo.utils.is_compile_supported("cpu") == without_compiler._is_compile_supported("cpu")
