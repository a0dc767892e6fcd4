"""Executes first_data_set.ipynb and writes it again with its outputs.

python examples/execute.py
"""

import shutil
import tempfile
from pathlib import Path

import nbclient
import nbformat

HERE = Path(__file__).parent
NOTEBOOK = HERE / "first_data_set.ipynb"


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs: texts and pictures, without warnings and scripts of libraries.

    Args:
      folder: where the notebook's files go; it must exist.
    """
    shutil.copy(HERE / "composed_photographs.py", folder)
    options = {"timeout": 600, "record_timing": False, "coalesce_streams": True}
    at = {"metadata": {"path": str(folder)}}
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, kernel_name="python3", resources=at, **options).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_shown(output)]
    return notebook


def _is_shown(output: nbformat.NotebookNode) -> bool:
    return output.get("name") == "stdout" or output.output_type == "execute_result"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        nbformat.write(executed(Path(temporary)), NOTEBOOK)
