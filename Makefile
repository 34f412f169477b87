# moetool: `make help` lists the targets.

CC ?= cc
CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
NVCC ?= $(or $(shell command -v nvcc),/usr/local/cuda/bin/nvcc)
SAN ?=
CUDA ?=
T ?=
ONLY ?=

VARIANT := $(or $(SAN),release)$(if $(CUDA),-cuda)
B := build/$(VARIANT)

WARN := -Wall -Wextra -Wpedantic -Wconversion -Werror
# No contraction: every ISA variant of a kernel gives the same bits.
BASE_FLAGS := -std=c11 -D_DEFAULT_SOURCE -D_POSIX_C_SOURCE=200809L -I. $(WARN) \
	-fno-math-errno -ffp-contract=off -MMD -MP -pthread
LIBS := -lopenblas -llapacke -lzstd -lpcre2-8 -lutf8proc -lm -pthread

ifeq ($(SAN),asan)
SAN_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1
else ifeq ($(SAN),tsan)
SAN_FLAGS := -fsanitize=thread -O1
else ifeq ($(SAN),fuzz)
SAN_FLAGS := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -O1
endif

ARCH := $(shell uname -m)
LIB_SRC := $(sort $(wildcard lib/*/*.c lib/*/*/*.c passes/*.c passes/*/*.c formats/*.c kernels/*.c \
	kernels/ref/*.c kernels/cpu/*.c))
ifneq ($(ARCH),x86_64)
LIB_SRC := $(filter-out %_avx2.c %_avx512.c,$(LIB_SRC))
endif
CMD_SRC := $(sort $(wildcard cmd/*.c))
TEST_SRC := $(sort $(wildcard tests/*/test_*.c))
TEST_LIB_SRC := $(sort $(wildcard tests/*.c))

LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
ifdef CUDA
CUDA_SRC := $(sort $(wildcard kernels/cuda/*.cu))
LIB_OBJ += $(CUDA_SRC:%.cu=$(B)/%.cu.o)
NVCC_FLAGS := -std=c++17 -O2 -I. -MMD -MP -Xcompiler -Wall,-Wextra \
	-gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 \
	-gencode arch=compute_90,code=compute_90
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(NVCC))
CUDA_LIB := $(firstword $(wildcard $(CUDA_HOME)/lib64 $(CUDA_HOME)/targets/$(ARCH)-linux/lib))
LIBS += -L$(CUDA_LIB) -Wl,-rpath,$(CUDA_LIB) -lcublas -lcudart -lstdc++
else
LIB_OBJ += $(B)/kernels/cuda/absent.o
endif

# Programs compile against them with -I$(PREFIX)/include/moetool.
PUBLIC_HEADERS := $(sort $(wildcard lib/*/*.h kernels/*.h))

.PHONY: all help test bench demo install uninstall check asan tsan fuzz fuzz-short clean
all: $(B)/moetool
	@ln -sfn $(VARIANT) build/current

help:
	@echo "make                  build build/release/moetool"
	@echo "make test             build and run the tests (T=room/name runs one file, ONLY=word some of it)"
	@echo "make demo             convert the model that comes with the repository and compare"
	@echo "make bench             timings of the kernels"
	@echo "make check            format, layers, tables, clang-tidy, cppcheck"
	@echo "make asan | tsan      the tests under sanitizers"
	@echo "make fuzz             the fuzz targets under libFuzzer (FUZZ_SECONDS=60 each, needs clang)"
	@echo "make fuzz-short       their seeds and a few seconds of changed copies (FUZZ_SHORT_SECONDS=4)"
	@echo "make CUDA=1           build with the CUDA device"
	@echo "make install PREFIX=  program, library, headers, man page (default /usr/local; DESTDIR works)"
	@echo "make clean            remove build/"

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(BASE_FLAGS) $(CFLAGS) $(KERNEL_FLAGS) $(SAN_FLAGS) -c $< -o $@

# No trapping maths: comparisons may become masks. No psabi: vectors stay within their file.
# Neither changes a value.
KERNEL_BASE := -O3 -fno-trapping-math -Wno-psabi
$(B)/kernels/%.o: KERNEL_FLAGS = $(KERNEL_BASE)
$(B)/kernels/cpu/%_avx2.o: KERNEL_FLAGS = $(KERNEL_BASE) -mavx2 -mf16c
$(B)/kernels/cpu/%_avx512.o: KERNEL_FLAGS = $(KERNEL_BASE) -mavx2 -mf16c -mavx512f -mavx512bw \
	-mavx512dq -mavx512vl -mprefer-vector-width=512

$(B)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -c $< -o $@

$(B)/libmoetool.a: $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $(LIB_OBJ)

$(B)/moetool: $(CMD_SRC:%.c=$(B)/%.o) $(B)/libmoetool.a
	$(CC) $(SAN_FLAGS) -o $@ $^ $(LIBS)

$(B)/tests/bench/%: $(B)/tests/bench/%.o $(B)/tests/bench/yardstick.o $(B)/libmoetool.a
	$(CC) $(SAN_FLAGS) -o $@ $^ $(LIBS)

$(B)/tests/%: $(B)/tests/%.o $(TEST_LIB_SRC:%.c=$(B)/%.o) $(B)/libmoetool.a
	$(CC) $(SAN_FLAGS) -o $@ $^ $(LIBS)

# Programs that other programs are compared with; each has its own main.
$(B)/tests/interop/%: $(B)/tests/interop/%.o $(B)/tests/toy.o $(B)/libmoetool.a
	$(CC) $(SAN_FLAGS) -o $@ $^ $(LIBS)

# Fuzz targets: under libFuzzer (make fuzz), or with a main that replays a corpus.
FUZZ := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 60
FUZZ_SHORT_SECONDS ?= 4
FUZZ_MAIN := $(if $(filter fuzz,$(SAN)),,$(B)/tests/fuzz/replay.o)
$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(FUZZ_MAIN) $(B)/libmoetool.a
	$(CC) $(SAN_FLAGS) $(if $(filter fuzz,$(SAN)),-fsanitize=fuzzer) -o $@ $^ $(LIBS)

TEST_BIN := $(TEST_SRC:%.c=$(B)/%)
test: $(B)/moetool $(TEST_BIN)
	@MOETOOL_BIN=$(abspath $(B)/moetool) scripts/run_tests.sh $(B) "$(T)" "$(ONLY)"

# Timings, not tests: nothing here passes or fails.
BENCH_BIN := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/bench/bench_*.c)))
bench: $(BENCH_BIN)
	@for b in $(BENCH_BIN); do echo "$$b"; $$b || exit 1; done

asan:
	+@$(MAKE) SAN=asan test
tsan:
	+@$(MAKE) SAN=tsan test

# What it finds stays in build/fuzz/corpus. Seeds of a target NAME: tests/data/NAME, tests/fuzz/seeds/NAME.
FUZZ_SEEDS = $(wildcard tests/data/$(1:fuzz_%=%) tests/fuzz/seeds/$(1:fuzz_%=%))
fuzz:
	+@$(MAKE) SAN=fuzz CC=clang $(FUZZ:%=build/fuzz/tests/fuzz/%)
	@set -e; $(foreach f,$(FUZZ),mkdir -p build/fuzz/corpus/$(f); build/fuzz/tests/fuzz/$(f) \
	  -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -artifact_prefix=build/fuzz/$(f)- \
	  build/fuzz/corpus/$(f) $(call FUZZ_SEEDS,$(f));)

# The seeds, and changed copies of them for a few seconds, under the sanitizers: needs no libFuzzer.
fuzz-short:
	+@$(MAKE) SAN=asan $(FUZZ:%=build/asan/tests/fuzz/%)
	@set -e; $(foreach f,$(FUZZ),echo $(f); build/asan/tests/fuzz/$(f) -mutate=$(FUZZ_SHORT_SECONDS) \
	  -last=build/asan/$(f)-last $(call FUZZ_SEEDS,$(f));)

demo: all
	@scripts/demo.sh --no-install

check:
	@scripts/check.sh

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(B)/moetool $(DESTDIR)$(PREFIX)/bin/moetool
	install -m 644 $(B)/libmoetool.a $(DESTDIR)$(PREFIX)/lib/libmoetool.a
	install -m 644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	for h in $(PUBLIC_HEADERS); do \
	  install -D -m 644 $$h $(DESTDIR)$(PREFIX)/include/moetool/$$h || exit 1; done

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/moetool $(DESTDIR)$(PREFIX)/lib/libmoetool.a \
	  $(DESTDIR)$(PREFIX)/share/man/man1/moetool*.1
	rm -rf $(DESTDIR)$(PREFIX)/include/moetool

clean:
	rm -rf build

-include $(LIB_OBJ:.o=.d) $(CMD_SRC:%.c=$(B)/%.d) $(TEST_BIN:=.d) $(TEST_LIB_SRC:%.c=$(B)/%.d) \
	$(FUZZ:%=$(B)/tests/fuzz/%.d)
.SECONDARY:
