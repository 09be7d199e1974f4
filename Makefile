# Environments are made here on first use. Needs Python >= 3.11 and pip, nothing else.
#   make demo         ask the built-in model about an example PDF
#   make test         lint, types and tests, with the packages that constraints.txt names
#   make check        lint, types and the tests that load no model: the inner loop
#   make test-newest  the tests with the newest release of every package
#   make test-oldest  the tests with the oldest releases that pyproject.toml admits
#   make constraints  constraints.txt anew, from the newest release of every package
#   make test-gpu     kernels and engine on a CUDA device, against float64 and the CPU
#   make kernels-report  registers, shared memory and spills of every Triton kernel on every card
#   make clean        remove what these targets made

BIN := .venv/bin
QUESTION := What is the special magic number for vague-harbor mentioned in the provided text?

# More processes than this gain nothing: the longest test files set the time.
PYTEST := -m pytest -q -n auto --maxprocesses 4 --dist worksteal
# Tests that need neither torch, a model nor processes of their own.
LIGHT := $(addprefix tests/,house/test_rooms.py house/test_circles.py house/test_environment.py \
  cli/test_text.py presets engine/test_config.py $(addprefix cli/documents/test_,document.py \
  encoding.py plain.py html.py docx.py pagetext.py running.py hyphens.py))

# The first interpreter on the path that is new enough and can make environments.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
  $(shell $(name) -c 'import sys, venv, ensurepip; print("$(name)" if sys.version_info >= (3, 11) else "")' 2>/dev/null)))

.PHONY: demo test check lint types pytest test-newest test-oldest constraints test-gpu \
  kernels-report clean

demo: .venv/.installed
	$(BIN)/infllm ask examples/field-report.pdf "$(QUESTION)"

test: lint types pytest

check: lint types
	$(BIN)/python $(PYTEST) $(LIGHT)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev typings/infllm
	$(BIN)/mypy

pytest: .venv/.installed-dev
	$(BIN)/python $(PYTEST)

# Those tests that hold what constraints.txt says are of one environment alone: -m 'not pinned'.
test-newest: .venv-newest/.installed
	.venv-newest/bin/python -m pip list
	.venv-newest/bin/python $(PYTEST) -m 'not pinned'

test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/python -m pip list
	.venv-oldest/bin/python $(PYTEST) -m 'not pinned'

# Another torch means gigabytes and another triton (its wheel for CUDA names which): by hand, as in
# make constraints TORCH=2.14.1 TRITON=3.8.0
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)
TRITON ?= $(shell sed -n 's/^triton==//p' constraints.txt)

constraints:
	rm -rf .venv-constraints
	$(MAKE) .venv-constraints
	$(call install,.venv-constraints,'torch==$(TORCH)' 'triton==$(TRITON)',.[dev])
	.venv-constraints/bin/python -m tests.house.environment installed > constraints.new
	mv constraints.new constraints.txt
	rm -rf .venv-constraints

# With PYTHON_GPU=python3, say, on a machine whose own Python has torch for its GPU.
PYTHON_GPU ?= $(BIN)/python

test-gpu: $(if $(findstring $(BIN),$(PYTHON_GPU)),.venv/.installed-dev)
	@$(PYTHON_GPU) -c "import sys, torch; torch.cuda.is_available() or sys.exit('error: this torch sees no CUDA device')"
	OMP_NUM_THREADS=1 $(PYTHON_GPU) -m pytest tests/gpu

kernels-report: .venv/.installed-dev
	$(BIN)/python -m infllm.kernels.report

.venv .venv-newest .venv-oldest .venv-constraints:
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 with venv found" >&2; \
	  echo "hint: install one (on Debian and Ubuntu also python3-venv), or: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $@

# $(1): environment, $(2): what else to ask for or hold to, $(3): this project, with its extras.
# Without isolation, or the newest setuptools would build it whatever the constraints say.
install = $(1)/bin/python -m pip install --quiet $(2) 'setuptools>=77' && \
  $(1)/bin/python -m pip install --quiet $(2) --no-build-isolation -e '$(3)'

# An install is repeated when what it installs changed.
.venv/.installed: pyproject.toml constraints.txt | .venv
	$(call install,.venv,-c constraints.txt,.)
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv
	$(call install,.venv,-c constraints.txt,.[dev])
	@touch $@ .venv/.installed

.venv-newest/.installed: pyproject.toml | .venv-newest
	$(call install,.venv-newest,--upgrade --upgrade-strategy eager,.[dev])
	@touch $@

.venv-oldest/.installed: pyproject.toml | .venv-oldest
	$(PYTHON) -m tests.house.environment oldest > .venv-oldest/constraints.txt
	$(call install,.venv-oldest,-c .venv-oldest/constraints.txt,.[dev])
	@touch $@

# The folders of this repository under the names they are imported by, for type checkers.
typings/infllm:
	mkdir -p $@
	ln -sfn ../../infllm_cli $@/cli
	ln -sfn ../../engine $@/engine
	ln -sfn ../../kernels $@/kernels
	ln -sfn ../../presets $@/presets

clean:
	rm -rf .venv .venv-* typings/infllm build dist *.egg-info constraints.new
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
