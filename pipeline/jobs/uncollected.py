"""Its import rests Python's collector of garbage, which would go through all that is imported next, again and again."""

import gc

gc.disable()
