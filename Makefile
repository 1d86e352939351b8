# The doors of a checkout. `make` alone names them.
.PHONY: help start test check demo bench fuzz sim crash clean
.DEFAULT_GOAL := help
BIN := .venv/bin
ARGS ?=
ONLY ?=
# Laws of decoders: whatever the bytes, they are read or refused with one error.
FUZZ_TESTS := "fuzz or any_bytes or junk or damaged or mutated or hostile or one_error or tampered"

help:
	@echo "make start   set everything up, start a node on port 4943 with its data in ./cannery-data"
	@echo "make test    set everything up, run every check and test"
	@echo "make check   format, lint, types and floors only"
	@echo "make demo    a node with people, conversations and a canister of one's own in it"
	@echo "make bench   measure, beside the limits of this machine; ONLY=updates for one bench"
	@echo "make fuzz    throw random input at every decoder, longer than the tests do"
	@echo "make sim     run seeds of the simulator: SEEDS=N FROM=n, or one of them step by step: SEED=n"
	@echo "make crash   kill a real node under load, again and again: CYCLES=N"
	@echo "make clean   remove what make made (not ./cannery-data)"
	@echo "ARGS=...     more arguments, as in: make start ARGS='--port 5000'"

start:
	@.ci/prepare run
	@exec $(BIN)/cannery start $(ARGS)

test:
	@.ci/prepare test
	@$(MAKE) --no-print-directory check
	@echo "cannery: tests"
	@PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

check:
	@.ci/prepare test
	@echo "cannery: format and lint"
	@$(BIN)/ruff format --check src tests bench examples
	@$(BIN)/ruff check src tests bench examples
	@echo "cannery: types"
	@$(BIN)/mypy
	@echo "cannery: floors"
	@PYTHONPATH=src $(BIN)/lint-imports

demo:
	@.ci/prepare run
	@exec $(BIN)/cannery demo $(ARGS)

bench:
	@.ci/prepare test
	@exec $(BIN)/python -m bench $(ONLY) $(ARGS)

fuzz:
	@.ci/prepare test
	@echo "cannery: fuzz (FUZZ_EXAMPLES=N for more or fewer than 2000 a law)"
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -n 2 tests -k $(FUZZ_TESTS) $(ARGS)

sim:
	@.ci/prepare test
	@exec $(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED),$(if $(SEEDS),--seeds $(SEEDS)) $(if $(FROM),--from $(FROM))) $(ARGS)

crash:
	@.ci/prepare test
	@exec $(BIN)/python -m tests.crash $(if $(CYCLES),--cycles $(CYCLES)) $(ARGS)

clean:
	rm -rf .venv tests/clients/js/node_modules tests/clients/js/canisters/node_modules .hypothesis .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist build
	find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
