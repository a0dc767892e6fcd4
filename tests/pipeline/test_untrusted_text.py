from camboxes.pipeline.untrusted_text import error_text, failure_text, on_one_line, shortened


def test_a_page_shows_500_characters():
    assert shortened("x" * 500) == "x" * 500
    assert shortened("x" * 501) == "x" * 500 + "…"


def test_a_terminal_is_told_nothing_that_it_obeys():
    assert on_one_line("Egyptian cat, ü 猫 😀") == "Egyptian cat, ü 猫 😀"
    assert on_one_line("\x1b]0;title\x07\r\n\u202ecat\udcff") == r"\x1b]0;title\x07\r\n\u202ecat\udcff"
    assert on_one_line("x" * 100_000, 31) == "x" * 30 + "…"
    assert on_one_line("\x00" * 9, 31) == r"\x00" * 7 + r"\x" + "…"


def test_of_a_long_error_the_remedy_is_kept():
    error = ValueError(f"no label\x1b[2J\n'{'x' * 100_000}' is none; rename it")
    first, second = error_text(error).split("\n")
    assert first == r"no label\x1b[2J"
    assert second.endswith("x' is none; rename it") and len(second) == 4003


def test_a_failure_is_what_was_raised_without_its_tracebacks():
    """As Beam's workers and runners tell it."""
    path = "/out/shards/00001.parquet"
    told = f"""Pipeline job-1 failed in state FAILED: bundle failed: Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1512, in process
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "x.py", line 1, in f
    raise ValueError("x")
camboxes.transforms.errors.OddError: [Errno 28] No space left: '{path}' [while running 'WriteCoco/WriteShards']
"""
    assert failure_text(RuntimeError(told)) == f"camboxes.transforms.errors.OddError: No space left: '{path}'"
    assert failure_text(OSError(28, "No space left", path)) == f"No space left: '{path}'"
    assert failure_text(RuntimeError("ValueError: odd [while running 'InferClassMaps']")) == "ValueError: odd"
    local = "Traceback (most recent call last):\n  File\nx.f.<locals>.OddError: odd\n"
    assert failure_text(RuntimeError(local)) == "x.f.<locals>.OddError: odd"
    assert failure_text(ValueError("two\nlines")) == "two\nlines"
