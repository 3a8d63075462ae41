# gems-preload: make [all demo check check-all fuzz bench bench-chains bench-functions setup install uninstall deb wheel format lint clean]
#   V=1         show commands            B=dir      build folder (default: build)
#   SAN=...     sanitizers, e.g. address,undefined or thread (use with another B)
#   PREFIX, DESTDIR                      GEMS_PYTHON=/path/to/python  a Python that has PyTorch
B       ?= build
# One name for one folder: dependencies noted under another name would not be seen.
override B := $(patsubst $(CURDIR)/%,%,$(B))
PREFIX  ?= /usr/local
VERSION := 0.1.0
CC      ?= cc
CXX     ?= g++
Q       := $(if $(V),,@)
say      = $(if $(V),,@printf '  %-8s%s\n' '$(1)' '$(2)')

WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wno-missing-field-initializers
SANFLAG := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -DGEMS_SANITIZED,)
CFLAGS  ?= -O2 -g
CPPFLAGS += -I. -I$(B) -D_GNU_SOURCE -DGEMS_VERSION='"$(VERSION)"' -DCL_TARGET_OPENCL_VERSION=300
# -fexceptions: exceptions of the host's originals pass through our frames.
ALLC    = -std=gnu11 $(WARN) $(CFLAGS) -fPIC -fvisibility=hidden -fexceptions -ftls-model=initial-exec $(SANFLAG) -MMD -MP
# Functions of the device on the host: bits as the device has them, loops as vectors. What is trapped nobody asks for.
# Nothing of the C++ library, so that the library does not need it.
ALLCXX  = -std=c++17 -Wall -Wextra -Werror -Wshadow -Wno-unknown-pragmas $(CFLAGS) -O3 -ffp-contract=off -fwrapv \
  -fsigned-char -fno-math-errno -fno-trapping-math -fno-exceptions -fno-rtti -fPIC -fvisibility=hidden $(SANFLAG) -MMD -MP
# Debian's libjansson.a is not position-independent: the shared one.
LIBS    := -ljansson -ldl -lpthread -lm

# The library: everything but the build-time generator and the command.
SRC     := $(wildcard preload/*.c preload/base/*.c preload/engine/*.c shim/*.c kernels/*.c kernels/*/*.c tune/*.c codegen/*.c)
GENSRC  := $(wildcard shim/gen/*.c)
CMDSRC  := $(wildcard preload/cmd/*.c)
EMBED   := $(sort $(wildcard kernels/*.cl kernels/*/*.cl) $(wildcard tune/*.json))
GENOUT  := thunks.c ops.c embedded.c
# One source, a build for each kind of processor.
MARCH   := -march=x86-64-
MATH    := any $(if $(findstring x86_64,$(shell $(CC) -dumpmachine 2>/dev/null)),v3 v4)
OBJ     := $(SRC:%.c=$(B)/%.o) $(GENOUT:%.c=$(B)/gen/%.o) $(MATH:%=$(B)/codegen/host_math_%.o)

all: $(B)/libgems_preload.so $(B)/gems $(B)/gems.1 $(B)/tables.checked

$(B)/libgems_preload.so: $(OBJ) $(B)/gen/exports.map
	$(call say,LINK,$@)
	$(Q)$(CC) $(SANFLAG) -shared -Wl,--version-script=$(B)/gen/exports.map -Wl,-z,defs \
	  -o $@ $(OBJ) $(LIBS) $(if $(SAN),-Wl$(comma)-z$(comma)undefs,)
comma := ,

$(B)/gems: $(CMDSRC:%.c=$(B)/%.o) $(patsubst %.c,$(B)/%.o,$(wildcard preload/base/*.c))
	$(call say,LINK,$@)
	$(Q)$(CC) $(SANFLAG) -o $@ $^ $(LIBS)

# It checks rows with the library's own parser of expressions and names of dtypes.
GENUSES := codegen/expr kernels/tensor/promote kernels/tensor/dtype preload/base/clocale preload/base/text preload/base/file
$(B)/shim/gen/codegen: $(GENSRC:%.c=$(B)/%.o) $(GENUSES:%=$(B)/%.o)
	$(call say,LINK,$@)
	$(Q)$(CC) $(SANFLAG) -o $@ $^ $(LIBS)

$(B)/scripts/embed: $(B)/scripts/embed.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(SANFLAG) -o $@ $^

# One run writes thunks.c, ops.c and exports.map.
ROWS   := shim/ops.json preload/gems.h preload/libc.c
FIELDS := kernels/math.cl $(wildcard kernels/*/fields)
$(B)/gen/ops.stamp: $(B)/shim/gen/codegen $(ROWS) $(FIELDS)
	$(call say,GEN,$(@D))
	$(Q)mkdir -p $(@D)
	$(Q)$< $(ROWS) $(@D) $(FIELDS)
	$(Q)touch $@ && touch $(addprefix $(@D)/,thunks.c ops.c exports.map)
$(B)/gen/thunks.c $(B)/gen/ops.c $(B)/gen/exports.map: $(B)/gen/ops.stamp ;
$(B)/gen/embedded.c: $(B)/scripts/embed $(EMBED)
	$(call say,EMBED,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$< $@ $(EMBED)

$(B)/%.o: %.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALLC) -c -o $@ $<
$(MATH:%=$(B)/codegen/host_math_%.o): $(B)/codegen/host_math_%.o: codegen/host_math.cpp
	$(call say,CXX,$< ($*))
	$(Q)mkdir -p $(@D)
	$(Q)$(CXX) $(CPPFLAGS) $(ALLCXX) $(if $(filter v%,$*),$(MARCH)$*) -DHOST_MATH=gems_host_math_$* -c -o $@ $<
$(B)/gen/%.o: $(B)/gen/%.c
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(ALLC) -c -o $@ $<

# Unit tests: every file its own executable, linked with the library's and the generator's objects. A failure does not
# hide the next one.
UNIT := $(patsubst %.c,$(B)/%,$(filter-out $(SKIP),$(wildcard tests/unit/test_*.c)))
# What takes longest begins first, so that no processor is left without work at the end.
LONG := $(addprefix $(B)/tests/unit/test_,fault families_products resident move families_rows evaluate chain_fold chain device cache)
$(UNIT): %: %.o $(OBJ) $(patsubst %.c,$(B)/%.o,$(filter-out %/main.c,$(GENSRC)))
	$(call say,LINK,$@)
	$(Q)$(CC) $(SANFLAG) -o $@ $^ $(LIBS) -lcriterion
unit: $(UNIT)
	$(Q)printf '%s\n' $(filter $(UNIT),$(LONG)) $(filter-out $(LONG),$(UNIT)) | xargs -P $(JOBS) -I TEST sh -c \
	  'TEST -j1 >TEST.log 2>&1; code=$$?; printf "  %-8s%s\n" TEST TEST; cat TEST.log; [ $$code = 0 ] || echo "  FAILED  TEST" >&2; exit $$code'

# The tables in the library are read as it will read them.
$(B)/tables.checked: $(B)/tables $(wildcard tune/*.json)
	$(Q)$(if $(SAN),,$< $(filter %.json,$^))
	$(Q)touch $@

# For packages: where under PREFIX the library and the pkg-config file go, and what that file calls its prefix.
LIBRARY   := lib
PKGCONFIG := lib/pkgconfig
PCPREFIX  := $(PREFIX)
BINDIR := $(DESTDIR)$(PREFIX)/bin
LIBDIR := $(DESTDIR)$(PREFIX)/$(LIBRARY)
INCDIR := $(DESTDIR)$(PREFIX)/include
SHARE  := $(DESTDIR)$(PREFIX)/share
PCDIR  := $(DESTDIR)$(PREFIX)/$(PKGCONFIG)
PCFILE := $(PCDIR)/gems-preload.pc
# The tables are inside the library; these are for reading, and as a start for one's own.
TABLES := $(wildcard tune/*.json)
$(B)/gems.1: preload/gems.1 $(B)/gems
	$(Q)$(B)/gems help --man > $@.variables
	$(Q)sed -e '/^@VARIABLES@$$/{r $@.variables' -e 'd}' $< > $@
install: all $(B)/gems.1
	$(call say,INSTALL,$(DESTDIR)$(PREFIX))
	$(Q)install -d '$(BINDIR)' '$(LIBDIR)' '$(PCDIR)' '$(INCDIR)' '$(SHARE)/gems-preload' '$(SHARE)/man/man1'
	$(Q)install -m 755 $(B)/gems '$(BINDIR)'
	$(Q)install -m 755 $(B)/libgems_preload.so '$(LIBDIR)'
	$(Q)install -m 644 preload/gems.h '$(INCDIR)'
	$(Q)$(if $(TABLES),install -m 644 $(TABLES) '$(SHARE)/gems-preload')
	$(Q)install -m 644 $(B)/gems.1 '$(SHARE)/man/man1'
	$(Q)sed 's|@PREFIX@|$(PCPREFIX)|; s|@LIBRARY@|$(LIBRARY)|; s|@VERSION@|$(VERSION)|' preload/gems-preload.pc.in > '$(PCFILE)'
uninstall:
	$(Q)rm -f '$(BINDIR)/gems' '$(LIBDIR)/libgems_preload.so' '$(INCDIR)/gems.h' '$(PCFILE)' '$(SHARE)/man/man1/gems.1'
	$(Q)rm -rf '$(SHARE)/gems-preload'

# Into $(B)/dist. A package for Debian holds what the other targets build and test; the wheel is built by another
# compiler, for the glibc of the oldest systems that it is to run on.
PACKAGE = MAKE='$(MAKE) -j$(JOBS)' VERSION='$(VERSION)' scripts/package.sh
deb:
	$(Q)scripts/setup.sh deb
	$(Q)+$(PACKAGE) deb '$(B)'
wheel:
	$(Q)scripts/setup.sh wheel
	$(Q)+$(PACKAGE) wheel '$(B)'

clean:
	$(Q)rm -rf $(B)

FORMATTED = $(shell git ls-files '*.c' '*.h' 'codegen/*.cpp')
format:
	$(Q)clang-format -i $(FORMATTED)
lint:
	$(Q)scripts/layers
	$(Q)clang-format --dry-run -Werror $(FORMATTED)
	$(Q)cppcheck --quiet --error-exitcode=1 --inline-suppr --enable=warning,performance,portability \
	  --suppress=missingIncludeSystem --suppress=preprocessorErrorDirective:kernels/device/cl.h --suppress=preprocessorErrorDirective:kernels/blas/library.c --suppress=preprocessorErrorDirective:preload/libc.c --suppress=preprocessorErrorDirective:codegen/host_math.h -I. -D'json_array_foreach(a,i,v)=for(i=0;i<1;i++)' \
	  -D'json_object_foreach(o,k,v)=for(k=0;k;)' $(filter-out tests/unit/%,$(filter %.c,$(FORMATTED)))
	$(Q)printf '%s\n' $(filter-out tests/%,$(filter %.c,$(FORMATTED))) | \
	  xargs -P $(JOBS) -I FILE clang-tidy --quiet FILE -- -std=gnu11 $(CPPFLAGS) 2>/dev/null

# ---- set-up, demo and checks: each check can be run alone ----
PROCESSORS := $(shell nproc)
JOBS   := $(PROCESSORS)
# Where a build folder is, as LD_PRELOAD can name it: it takes no spaces.
plain   = $(shell scripts/plain-path '$(abspath $(1))')
LIB     = $(call plain,$(B))/libgems_preload.so
# Asked when a recipe runs: before `make setup` there is none.
PYTHON  = $(shell scripts/python)
# Tests against the real PyTorch, which computes with one thread, preloaded, with every kernel in use and several threads.
# $(1): further variables, $(2): what to run.
pytest  = LD_PRELOAD=$(LIB) GEMS_ROUTE=all OMP_NUM_THREADS=1 POCL_MAX_PTHREAD_COUNT=$(PROCESSORS) $(1) '$(PYTHON)' -m pytest -q -p no:cacheprovider $(2)
spread  = -n $(JOBS) --dist $(1)
# All kernels of all tests: more than a program has, and one check leaves them to the next, as they were compiled; binaries
# of them would be made by a thread that everything else waits for.
unit check-%: export GEMS_CACHE_MB := 4096
unit check-%: export GEMS_SAVE := 0

setup:
	$(Q)scripts/setup.sh check
setup-demo:
	$(Q)scripts/setup.sh demo
demo: setup-demo
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all
	$(Q)'$(PYTHON)' scripts/demo/run.py $(LIB)
	$(Q)'$(PYTHON)' scripts/demo/run_options.py $(LIB)

# Results in the host's process, whole processes, and every OpenCL call failing once.
check-host: all
	$(Q)$(call pytest,,$(call spread,worksteal) tests/host $(addprefix --ignore tests/host/test_,\
	  process.py touch.py fault.py))
# As on a device with memory of its own: operands and results are copied. The kernels are the same: every operator, and
# what is particular about layouts, are enough of a sample.
STAGED = $(if $(filter 1,$(GEMS_TEST_FULL)),tests/host $(addprefix --ignore tests/host/test_,\
  process.py touch.py fault.py thunks.py rows.py command.py packages.py),$(addprefix tests/host/test_,every_kernel.py views.py copy.py index.py))
check-staged: all
	$(Q)$(call pytest,GEMS_MEMORY=staged,$(call spread,worksteal) $(STAGED))
# The same with every chain deferred that can be. A part of `make check-all` alone.
check-fused: all
	$(Q)$(call pytest,GEMS_FUSE=all,$(call spread,worksteal) tests/host $(addprefix --ignore tests/host/test_,\
	  process.py touch.py fault.py packages.py))
# And with what kernels read and write staying on the device; so is this one.
check-resident: all
	$(Q)$(call pytest,GEMS_MEMORY=staged GEMS_RESIDENT=force,$(call spread,worksteal) tests/host $(addprefix --ignore tests/host/test_,\
	  process.py touch.py fault.py thunks.py rows.py command.py packages.py))
	$(Q)$(call pytest,GEMS_TEST_WITH='GEMS_MEMORY=staged GEMS_RESIDENT=force',$(call spread,worksteal) tests/host/test_process.py tests/host/test_touch.py)
check-process: all
	$(Q)$(call pytest,,$(call spread,worksteal) tests/host/test_process.py tests/host/test_touch.py)
check-fault: all
	$(Q)$(call pytest,,tests/host/test_fault.py)

# Units and every kernel under AddressSanitizer and UBSan; what PoCL, PyTorch and Python leak is not ours to count. What
# they say goes to stderr before the process ends, so that pytest must not keep it.
# LLVM inside PoCL replaces the sanitizer's alternate signal stack where AVX-512's state needs a larger one.
ASAN = ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:use_sigaltstack=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
asan_libraries = $(shell $(CC) -print-file-name=libasan.so):$(shell $(CC) -print-file-name=libubsan.so)
# Fault injection makes hundreds of processes, and the evaluator's test compares millions of values: they are left to the
# plain build. (Chains are run here, and the evaluator with them.)
check-asan:
	$(Q)$(ASAN) $(MAKE) --no-print-directory -j$(JOBS) B=$(B)-asan SAN=address,undefined CFLAGS="-O1 -g" SKIP="tests/unit/test_fault.c tests/unit/test_evaluate.c" unit all
	$(Q)$(call pytest,LD_PRELOAD=$(asan_libraries):$(call plain,$(B)-asan)/libgems_preload.so $(ASAN),--capture=sys tests/host/test_every_kernel.py)
# What threads share, under ThreadSanitizer: without address randomisation, of which it bears little.
$(B)/threads $(B)/chains $(B)/bounds $(B)/tables: $(B)/%: $(B)/tests/%.o $(OBJ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(SANFLAG) -o $@ $^ $(LIBS)
check-tsan:
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) B=$(B)-tsan SAN=thread $(B)-tsan/threads $(B)-tsan/chains
	$(Q)for t in threads chains 'chains 300 resident'; do \
	  GEMS_LOG=/dev/null TSAN_OPTIONS=suppressions=tests/tsan.supp setarch -R $(B)-tsan/$$t || exit 1; done

# Every family in Oclgrind, a simulator that reports accesses out of bounds and data races; every family on rusticl, which
# takes seconds to compile a kernel. Each test of a family writes a log of its own.
oclgrind = OCL_ICD_VENDORS=$(call plain,$(B))/oclgrind.icd OCLGRIND_DATA_RACES=1 OCLGRIND_LOG=$(call plain,$(B))/oclgrind.log \
  GEMS_CACHE_DIR=$(call plain,$(B))/oclgrind
FAMILIES := $(patsubst %.c,$(B)/%,$(wildcard tests/unit/test_families_*.c))
check-oclgrind: $(B)/bounds $(FAMILIES)
	$(Q)echo $(firstword $(wildcard /usr/lib/oclgrind/liboclgrind-rt-icd.so /usr/lib/*/oclgrind/liboclgrind-rt-icd.so)) \
	  >$(B)/oclgrind.icd; rm -f $(B)/oclgrind.log*
	$(Q)$(oclgrind) $(B)/bounds && grep -q 'Invalid write' $(B)/oclgrind.log && grep -q 'race' $(B)/oclgrind.log || \
	  { echo "Oclgrind does not find the errors of tests/bounds.c" >&2; exit 1; }
	$(Q)rm $(B)/oclgrind.log
	$(Q)for t in $(FAMILIES); do $(oclgrind) GEMS_VENDOR=oclgrind $$t --filter 'families/*' || exit 1; done
	$(Q)cat $(B)/oclgrind.log.* >$(B)/oclgrind.log && rm $(B)/oclgrind.log.*
	$(Q)if [ -s $(B)/oclgrind.log ]; then cat $(B)/oclgrind.log; echo "Oclgrind found errors" >&2; exit 1; fi
check-rusticl: all
	$(Q)$(call pytest,RUSTICL_ENABLE=llvmpipe GEMS_VENDOR=rusticl GEMS_TEST_EVERY=family,$(call spread,worksteal) tests/host/test_every_kernel.py)

# In the order in which they begin: what takes long, and after `unit`, which builds them, what needs the same kernels.
CHECKS := check-host unit check-asan check-process check-fault lint check-staged check-tsan check-oclgrind check-rusticl
# `make check` tests a sample of what is tested for many dtypes and layouts, the same each time; check-all everything.
check-all: export GEMS_TEST_FULL := 1
check-all:
	$(Q)$(MAKE) --no-print-directory check CHECKS='$(CHECKS) check-fused check-resident'
# What several of them need is built first.
check: setup
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all $(UNIT) $(B)/bounds
	$(Q)MAKE='$(MAKE)' scripts/check.sh '$(B)' $(CHECKS)

# Host and device side by side, and what interposing costs. BENCH="--only 'cat*'": options of bench/bench.py.
BENCH  ?=
bench: setup
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all
	$(Q)LD_PRELOAD=$(LIB) '$(PYTHON)' bench/bench.py $(BENCH)
# Programs of many pointwise operators: plain, pool, fused. CHAINS="--quick --modes plain,fused,compile": options of bench/chains.py.
CHAINS ?=
bench-chains: setup
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all
	$(Q)LD_PRELOAD=$(LIB) '$(PYTHON)' bench/chains.py $(CHAINS)

# Random programs, plain and preloaded, until stopped. FUZZ="--seconds 600 --seed 7 GEMS_FUSE=auto": options of tests/host/fuzz.py.
FUZZ   ?=
fuzz: setup
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all
	$(Q)GEMS_CACHE_MB=4096 '$(PYTHON)' tests/host/fuzz.py $(LIB) --folder $(B)/fuzz $(FUZZ)

# Each function of pointwise kernels beside PyTorch's. FUNCTIONS="--only 'sin,div*'": options of bench/functions.py.
FUNCTIONS ?=
# Without what is interposed: PyTorch runs as it is.
CHAIN := $(filter $(addprefix $(B)/,kernels/% codegen/% tune/% preload/base/% gen/ops.o gen/embedded.o),$(OBJ))
$(B)/bench/chain.so: $(B)/bench/chain.o $(CHAIN)
	$(call say,LINK,$@)
	$(Q)$(CC) $(SANFLAG) -shared -Wl,-z,defs -o $@ $^ $(LIBS)
bench-functions: setup
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) $(B)/bench/chain.so
	$(Q)'$(PYTHON)' bench/functions.py --library $(abspath $(B))/bench/chain.so $(FUNCTIONS)

.PHONY: all deb wheel bench bench-chains bench-functions fuzz unit install uninstall clean format lint setup setup-demo demo \
  check check-all check-fused check-resident $(filter check-%,$(CHECKS))
.DELETE_ON_ERROR:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
