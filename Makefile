# Two commands for everyone: `make course` and `make test`. Neither needs more
# than Python 3.11 to 3.13 and git; what is missing goes into .venv.

PYTHON ?= $(shell for p in python3 python python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
SAMPLE := _build/sample-class
export PYTHONUTF8 := 1

.PHONY: help setup course site pdf links sample test lint pins clean

help:
	@echo "make course  build the book, release the notebooks, grade a sample class"
	@echo "make test    run every test"
	@echo "make site    build the book alone, into _build/html"
	@echo "make pdf     print the book into _build/book.pdf, by a browser"
	@echo "make links   ask the network whether the book's links lead somewhere"
	@echo "make lint    check the style of the code"
	@echo "make pins    renew requirements.txt"
	@echo "make clean   remove what was built (never course/, which holds grades)"

setup: .venv/ready

.venv/ready: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: needs Python 3.11, 3.12 or 3.13" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

course: site
	$(BIN)/python -m autograder release
	@$(MAKE) --no-print-directory sample
	@echo
	@echo "The book:       _build/html/book/index.html"
	@echo "The notebooks:  course/release/, and for students course/student-bundle.zip"
	@echo "The feedback:   $(SAMPLE)/feedback/"

site: setup
	$(BIN)/jupyter-book build -n -W .

pdf: site
	$(BIN)/python -m autograder.print

links: setup
	$(BIN)/jupyter-book build -n -W --builder linkcheck .

sample: setup
	$(BIN)/python -m autograder sample --course $(SAMPLE)
	$(BIN)/python -m autograder grade --course $(SAMPLE)
	$(BIN)/python -m autograder feedback --course $(SAMPLE)
	$(BIN)/python -m autograder report --course $(SAMPLE)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# CUDA's packages are left out: PyTorch's own wheel asks for what it needs.
pins: setup
	@$(BIN)/python -m pip install --quiet uv
	@{ echo "# Every package of the course, pinned. Renewed by: make pins"; \
	$(BIN)/uv pip compile pyproject.toml --extra course --universal --upgrade \
		--python-version 3.11 --no-annotate --no-header --quiet \
		| grep -vE '^(nvidia-|cuda-|triton)'; } > .requirements.new
	@mv .requirements.new requirements.txt

clean:
	rm -rf _build
