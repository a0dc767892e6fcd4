"""Rests the garbage collector by its import: a fork server is told which modules to import, and nothing else."""

import gc

gc.disable()
