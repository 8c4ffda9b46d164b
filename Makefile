# Everything a newcomer needs: `make run`, then `make load` in a second terminal.
#
# It asks for python3 (3.11 or later) and make, and keeps all it installs in .venv.
# PYTHON=python3.12 takes another interpreter.

PYTHON ?= python3
LISTEN ?= :8089
SECONDS ?= 60
# Test processes side by side: most tests wait for a program more than they use a core.
WORKERS ?= 4
# Or tests.again, which runs the few that failed on a busy machine once more.
PYTEST ?= pytest
# Of compiled code: 3 takes two minutes, 0 takes half a one and is for tests.
LEVEL ?= 3
# Where the Debian package is put.
DEBS ?= dist
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q install
# What to do when packages do not come; what pip says stands above it.
PIP_FAILED := { echo; \
	echo "The packages that RETTER needs could not be installed (see above). Most of the time:"; \
	echo "  no network, or a proxy:   PIP_PROXY=http://proxy.example:3128 make $(MAKECMDGOALS)"; \
	echo "  another package index:    PIP_INDEX_URL=https://pypi.example/simple make $(MAKECMDGOALS)"; \
	echo "  packages in a folder:     PIP_NO_INDEX=1 PIP_FIND_LINKS=/folder make $(MAKECMDGOALS)"; \
	echo "    (fill it where there is a network, with the same Python, by"; \
	echo "    pip download -d /folder 'setuptools>=77' h11 structlog uvloop lmdb isal)"; \
	echo "  a half-made environment:  make distclean, then again"; \
	exit 1; } >&2
# A port alone means all interfaces to RETTER, and this machine to who connects to it.
LOAD_URL ?= http://$(if $(filter :%,$(LISTEN)),127.0.0.1)$(LISTEN)

.DEFAULT_GOAL := help
.PHONY: help venv everything run wordpress load test lint types contracts check fuzz conformance lasting kills scaling simulate simulate-workers takeover overload crawl \
	compiled test-compiled slowloris abuse eviction bench bench-smoke bench-report bench-compare profile screenshots \
	reference deb deb-test deb-try tutorial-test site dist dist-test test-wheel requirements \
	clean distclean

help: ## list these targets
	@echo "make run                             the demonstration shop behind RETTER"
	@echo "make run UPSTREAM=:8080 LISTEN=:80   RETTER in front of your application"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# One stamp for each set of packages: installed again only when pyproject.toml has changed.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; try make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "This Python cannot make virtual environments; on Debian: apt install python3-venv"; exit 1; }
	@echo "Making the virtual environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-run: pyproject.toml | $(BIN)/python
	@echo "Installing RETTER ..."
	@$(PIP) -e '.[store]' || $(PIP) -e . || $(PIP_FAILED)
	@touch $@

$(VENV)/.stamp-test: pyproject.toml | $(BIN)/python
	@echo "Installing RETTER and what its tests need ..."
	@$(PIP) -e '.[test]' || $(PIP_FAILED)
	@touch $@ $(VENV)/.stamp-run

$(VENV)/.stamp-lint: pyproject.toml | $(BIN)/python
	@echo "Installing RETTER, what its tests need and the linters ..."
	@$(PIP) -e '.[test,lint]' || $(PIP_FAILED)
	@touch $@ $(VENV)/.stamp-test $(VENV)/.stamp-run

# It brings colorama, which structlog imports wherever it is: a test sees that RETTER has no idle modules.
$(VENV)/.stamp-site: pyproject.toml | $(BIN)/python
	@echo "Installing what makes the site ..."
	@$(PYTHON) -m venv $(VENV)/site
	@$(VENV)/site/bin/python -m pip --disable-pip-version-check -q install -e '.[site]' || $(PIP_FAILED)
	@touch $@

$(VENV)/.stamp-release: pyproject.toml | $(BIN)/python
	@echo "Installing RETTER and what makes a release ..."
	@$(PIP) -e '.[release]' || $(PIP_FAILED)
	@touch $@ $(VENV)/.stamp-run

$(VENV)/.stamp-fuzz: pyproject.toml | $(BIN)/python
	@echo "Installing RETTER, what its tests need and the fuzzer ..."
	@$(PIP) -e '.[test,fuzz]' || $(PIP_FAILED)
	@touch $@ $(VENV)/.stamp-test $(VENV)/.stamp-run

# A copy of everything with the modules of setup.py compiled: beside the source they would hide its
# next change.
COMPILED := $(VENV)/compiled
$(COMPILED)/.stamp: setup.py $(wildcard retter/*.py retter/*/*.py tests/*.py tests/*/*.py) | $(VENV)/.stamp-run
	@echo "Compiling RETTER at level $(LEVEL); at 3 that takes two minutes ..."
	@rm -rf $(COMPILED) && mkdir -p $(COMPILED)
	@tar --exclude=./.venv --exclude=./.git --exclude='./.*cache' --exclude=./.hypothesis --exclude=./build \
		--exclude=./benchmarks/results -cf - . | tar -xf - -C $(COMPILED)
	@cd $(COMPILED) && COMPILE_RETTER=$(LEVEL) ../bin/python -m pip --disable-pip-version-check -q wheel \
		--no-deps --wheel-dir wheel . && ../bin/python -m zipfile -e wheel/*.whl . && rm -rf build
	@touch $@

# REDbot wants other packages than the tests do, and is not needed for the rest.
$(VENV)/.stamp-redbot: | $(BIN)/python
	@echo "Installing REDbot ..."
	@$(PYTHON) -m venv $(VENV)/redbot
	@$(VENV)/redbot/bin/python -m pip --disable-pip-version-check -q install redbot || \
		echo "REDbot cannot be installed; what it checks is skipped"
	@touch $@

venv: $(VENV)/.stamp-run ## make the virtual environment

everything: $(VENV)/.stamp-lint ## install what the checks need, all at once

run: $(VENV)/.stamp-run ## run RETTER; without UPSTREAM= with the demonstration shop behind it
	@echo "This runs the source. The compiled RETTER takes half as long for a request: docs/performance.md#compiled"
ifdef UPSTREAM
	@exec $(BIN)/retter --listen $(LISTEN) --upstream $(UPSTREAM) $(ARGS)
else
	@exec $(BIN)/retter demo --with-proxy $(LISTEN) $(SHOP_STORE) $(ARGS)
endif

wordpress: $(VENV)/.stamp-run ## a WordPress with ten database connections on port 8080, to try RETTER on
	@exec $(BIN)/python -m benchmarks.overload.wordpress $(ARGS)

# What is stored outlives the demonstration, if the package for it could be installed.
SHOP_STORE = $$($(BIN)/python -c 'import lmdb' 2>/dev/null && echo --store $(VENV)/shop-store)

load: $(VENV)/.stamp-run ## overload what `make run` runs, for 10 seconds
	@exec $(BIN)/retter load $(LOAD_URL) $(ARGS)

# Where Python may write no bytecode, as in many containers, each of the hundreds of programs that the
# tests start would compile all its modules again: half of what it takes to start one.
test test-compiled: export PYTHONDONTWRITEBYTECODE =

test: $(VENV)/.stamp-test ## run the tests that each change needs; RELEASE=1: the long ones too
	$(BIN)/python -m $(PYTEST) -n $(WORKERS) --dist loadgroup $(if $(RELEASE),,-m "not release") $(ARGS)

compiled: $(COMPILED)/.stamp ## compile a copy of RETTER, in .venv/compiled

test-compiled: $(VENV)/.stamp-test $(COMPILED)/.stamp ## run the tests with RETTER compiled
	cd $(COMPILED) && ../bin/python -m $(PYTEST) -n $(WORKERS) --dist loadgroup $(ARGS)

lint: $(VENV)/.stamp-lint ## ruff (rules and format), codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.stamp-lint ## mypy --strict and pyright
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

contracts: $(VENV)/.stamp-lint ## which module may import which
	$(BIN)/lint-imports

check: RELEASE = 1
check: test lint types contracts ## everything that must pass

fuzz: $(VENV)/.stamp-fuzz ## any bytes from either side, for SECONDS=60
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

conformance: $(VENV)/.stamp-test $(VENV)/.stamp-redbot ## RFC 9111 and other people's programs, as a table
	$(BIN)/python -m tests.conformance $(ARGS)

lasting: $(VENV)/.stamp-test ## what the store on disk costs and survives
	@exec $(BIN)/python -m benchmarks.lasting $(ARGS)

kills: $(VENV)/.stamp-test ## 100 times `kill -9` in a storm of writes to the store on disk, and damaged copies
	@exec $(BIN)/python -m benchmarks.lasting --kills 100 --mib 0 $(ARGS)

simulate: $(VENV)/.stamp-run ## the breaker against simulated applications
	$(BIN)/python -m benchmarks.simulation $(ARGS)

simulate-workers: $(VENV)/.stamp-run ## the same with one worker, two and four side by side
	$(BIN)/python -m benchmarks.simulation.side_by_side $(ARGS)

scaling: $(VENV)/.stamp-run ## what several workers carry of what one does
	@exec $(BIN)/python -m benchmarks.scaling $(ARGS)

takeover: $(VENV)/.stamp-run ## what visitors get while one process follows another
	@exec $(BIN)/python -m benchmarks.overload.takeover $(ARGS)

overload: $(VENV)/.stamp-run ## RETTER and its peers under overload, over real sockets
	$(BIN)/python -m benchmarks.overload $(ARGS)

crawl: $(VENV)/.stamp-run ## a crawler at the shop: what visitors get, with fairness off and on
	@$(BIN)/python -m benchmarks.overload.crawl --show --peer "retter --fairness off" --peer retter $(ARGS)

slowloris: $(VENV)/.stamp-run ## normal visitors beside 10,000 slow heads
	$(BIN)/python -m benchmarks.slowloris $(ARGS)

abuse: $(VENV)/.stamp-run ## what abuse costs, beside nginx (ARGS=--write: benchmarks/abuse.md)
	$(BIN)/python -m benchmarks.abuse $(ARGS)

eviction: $(VENV)/.stamp-run ## what stays in a full store, beside LRU (ARGS=--write: benchmarks/eviction.md)
	$(BIN)/python -m benchmarks.eviction $(ARGS)

bench: $(VENV)/.stamp-run $(COMPILED)/.stamp ## what a request costs, beside the peers (ARGS="--quick")
	$(BIN)/python -m benchmarks.perf run $(ARGS)

bench-smoke: $(VENV)/.stamp-run ## the same in a minute, failing on errors only
	$(BIN)/python -m benchmarks.perf run --smoke $(ARGS)

bench-report: $(VENV)/.stamp-run ## write benchmarks/README.md from RESULT= or the newest result
	$(BIN)/python -m benchmarks.perf report $(RESULT)

bench-compare: $(VENV)/.stamp-run ## compare results A= and B=
	$(BIN)/python -m benchmarks.perf compare $(A) $(B)

profile: $(VENV)/.stamp-run ## flame graphs and allocations in benchmarks/results
	$(BIN)/python -m benchmarks.perf profile $(ARGS)

screenshots: $(VENV)/.stamp-test ## take the pictures of the dashboard in docs/ (needs Chromium)
	$(BIN)/python -m benchmarks.screenshots

reference: $(VENV)/.stamp-test ## write docs/settings.md, docs/metrics.md and docs/man/retter.1 from what is declared
	$(BIN)/python -m docs.reference

dist: $(VENV)/.stamp-release ## make sdist, pure wheel and a compiled manylinux wheel in dist/ (LEVEL=3)
	@rm -rf $(VENV)/dist && mkdir -p $(VENV)/dist dist
	@echo "Source distribution and pure wheel ..."
	@$(BIN)/python -m build -o dist . >$(VENV)/dist/build.log || { cat $(VENV)/dist/build.log; exit 1; }
	@echo "Compiled wheel at level $(LEVEL); at 3 that takes two minutes ..."
	@tar -xzf dist/retter-*.tar.gz -C $(VENV)/dist
	@cd $(VENV)/dist/retter-*/ && COMPILE_RETTER=$(LEVEL) ../../bin/python -m pip --disable-pip-version-check -q \
		wheel --no-deps --wheel-dir ../wheel .
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel -v repair -w dist $(VENV)/dist/wheel/*.whl 2>$(VENV)/dist/repair.log || \
		{ cat $(VENV)/dist/repair.log; exit 1; }
	@ls dist

dist-test: dist ## make those, and install the compiled wheel into a fresh environment, and try it
	@$(PYTHON) -m venv --clear $(VENV)/dist/fresh
	@$(VENV)/dist/fresh/bin/python -m pip --disable-pip-version-check -q install dist/*manylinux*.whl
	@cd / && $(CURDIR)/$(VENV)/dist/fresh/bin/retter --version | tee /dev/stderr | grep -q compiled

test-wheel: dist ## the whole test suite against the compiled wheel, installed into a fresh environment (LEVEL=0: quicker)
	@rm -rf $(VENV)/dist/tested && mkdir -p $(VENV)/dist/tested
	@tar -xzf dist/retter-*.tar.gz -C $(VENV)/dist/tested --strip-components=1
	@rm -r $(VENV)/dist/tested/retter
	@$(PYTHON) -m venv --clear $(VENV)/dist/fresh
	@$(VENV)/dist/fresh/bin/python -m pip --disable-pip-version-check -q install "$$(echo dist/*manylinux*.whl)[test]"
	cd $(VENV)/dist/tested && ../fresh/bin/python -m $(PYTEST) -n $(WORKERS) --dist loadgroup $(ARGS)

requirements: $(VENV)/.stamp-release ## pin what packages and the container install, with hashes: deploy/requirements.txt
	CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/pip-compile -q --generate-hashes --extra metrics \
		--extra compress --extra store --extra shared --no-emit-index-url --no-emit-trusted-host \
		--no-emit-find-links --strip-extras --allow-unsafe --upgrade --output-file deploy/requirements.txt pyproject.toml

site: $(VENV)/.stamp-site ## write the documentation as a site into site/
	@NO_MKDOCS_2_WARNING=1 $(VENV)/site/bin/mkdocs build --clean

deb: ## make the Debian package in dist/ (or DEBS=); compiled at LEVEL=3, or not at all with LEVEL=plain
	@/usr/bin/python3 deploy/debian/build.py --level $(LEVEL) --output $(DEBS)

deb-test: $(VENV)/.stamp-test ## make that package in .venv/deb, install it below a folder, start and purge it
	@rm -rf $(VENV)/deb
	@$(MAKE) --no-print-directory deb DEBS=$(VENV)/deb
	@$(MAKE) --no-print-directory deb-try

deb-try: $(VENV)/.stamp-test ## install the package in .venv/deb below a folder, start and purge it
	RETTER_DEB=$$(echo $(CURDIR)/$(VENV)/deb/*.deb) $(BIN)/python -m pytest -q tests/deploy/test_debian.py $(ARGS)

tutorial-test: $(VENV)/.stamp-test ## run the commands of docs/tutorial.md, on a WordPress
	RETTER_TUTORIAL=1 $(BIN)/python -m pytest -q tests/docs/test_tutorial.py $(ARGS)

clean: ## remove caches and what was built
	rm -rf build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -rf .import_linter_cache .fuzz benchmarks/results
	find retter benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## and the virtual environment
	rm -rf $(VENV)
