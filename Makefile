# make demo, make test: each sets up what it needs in .venv, once.

PYTHON ?= $(shell command -v python3.11 || echo python3)
# pip's options for where wheels come from; for CPU-only torch wheels (0.2 GB instead of 5.5) name an index that has
# them: make demo PIP_OPTIONS="--extra-index-url URL"
PIP_OPTIONS ?=
VENV ?= .venv

BIN = $(VENV)/bin

SUDO = $(shell test "$$(id -u)" = 0 || echo sudo)

# The tests start some hundred interpreters, each of which would compile camboxes anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-code test-app test-faults lint types docs pictures installed chromium clean

demo: $(VENV)/.demo
	$(BIN)/camboxes demo

# The linters, the type checker and the site fill the time in which tests wait. The App's tests have the machine to
# themselves: beside others its pages raise errors of FiftyOne's own ("entry is loading").
test: $(VENV)/.test chromium
	$(MAKE) --jobs 2 test-code lint types docs
	$(BIN)/pytest tests/app

# In two processes, a file of tests in one of them; each computes on one core. Files keep their order: sorted by their
# number of tests, as xdist has them otherwise, those of a few long tests would be last, and one process would wait for
# the other.
test-code: $(VENV)/.test chromium
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/app

# The review alone: a real mongod, the real App, a real browser. make test runs these too.
test-app: $(VENV)/.test chromium
	$(BIN)/pytest tests/app tests/pipeline/review/test_fiftyone.py tests/pipeline/commands/test_review.py

# Jobs killed at any of their file operations and at any time, full disks, and what is wrong with files: make test has a
# short version of the first.
test-faults: $(VENV)/.test
	$(BIN)/pytest tests/pipeline/jobs/test_faults.py tests/pipeline/commands/test_hostile_inputs.py --fault-rounds 64

lint: installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/installed && $(abspath $(BIN))/lint-imports --config ../../pyproject.toml

types: installed
	cd build/installed && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p camboxes

# The site, build/site/index.html. A dead link, or a name that is not there, is an error (not with --quiet, by which mkdocs
# counts no warnings). Material announces its successor unless it is told not to.
docs: installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# The docs' pictures, and the notebook with its outputs: after a change to what they show.
pictures: $(VENV)/.test chromium
	$(BIN)/python docs/make_pictures.py
	$(BIN)/python examples/execute.py

# import-linter, mypy and mkdocs cannot follow the editable install's mapping of folders, so what they read is a plain one.
installed: $(VENV)/.test
	rm -rf build
	$(BIN)/pip install --quiet --no-deps --target build/installed .

# The report is tested in a real browser; playwright's own download of one is not used.
chromium:
	test -x /usr/bin/chromium || { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq chromium; }

# An editable install of the package with the extra that the stamp file is named after.
$(VENV)/.%: pyproject.toml setup.py constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_OPTIONS) --constraint constraints.txt --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) build demo
