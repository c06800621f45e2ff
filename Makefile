# Needs Python 3.11 or newer and nothing else; the rest goes into .venv.
#
#   make run         set everything up and play the bundled clip through the daemon
#   make test        the tests
#   make check       tests, lint, types, layers and the wheel: what CI runs
#   make demo-clip   build the bundled clip anew
#   make clean       remove what was built (.venv stays)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test check lint types layers wheel demo-clip clean
.DELETE_ON_ERROR:

run: $(VENV)/.run
	@$(BIN)/perceiverd demo

test: $(VENV)/.dev
	@$(BIN)/pytest

lint: $(VENV)/.dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(VENV)/.dev
	@$(BIN)/mypy

layers: $(VENV)/.dev
	@$(BIN)/lint-imports

# The wheel in a folder of its own, run from the root folder, so that nothing of this one is found.
wheel: $(VENV)/.dev
	@rm -rf build/wheel
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	@$(INSTALL) --no-deps --target build/wheel/installed build/wheel/*.whl
	@cd / && PYTHONPATH=$(CURDIR)/build/wheel/installed $(CURDIR)/$(BIN)/python -m perceiverd --help >/dev/null
	@cd / && PYTHONPATH=$(CURDIR)/build/wheel/installed $(CURDIR)/$(BIN)/python -m perceiverd models info
	@ls -l build/wheel/*.whl

check: test lint types layers wheel

demo-clip: $(VENV)/.dev
	@$(BIN)/python configs/demo/build.py

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find perceiverd tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "perceiverd needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@# Debian keeps venv's own pip in a package apart.
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y python3-venv; } || \
	    { echo "python3 has no venv: install it (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml
	@echo "installing perceiverd into $(VENV) (the first time takes a few minutes)"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	@echo "installing perceiverd and its tools into $(VENV) (the first time takes a few minutes)"
	@$(INSTALL) --editable '.[dev]'
	@# Some tests want a real MQTT broker and promtool, and are skipped where there is none. Both packages bring services;
	@# in a container nothing starts them, elsewhere whoever wants them installs them.
	@{ command -v mosquitto && command -v promtool || \
	    { [ "$$(id -u)" = 0 ] && [ ! -d /run/systemd/system ] && command -v apt-get && apt-get update -qq && \
	      DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends mosquitto prometheus; }; } \
	    >/dev/null 2>&1 || true
	@# Others hear a real sound server through PortAudio.
	@{ command -v pulseaudio && command -v pactl && ls /usr/lib/*/libportaudio.so.2 /usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so || \
	    { [ "$$(id -u)" = 0 ] && [ ! -d /run/systemd/system ] && command -v apt-get && apt-get update -qq && \
	      DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	      libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins alsa-utils; }; } >/dev/null 2>&1 || true
	@touch $(VENV)/.run $@
