# Everything happens in .venv, made here on first use. Needs Python >= 3.11 and pip, nothing else.
#   make demo         ask the built-in model about an example PDF
#   make test         lint, types and tests
#   make test-compat  the engine's tests with the oldest transformers that is supported
#   make test-gpu     kernels and engine on a CUDA device, against float64 and the CPU
#   make kernels-report  registers, shared memory and spills of every Triton kernel on every card
#   make clean        remove what these targets made

BIN := .venv/bin
COMPAT := .venv-compat/bin
QUESTION := What is the special magic number for vague-harbor mentioned in the provided text?

# The first interpreter on the path that is new enough and can make environments.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
  $(shell $(name) -c 'import sys, venv, ensurepip; print("$(name)" if sys.version_info >= (3, 11) else "")' 2>/dev/null)))

.PHONY: demo test lint types pytest test-compat test-gpu kernels-report clean

demo: .venv/.installed
	$(BIN)/infllm ask examples/field-report.pdf "$(QUESTION)"

test: lint types pytest

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev typings/infllm
	$(BIN)/mypy

pytest: .venv/.installed-dev
	$(BIN)/pytest

test-compat: .venv-compat/.installed
	$(COMPAT)/pytest tests/engine

# With PYTHON_GPU=python3, say, on a machine whose own Python has torch for its GPU.
PYTHON_GPU ?= $(BIN)/python

test-gpu: $(if $(findstring $(BIN),$(PYTHON_GPU)),.venv/.installed-dev)
	@$(PYTHON_GPU) -c "import sys, torch; torch.cuda.is_available() or sys.exit('error: this torch sees no CUDA device')"
	$(PYTHON_GPU) -m pytest tests/gpu

kernels-report: .venv/.installed-dev
	$(BIN)/python -m infllm.kernels.report

.venv .venv-compat:
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 with venv found" >&2; \
	  echo "hint: install one (on Debian and Ubuntu also python3-venv), or: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $@

# An install is repeated when what it installs changed.
.venv/.installed: pyproject.toml constraints.txt | .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ .venv/.installed

.venv-compat/.installed: pyproject.toml constraints.txt | .venv-compat
	$(COMPAT)/python -m pip install --quiet -c constraints.txt -e '.[dev]' 'transformers==5.14.*'
	@touch $@

# The folders of this repository under the names they are imported by, for type checkers.
typings/infllm:
	mkdir -p $@
	ln -sfn ../../infllm_cli $@/cli
	ln -sfn ../../engine $@/engine
	ln -sfn ../../kernels $@/kernels
	ln -sfn ../../presets $@/presets

clean:
	rm -rf .venv .venv-compat typings/infllm build dist *.egg-info
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
