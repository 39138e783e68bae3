# Every target installs its dependencies at its first run, and nothing afterwards.
PYTHON ?= python3
BIN := .venv/bin
# A module is compiled when it is first imported: that of all that is installed takes a minute.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt

.PHONY: run test soak soak-kills check demo train screenshots bench format clean
.DELETE_ON_ERROR:

run: .venv/run.stamp  ## start API, two workers and the embedded Valkey; Ctrl-C stops them all
	@exec $(BIN)/python -m app.up

test: .venv/test.stamp docs/portable/node_modules/stamp  ## run all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

soak: soak-kills soak-fuzz soak-faults soak-callers soak-uploads  ## wear the service out (docs/soak.md), half an hour

soak-kills: .venv/test.stamp  # twenty kills, instead of the four of make test
	DIFFUSION_TEST_KILLS_EACH=5 $(BIN)/python -m pytest tests/worker/test_kills.py

soak-%: .venv/test.stamp
	$(BIN)/python -m pytest --capture=no tests/soak/test_$*.py

check: .venv/check.stamp  ## check style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: .venv/demo.stamp  ## run the whole loop on the digits, results in demo/; MINUTES=3 for a better model
	MINUTES=$(MINUTES) $(BIN)/python examples/demo.py

train: .venv/demo.stamp  ## ARCHIVE=images.zip MINUTES=25: train on an archive and evaluate, results in demo/archive
	$(BIN)/python examples/train_archive.py $(ARCHIVE) --minutes $(or $(MINUTES),25)

screenshots: .venv/test.stamp  ## take pictures of the console, into docs/images/console
	$(BIN)/python examples/screenshots.py

bench: bench-noise bench-denoise bench-sample bench-serve bench-flood bench-orders bench-console bench-train bench-quality  ## measure beside peers, results in benchmarks/results

bench-gpu: .venv/test.stamp benchmarks/.venv/stamp  ## ARCHIVE=images.zip: on a GPU, its tests and all of these in eight minutes
	$(BIN)/python -m benchmarks.gpu $(if $(ARCHIVE),--photographs $(ARCHIVE))

bench-%: .venv/test.stamp benchmarks/.venv/stamp
	$(BIN)/python -m benchmarks.$*

bench-flood bench-orders bench-console: bench-%: .venv/test.stamp  # without peers
	$(BIN)/python -m benchmarks.$*

bench-quality: .venv/demo.stamp  # its classifier needs scikit-learn

format: .venv/check.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the output of these targets, except ./data
	rm -rf .venv benchmarks/.venv docs/portable/node_modules demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/run.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[train]'
	$(BIN)/python -c 'import app.server, worker.main, worker.train_job'  # once, not in each process of the first start
	@touch $@

.venv/test.stamp: .venv/run.stamp
	$(PIP) --editable '.[test]'
	@touch $@

.venv/check.stamp: .venv/test.stamp
	$(PIP) --editable '.[test,check]'
	@touch $@

# Only the tests of this page need it; they are skipped where there is no npm.
docs/portable/node_modules/stamp: docs/portable/package.json
	if command -v npm > /dev/null; then npm install --prefix docs/portable --no-package-lock --no-audit --no-fund --silent && touch $@; fi

benchmarks/.venv/stamp: benchmarks/peers/requirements.txt constraints.txt
	$(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/python -m pip --disable-pip-version-check install --quiet --no-compile \
		--constraint constraints.txt --requirement benchmarks/peers/requirements.txt
	cd benchmarks/peers && ../.venv/bin/python import_all.py
	@touch $@

.venv/demo.stamp: .venv/run.stamp
	$(PIP) --editable '.[demo]'
	@touch $@
