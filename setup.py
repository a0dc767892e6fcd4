"""Maps the three top-level folders to the packages camboxes.models, camboxes.transforms and camboxes.pipeline.

A folder named camboxes would shadow the installed package, and bare `import models` would collide with every
other project; everything else that packaging needs stands in pyproject.toml.
"""

from setuptools import find_packages, setup

ROOMS = ("models", "transforms", "pipeline")

setup(
    packages=[f"camboxes.{name}" for name in find_packages(include=[*ROOMS, *(f"{room}.*" for room in ROOMS)])],
    package_dir={f"camboxes.{room}": room for room in ROOMS},
    package_data={
        "camboxes.models": ["py.typed"],
        "camboxes.transforms": ["py.typed"],
        "camboxes.pipeline": ["py.typed", "*.json"],
        "camboxes.pipeline.reports": ["*.jinja"],
        "camboxes.pipeline.tuning": ["*.json"],
        "camboxes.pipeline.review.plugin": ["*.yml", "dist/*.js"],
    },
)
