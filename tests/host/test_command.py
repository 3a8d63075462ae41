"""The gems command as a process: run, doctor, ops, cache, help; and that README and man page agree with it."""
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys

import pytest

import gems

ROOT = pathlib.Path(__file__).parents[2]
BUILD = pathlib.Path(gems.library_path()).parent
GEMS = BUILD / "gems"
# LD_PRELOAD takes no path with a space: the search path names the folder then.
PRELOADED = gems.library_path() if " " not in str(BUILD.resolve()) else "libgems_preload.so"

@pytest.fixture
def env(tmp_path):
    e = {k: v for k, v in os.environ.items() if not k.startswith("GEMS_") and k != "LD_PRELOAD"}
    e["GEMS_PYTHON"] = sys.executable
    e["GEMS_CACHE_DIR"] = str(tmp_path / "cache")
    e["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    return e


def run(env, *args, command=GEMS, **more):
    return subprocess.run([str(command), *map(str, args)], env={**env, **more}, capture_output=True, text=True, timeout=300)


# ---- run ----


def test_run_sets_the_environment_and_becomes_the_program(env):
    done = run(env, "run", "--vendor", "pocl", "--check=3", "--report", "--", "sh", "-c", "env; exit 7")
    assert done.returncode == 7
    got = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert (got["GEMS_VENDOR"], got["GEMS_CHECK"], got["GEMS_REPORT"]) == ("pocl", "3", "1")
    assert got["LD_PRELOAD"] == PRELOADED


def test_run_keeps_other_preloads_and_does_not_add_itself_twice(env):
    other = "/usr/lib/x86_64-linux-gnu/libm.so.6"
    done = run(env, "run", "sh", "-c", "echo $LD_PRELOAD", LD_PRELOAD=other)
    assert done.stdout.strip() == f"{PRELOADED}:{other}"
    again = run(env, "run", GEMS, "run", "sh", "-c", "echo $LD_PRELOAD", LD_PRELOAD=other)
    assert again.stdout.strip() == f"{PRELOADED}:{other}"


def test_run_from_a_folder_with_a_space(env, tmp_path):
    folder = tmp_path / "a b"
    folder.mkdir()
    for name in ("gems", "libgems_preload.so"):
        shutil.copy(BUILD / name, folder / name)
    done = run(env, "run", "--report", sys.executable, "-c", ADD, command=folder / "gems")
    assert done.stdout == "16.0\n" and "add.Tensor" in done.stderr
    assert "all well" in run(env, "doctor", command=folder / "gems").stdout


def test_run_makes_paths_absolute(env, tmp_path):
    done = subprocess.run([GEMS, "run", "--log", "x.%p", "--table", '{"rules": []}', "env"], env=env, cwd=tmp_path,
                          capture_output=True, text=True)
    assert f"GEMS_LOG={tmp_path}/x.%p" in done.stdout.splitlines()
    assert 'GEMS_TUNE_JSON={"rules": []}' in done.stdout.splitlines()


@pytest.mark.parametrize("args, words", [
    (["--chek", "1", "true"], "no option is named --chek"),
    (["--check", "many", "true"], 'accepted: a number from 0'),
    (["--check"], "wants a value"),
    (["--route=fast", "true"], "accepted: table, all or off"),
    (["--log=", "true"], "makes no sense"),
    (["--log", "/no/such/folder/log", "true"], "--log: /no/such/folder/log: /no/such/folder/: No such file or directory"),
    (["--log", "/", "true"], "--log: /: /: Is a directory"),
    (["--cache-dir", "/dev/null", "true"], "--cache-dir: /dev/null: /dev/null: Not a directory"),
    (["--table", "no/such.json", "true"], "no/such.json: is no file that can be read, nor JSON"),
    (["--table", '{"rules": [{"op": "ad.Tensor"}]}', "true"], "GEMS_TUNE_JSON:1:13: no operator is named ad.Tensor"),
    (["--only", "add,mull", "true"], "--only: add,mull: names what is no operator of ours: mull (gems ops lists them)"),
    (["--exclude", ",", "true"], "--exclude: ,: names no operator"),
    (["--route", "a\nb\x1b[2J", "true"], "gems run: --route: a\\nb\\x1b[2J: makes no sense; accepted: table, all or off\n"),
    ([], "usage"),
    (["--report", "--"], "usage"),
])
def test_run_refuses_what_makes_no_sense(env, args, words):
    done = run(env, "run", *args)
    assert done.returncode == 2 and words in done.stderr and done.stdout == ""


def test_run_of_a_program_that_is_not_there(env, tmp_path):
    assert run(env, "run", "no-such-program").returncode == 127
    (tmp_path / "text").write_text("x")
    assert run(env, "run", tmp_path / "text").returncode == 126


def test_run_without_the_library(env, tmp_path):
    shutil.copy(GEMS, tmp_path / "gems")
    done = run(env, "run", "true", command=tmp_path / "gems")
    assert done.returncode == 125 and "libgems_preload.so is neither in" in done.stderr


# ---- the environment, as a user gets it wrong ----

ADD = "import torch; a = torch.ones(8); print((a + a).sum().item())"


def test_a_value_that_makes_no_sense_is_told_once_and_ignored(env):
    done = run(env, "run", sys.executable, "-c", ADD, GEMS_ROUTE="sometimes", GEMS_EXCLUDE="ad.Tensor", GEMS_LOGG="x")
    assert done.stdout.strip() == "16.0"
    assert done.stderr.count("GEMS_ROUTE=sometimes makes no sense and is ignored; accepted: table, all or off") == 1
    assert done.stderr.count("did you mean GEMS_LOG?") == 1
    assert done.stderr.count("GEMS_EXCLUDE=ad.Tensor names no operator of ours (gems ops lists them): nothing is excluded") == 1


def test_a_log_on_a_stream_shows_calls_that_no_kernel_may_have(env, tmp_path):
    """A file that is stdout: what the program writes and what we write do not overwrite each other."""
    with open(tmp_path / "out", "w") as out:
        subprocess.run([GEMS, "run", "--log", "/dev/stdout", "--exclude", "add", sys.executable, "-c", ADD + "; torch.arange(4)"],
                       env=env, stdout=out, check=True)
    lines = (tmp_path / "out").read_text().splitlines()
    assert "16.0" in lines and "arange call 4 false -> host: no kernel" in lines
    assert "add.Tensor redispatch f32[8] f32[8] 1 -> host: excluded (GEMS_EXCLUDE, GEMS_ONLY)" in lines


def test_a_device_asked_for_in_vain_is_told_even_if_no_call_is_worth_it(env):
    done = run(env, "run", "--vendor", "acme", sys.executable, "-c", ADD)
    assert done.stdout == "16.0\n" and done.stderr.count("GEMS_VENDOR=acme: no OpenCL device of that vendor") == 1
    strict = run(env, "run", "--vendor", "acme", "--strict", sys.executable, "-c", ADD)
    assert strict.returncode == -6 and "aborting" in strict.stderr


def test_what_a_driver_lacks_is_told_with_its_missing_device(env):
    done = run(env, "run", sys.executable, "-c", ADD, OCL_ICD_VENDORS="/proc/none", PATH="/proc/none", GEMS_ROUTE="all")
    assert done.stdout == "16.0\n"
    assert done.stderr.count("no OpenCL device; pocl's OpenCL needs the program ld, which is not on the PATH") == 1


def test_a_disabled_process_can_be_enabled(env):
    program = f"""
import ctypes, torch
gems = ctypes.CDLL("{gems.library_path()}")
gems.gems_last_reason.restype = ctypes.c_char_p
a = torch.ones(8)
for turn in range(2):
    a + a
    print(gems.gems_last_reason())
    gems.gems_enable()
"""
    done = run(env, "run", "--route", "all", "--log", "/dev/null", sys.executable, "-c", program, GEMS_DISABLE="1")
    assert done.stdout.split() == ["b'disabled'", "b''"], done.stderr


@pytest.mark.parametrize("variable, value, line", [
    ("GEMS_ONLY", ",", "GEMS_ONLY=, names no operator of ours (gems ops lists them): nothing is routed"),
    ("GEMS_CACHE_DIR", "/dev/null", "GEMS_CACHE_DIR=/dev/null is no folder that can be used"),
])
def test_what_would_be_in_vain_is_told(env, variable, value, line):
    done = run(env, "run", "--route", "all", sys.executable, "-c", ADD, **{variable: value})
    assert done.stdout == "16.0\n" and done.stderr.count(line) == 1


def test_a_broken_table_is_told_with_its_place_and_ignored(env, tmp_path):
    table = tmp_path / "table.json"
    table.write_text('{"rules": [\n  {"op": "add.Tensor", "dtype": "f32"},\n  {"op": "add.Tensorr"}]}')
    done = run(env, "run", sys.executable, "-c", ADD, GEMS_TUNE_JSON=str(table))
    assert done.stdout.strip() == "16.0"
    assert done.stderr.count(f"{table}:3:4: no operator is named add.Tensorr") == 1


def test_programs_without_pytorch_hear_nothing(env):
    done = run(env, "run", "bash", "-c", "ls / >/dev/null; echo fine", GEMS_ROUTE="nonsense", GEMS_FOO="1")
    assert (done.stdout, done.stderr) == ("fine\n", "")


# ---- doctor ----


def test_doctor_proves_that_this_pytorch_can_be_interposed(env):
    done = run(env, "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "an addition was intercepted, ran on the device, and its result is right" in done.stdout
    assert "all well" in done.stdout and "wrong" not in done.stdout


def test_doctor_json(env):
    done = run(env, "doctor", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["problems"] == []
    assert found["proof"]["routed"] == 1 and found["proof"]["right"] is True
    assert found["libtorch"]["exported"] > 900 and found["libtorch"]["symbolic"] is False
    assert found["opencl"]["main"]["vendor"] and any(d["main"] for d in found["opencl"]["devices"])
    assert found["cache"]["writable"] is True


def test_doctor_ignores_what_would_keep_the_proof_away(env):
    assert run(env, "doctor", GEMS_EXCLUDE="add*", GEMS_DISABLE="1", GEMS_ROUTE="off").returncode == 0


def test_doctor_says_what_is_wrong(env):
    assert "no PyTorch" in run(env, "doctor", GEMS_PYTHON="/usr/bin/python3").stdout
    assert "cannot be run" in run(env, "doctor", GEMS_PYTHON="/no/such/python").stdout
    done = run(env, "doctor", GEMS_VENDOR="acme")
    assert done.returncode == 1 and "No OpenCL device can be used" in done.stdout and "acme" in done.stdout
    assert run(env, "doctor", GEMS_VENDOR="acme", GEMS_STRICT="1").stdout == done.stdout
    done = run(env, "doctor", "--libtorch", "/etc/passwd")
    assert done.returncode == 1 and "no 64-bit ELF shared library" in done.stdout


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """Three builds of a library with a few of PyTorch's symbols, one of which it calls itself."""
    folder = tmp_path_factory.mktemp("libtorch")
    call, other = gems.describe("symbols")["add.Tensor"][:2]
    source = folder / "s.c"
    source.write_text(f"void *{call}(void *a) {{ return a; }}\nvoid *{other}(void *a) {{ return {call}(a); }}\n")

    def build(name, *flags):
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", *flags, "-o", folder / name, source], check=True)
        return folder / name

    return {
        "plain": build("plain.so"),
        "symbolic": build("symbolic.so", "-Wl,-Bsymbolic"),
        "functions": build("functions.so", "-Wl,-Bsymbolic-functions"),
        "hidden": build("hidden.so", "-fvisibility=hidden"),
    }


def test_doctor_recognises_a_build_that_cannot_be_interposed(env, stand_ins):
    """-Bsymbolic leaves a flag in the file, -Bsymbolic-functions only the absence of relocations."""
    for name in "symbolic", "functions":
        done = run(env, "doctor", "--libtorch", stand_ins[name])
        assert done.returncode == 1 and "linked with -Bsymbolic" in done.stdout, name
    done = run(env, "doctor", "--libtorch", stand_ins["hidden"])
    assert done.returncode == 1 and "exports none of the symbols" in done.stdout
    done = run(env, "doctor", "--libtorch", stand_ins["plain"])
    assert done.returncode == 0 and "2 of our" in done.stdout


def test_doctor_on_a_cut_off_library(env, stand_ins, tmp_path):
    """Whatever stands in the file, doctor reads inside it and ends."""
    whole = stand_ins["plain"].read_bytes()
    for size in [0, 10, 64, 500, len(whole) // 2, len(whole) - 1]:
        broken = tmp_path / f"broken{size}.so"
        broken.write_bytes(whole[:size])
        assert run(env, "doctor", "--libtorch", broken).returncode == 1, size
    for at in range(0, 64):
        broken = tmp_path / "flipped.so"
        broken.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1:])
        assert run(env, "doctor", "--libtorch", broken, GEMS_VENDOR="none").returncode == 1, at


# ---- ops and cache ----


def test_ops(env):
    ops = {op["name"]: op for op in json.loads(run(env, "ops", "--json").stdout)}
    rows = json.load(open(ROOT / "shim/ops.json"))
    assert len(ops) == sum(1 + len(row.get("forms", [])) for row in rows)
    assert ops["add.Tensor"]["kernel"] and ops["add.Tensor"]["overload"] == "Tensor"
    assert "f32" in ops["add.Tensor"]["dtypes"].split()
    assert ops["tile"]["parts"] == "repeat" and not ops["tile"]["kernel"] and not ops["add.Tensor"]["parts"]
    assert "host (in parts: repeat)" in run(env, "ops", "tile").stdout
    some = json.loads(run(env, "ops", "--json", "add").stdout)
    assert {op["operator"] for op in some} == {"add"}
    assert run(env, "ops", "no_such_operator").returncode == 1


def test_ops_shows_rules_and_exclusion(env):
    table = '{"rules": [{"op": "add.Tensor", "dtype": "f32", "where": {"numel": [77, null]}}]}'
    out = run(env, "ops", "add.Tensor", GEMS_TUNE_JSON=table).stdout
    assert "f32, numel 77..: device (GEMS_TUNE_JSON:1)" in out
    assert "host (excluded)" in run(env, "ops", "add.Tensor", GEMS_EXCLUDE="add").stdout


def test_cache_shows_and_clears(env):
    assert json.loads(run(env, "cache", "--json").stdout)["entries"] == 0
    assert run(env, "run", sys.executable, "-c", ADD, GEMS_ROUTE="all").stdout.strip() == "16.0"
    assert json.loads(run(env, "cache", "--json").stdout)["entries"] > 0
    keep = pathlib.Path(env["GEMS_CACHE_DIR"]) / "notes.bin"
    keep.write_text("not ours")
    assert run(env, "cache", "clear").returncode == 0
    assert json.loads(run(env, "cache", "--json").stdout)["entries"] <= 1 and keep.exists()


# ---- documentation ----


def variables():
    text = (ROOT / "preload/base/config.c").read_text()
    return set(re.findall(r'^    \{"(GEMS_\w+)"', text, re.M))


def test_every_variable_is_in_help_readme_and_man_page(env, tmp_path):
    names = variables()
    assert len(names) >= 15
    table = run(env, "help", "--markdown").stdout
    assert set(re.findall(r"`(GEMS_\w+)`", table)) == names
    assert table.strip() in (ROOT / "README.md").read_text(), "README: put the output of `gems help --markdown` there"
    subprocess.run(["make", "-s", f"B={BUILD}", f"DESTDIR={tmp_path}", "PREFIX=/usr", "install"], cwd=ROOT, check=True)
    page = tmp_path / "usr/share/man/man1/gems.1"
    assert set(re.findall(r"^\.B (GEMS_\w+)", page.read_text(), re.M)) >= names
    assert "@VARIABLES@" not in page.read_text()


def test_install_and_uninstall(env, tmp_path):
    def make(target):
        subprocess.run(["make", "-s", f"B={BUILD}", f"DESTDIR={tmp_path}", "PREFIX=/usr", target], cwd=ROOT, check=True)

    make("install")
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert {"usr/bin/gems", "usr/lib/libgems_preload.so", "usr/include/gems.h", "usr/share/man/man1/gems.1",
            "usr/lib/pkgconfig/gems-preload.pc", "usr/share/gems-preload/pocl.json"} <= files
    assert os.stat(tmp_path / "usr/bin/gems").st_mode & stat.S_IXUSR
    done = run(env, "run", "sh", "-c", "echo $LD_PRELOAD", command=tmp_path / "usr/bin/gems")
    assert done.stdout.strip() == str(tmp_path / "usr/lib/libgems_preload.so")
    pc = subprocess.run(["pkg-config", "--variable=preload", "gems-preload"], capture_output=True, text=True,
                        env={**os.environ, "PKG_CONFIG_PATH": str(tmp_path / "usr/lib/pkgconfig")})
    assert pc.stdout.strip() == "/usr/lib/libgems_preload.so"
    make("uninstall")
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and "cache" not in p.parts]
