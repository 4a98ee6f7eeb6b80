# Everything a fresh clone needs: `make demo` shows the whole job, `make test` checks the code. See CONTRIBUTING.md.
# No path is absolute, so that a folder with spaces in its name works.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

# The interpreter that the virtual environment is made with; `make PYTHON=/path/to/python test` overrides the choice.
PYTHON ?=
PIP_QUIET := -qq
PIP_INSTALL = .venv/bin/python -m pip install $(PIP_QUIET) --disable-pip-version-check --constraint constraints.txt
INSTALLED := .venv/.installed

.PHONY: help install demo experts smoke test lint style types layers format clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile | while IFS=: read -r target text; do printf '  make %-8s %s\n' "$$target" "$$text"; done

install: $(INSTALLED) ## make .venv with every dependency pinned

demo: $(INSTALLED) ## the whole job on real text, seven to fifteen minutes on two cores; run again, it continues
	.venv/bin/raysplit run search_spaces/quickstart.yaml --out runs/quickstart --baselines --yes

EXPERTS := runs/experts
EXPERTS_TASKS := held-out,made,lambada,hellaswag,arc_easy,piqa
experts: $(INSTALLED) ## from unlabelled text to routed experts on benchmarks, about twelve minutes on two cores; run again, it continues
	.venv/bin/raysplit run search_spaces/experts.yaml --out $(EXPERTS) --baselines --yes
	.venv/bin/raysplit controls $(EXPERTS) --yes
	printf 'def add(a, b):\n    return a + b\nAnd the king said unto the people\nCC(=O)Oc1ccccc1\n' | \
	  .venv/bin/raysplit route $(EXPERTS) --text - --lines
	.venv/bin/raysplit eval $(EXPERTS) $(EXPERTS)/controls/labels $(EXPERTS)/controls/random \
	  --variants --tasks $(EXPERTS_TASKS) --limit 20
	.venv/bin/raysplit report $(EXPERTS)

smoke: $(INSTALLED) ## the same path through the code in a few minutes, from scratch each time
	rm -rf runs/smoke
	.venv/bin/raysplit run search_spaces/smoke.yaml --out runs/smoke --baselines --yes

test: lint ## static checks, then the tests
	.venv/bin/python -m pytest --numprocesses 2 --dist loadscope --durations 40 $(PYTEST_ARGS)

PROOFS := tests/ray/test_interrupted.py tests/ray/test_live_actor.py
.PHONY: proofs
proofs: $(INSTALLED) ## tests that repeat what they prove as often as a report asks for, longer than a suite may take
	RAYSPLIT_LONG_TESTS=1 .venv/bin/python -m pytest --durations 10 $(PROOFS)

lint: style types layers ## every static check

style: $(INSTALLED) ## lint and format
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .

types: $(INSTALLED) ## mypy
	.venv/bin/python -m mypy

layers: $(INSTALLED) ## which room may import which
	.venv/bin/lint-imports --no-logo

format: $(INSTALLED) ## rewrite the code as `style` wants it
	.venv/bin/python -m ruff check --fix .
	.venv/bin/python -m ruff format .

.PHONY: docs
docs: $(INSTALLED) ## write the pages of the reference and build the site into site/
	.venv/bin/python -m docs.generate
	.venv/bin/python -m mkdocs build --strict --quiet

clean: ## remove .venv, caches and build output; runs/ stays
	rm -rf .venv site .pytest_cache .hypothesis .ruff_cache .mypy_cache .import_linter_cache build dist ./*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Runs again when a dependency changes. The stamp is written last, so that an interrupted set-up is taken up again.
$(INSTALLED): pyproject.toml constraints.txt
	@set -eu; \
	python='$(PYTHON)'; \
	if [ -z "$$python" ]; then \
	  for candidate in python3.11 python3.12 python3 python; do \
	    if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then \
	      python=$$candidate; break; \
	    fi; \
	  done; \
	fi; \
	if [ -z "$$python" ]; then \
	  echo "raysplit needs Python 3.11 or 3.12; none is on PATH (python3 is $$(python3 -V 2>&1 || true))." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'; then \
	  echo "raysplit needs Python 3.11 or 3.12; $$python is $$("$$python" -V 2>&1)." >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo "$$python cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	fi; \
	if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then \
	  echo "Making .venv with $$("$$python" -V) ..."; \
	  "$$python" -m venv --clear .venv; \
	fi; \
	echo "Installing pinned packages into .venv (usually 2 to 4 minutes, once; about 2 GB) ..."; \
	$(PIP_INSTALL) pip && \
	$(PIP_INSTALL) --build-constraint constraints.txt --editable '.[train,import,report,serve,docs,dev]' || { \
	  echo "pip could not install the packages. Run it again, it goes on; \`make install PIP_QUIET=\` shows why." >&2; exit 1; }; \
	touch $@; \
	echo "Installed."
