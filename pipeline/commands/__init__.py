"""The commands of `camboxes`: each calls the function of its job, and prints what came out.

A command's module has JOB, whose fields are its options; `run`; and TAKES_BEAM_OPTIONS where Beam's options may follow.
May import everything else in camboxes.
"""
