# What a person types. `make picture PROMPT="a red heart"` and `make check` work on a fresh machine.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(shell find protos -name '*.proto')
STUBS := $(VENV)/.stamp-protos

.PHONY: protos protos-check protos-baseline
protos: $(STUBS)            ## build the typed stubs of protos/

$(STUBS): $(PROTOS) client/build_stubs.py
	$(BIN)/python client/build_stubs.py
	@touch $@

protos-check:               ## lint the contract and refuse breaking changes against the committed baseline
	$(BIN)/buf lint protos
	$(BIN)/buf breaking protos --against protos/baseline.binpb

protos-baseline:            ## publish the contract as it stands as the new baseline
	$(BIN)/buf build protos --exclude-source-info -o protos/baseline.binpb
