"""Whole programs, each as a real process: the same output and exit status as without the library, and operators really
routed. The programs are in programs/; only the library's path is taken from this process."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

import gems
from processes import BUILD, LIBRARY, alike, complaints, cpp_app, environment, python, routed, run, same_as_plain

# A short program whose result is easy to tell.
SMALL = "import torch\nx = torch.arange(64.0).reshape(8, 8)\nprint(((x @ x).softmax(1) + x).sum().item())\n"
SMALL_RESULT = "2024.0"


# ---- kinds of program ----

def test_cpp_app():
    """A C++ program linked with libtorch; with an error that it catches."""
    done = same_as_plain([cpp_app()])
    assert routed(done) > 20
    assert "cannot be multiplied" in done.stdout


def test_training_step():
    """Loss, gradients and weights of training steps, with hooks, checkpointing and a refused in-place change."""
    done = same_as_plain([sys.executable, program("train.py")])
    assert routed(done) > 100


def test_compiled_program(tmp_path):
    """torch.compile: traced through our thunks to the same graph, compiled with g++ under the preload, and run."""
    command = [sys.executable, program("compiled.py")]
    done = same_as_plain(command, plain=run(command, preload=False, TORCHINDUCTOR_CACHE_DIR=tmp_path / "plain"),
                         TORCHINDUCTOR_CACHE_DIR=tmp_path / "preloaded")
    assert routed(done) > 0


def test_aot_inductor(tmp_path):
    """A model compiled ahead of time: its calls go through PyTorch's C shim, which is intercepted too."""
    package = tmp_path / "model.pt2"
    made = python("aoti.py", "make", package, preload=False)
    assert made.returncode == 0, made.stderr
    done = same_as_plain([sys.executable, program("aoti.py"), "use", package], GEMS_LOG=tmp_path / "log")
    log = (tmp_path / "log").read_text()
    assert routed(done) > 0
    assert any(name in log for name in ("addmm", "mm.out")), log


def test_data_loader_with_forked_workers():
    done = same_as_plain([sys.executable, program("loader.py")])
    assert routed(done) > 0


def test_torchrun_two_ranks():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", program("ranks.py")]

    def tried(preload):
        """PyTorch's own end of a rank aborts now and then, also without us: then once more."""
        for _ in range(5):
            done = run(command, preload=preload)
            if "terminate called without an active exception" not in done.stderr:
                break
        assert done.returncode == 0, done.stderr
        return done

    plain, done = tried(False), tried(True)
    alike(plain.stdout, done.stdout)
    assert "ranks agree True" in done.stdout
    assert routed(done) > 0


def program(name):
    return pathlib.Path(__file__).parent / "programs" / name


# ---- ends of a process ----

BUSY = """
import os, signal, sys, threading, time, torch
x = torch.rand(64, 64)
def work():
    while True:
        ((x @ x).softmax(1) + x).sum()
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
(x + x).sum()
print("working", flush=True)
time.sleep(0.3)
"""
QUIET = "import os, signal, sys, torch\nx = torch.rand(64, 64)\n(x @ x + x).sum()\nprint('working', flush=True)\n"
ENDS = {
    "normal": ("", 0),
    "sys-exit": ("sys.exit(3)", 3),
    "os-exit": ("os._exit(4)", 4),
    "exception": ("raise ValueError('on purpose')", 1),
    "sigterm": ("os.kill(os.getpid(), signal.SIGTERM); signal.pause()", -signal.SIGTERM),
    "sigint": ("os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)", None),
    "abort": ("os.abort()", -signal.SIGABRT),
    "exec": ("os.execv('/bin/true', ['true'])", 0),
}


# A normal end of Python with daemon threads inside PyTorch is left out: PyTorch alone aborts there.
BUSY_ENDS = ["os-exit", "sigterm", "abort", "exec"]


@pytest.mark.parametrize("end,before", [(end, QUIET) for end in ENDS] + [(end, BUSY) for end in BUSY_ENDS],
                         ids=[*ENDS, *(f"{end}-busy" for end in BUSY_ENDS)])
def test_end_of_process(end, before):
    """Whatever ends the process, it ends with the status that it would have had, soon, and without a crash of ours; also
    while other threads are in routed calls."""
    code, status = ENDS[end]
    if status is None:
        status = python(before + code, preload=False).returncode
    done = python(before + code, timeout=60)
    assert done.returncode == status, done.stderr
    assert done.stdout == "working\n"
    assert "Segmentation" not in done.stderr and "terminate called" not in done.stderr
    if end == "exception":
        assert "on purpose" in done.stderr


def test_exit_while_other_threads_call():
    """quick_exit while three threads are in routed calls."""
    for _ in range(5):
        done = run([cpp_app(), "threads"], timeout=60)
        assert (done.returncode, done.stdout) == (3, "working\n"), done.stderr


def test_end_from_outside():
    """SIGTERM from another process while threads are calling."""
    child = subprocess.Popen([sys.executable, "-c", BUSY + "time.sleep(60)"], env=environment(), text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline() == "working\n"
    time.sleep(0.2)
    child.terminate()
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGTERM


# ---- forks and children ----

FORK = """
import os, torch
x = torch.arange(4096.0).reshape(64, 64)
want = "{first}"
if want == "parent-first":
    (x @ x + 1).sum()
child = os.fork()
total = ((x @ x + 1).softmax(0) + x).sum().item()
if child == 0:
    inner = os.fork()
    if inner:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) or (0 if total == {total} else 9))
    os._exit(0 if (x + x).sum().item() == 2 * x.sum().item() else 8)
print(total, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (x + 1).sum().item())
"""


@pytest.mark.parametrize("first", ["parent-first", "child-first"])
def test_fork_then_use(first):
    """Parent, child and grandchild all compute after a fork, whether or not the parent had opened OpenCL before."""
    total = python(FORK.format(first=first, total="0"), preload=False).stdout.split()[0]
    done = python(FORK.format(first=first, total=total), timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "0", f"the child's result differs\n{done.stderr}"
    alike(total, done.stdout.split()[0])


def test_fork_is_said_once():
    """The child of a process that had opened OpenCL runs on the host, which is said in one line."""
    done = python(FORK.format(first="parent-first", total="0"), timeout=60)
    said = [line for line in complaints(done) if "fork" in line]
    assert len(said) in (1, 2), done.stderr  # a line for each of the two forked processes, at most


@pytest.mark.parametrize("seconds", [0.002, 0.02])
def test_fork_while_another_thread_opens(seconds):
    """A fork while another thread is opening OpenCL: the child finds no lock held, and computes."""
    done = python("import os, signal, threading, time, torch\nx = torch.ones(8, 8)\n"
                  "opener = threading.Thread(target=lambda: x + x)\nopener.start()\n"
                  f"time.sleep({seconds})\nchild = os.fork()\n"
                  "if child == 0:\n    signal.alarm(20)\n    os._exit(0 if (x + x).sum().item() == 128 else 1)\n"
                  "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\nopener.join()\n", timeout=60)
    assert done.returncode == 0 and done.stdout == "0\n", done.stderr


def test_fork_server_and_spawn():
    source = ("import torch, multiprocessing as m\n"
              "def work(i):\n    return (torch.ones(8, 8) @ torch.ones(8, 8) * i).sum().item()\n"
              "if __name__ == '__main__':\n    for kind in ('spawn', 'forkserver'):\n"
              "        with m.get_context(kind).Pool(2) as pool:\n            print(pool.map(work, range(4)))\n")
    file = BUILD / "tests" / f"pool-{os.getpid()}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    try:
        same_as_plain([sys.executable, file])
    finally:
        file.unlink()


def loaded_by(folder):
    """Names of all files that the dynamic linker loaded in the processes that wrote LD_DEBUG=files output to `folder`."""
    text = "".join(file.read_text(errors="replace") for file in folder.iterdir())
    assert LIBRARY.name in text, "the library itself was not preloaded"
    return text


@pytest.mark.parametrize("command", [["bash", "-c", "ls / >/dev/null; echo $((6 * 7))"],
                                     ["gcc", "-x", "c", "-", "-o", "/dev/null"], [sys.executable, "-c", "print(42)"]],
                         ids=["bash", "gcc", "python"])
def test_programs_without_operators_never_open_opencl(command, tmp_path):
    source = "int main(void) { return 0; }\n" if command[0] == "gcc" else ""
    done = subprocess.run(command, input=source, text=True, capture_output=True, check=False,
                          env=environment(LD_DEBUG="files", LD_DEBUG_OUTPUT=tmp_path / "ld"))
    assert done.returncode == 0, done.stderr
    loaded = loaded_by(tmp_path)
    for name in ("libOpenCL", "libpocl", "libLLVM", "libclblast"):
        assert name not in loaded
    assert done.stderr == "" or LIBRARY.name not in done.stderr


def test_import_torch_alone_never_opens_opencl(tmp_path):
    done = python("import torch; print(torch.empty(3).shape)", LD_DEBUG="files", LD_DEBUG_OUTPUT=tmp_path / "ld")
    assert done.returncode == 0, done.stderr
    assert "libOpenCL" not in loaded_by(tmp_path)


def test_no_inherit():
    """GEMS_NO_INHERIT=1: children start without us, other entries of LD_PRELOAD stay."""
    other = "libSegFault-not-there.so"
    done = python("import os, subprocess, torch\n(torch.ones(8, 8) + 1).sum()\n"
                  "print(subprocess.run(['sh', '-c', 'echo \"[$LD_PRELOAD]\"'], capture_output=True, text=True).stdout)",
                  GEMS_NO_INHERIT=1, LD_PRELOAD=f"{LIBRARY}:{other}")
    assert done.stdout.strip() == f"[{other}]", done.stdout


def test_set_uid_program_is_left_alone(tmp_path):
    """The dynamic linker drops us in a set-uid program."""
    if os.getuid() != 0:
        pytest.skip("needs root to make a set-uid program of another user")
    folder = pathlib.Path("/var/tmp") / f"gems-setuid-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        cat = folder / "cat"
        shutil.copy("/bin/cat", cat)
        cat.chmod(0o4755)
        library = folder / LIBRARY.name
        shutil.copy(LIBRARY, library)
        library.chmod(0o755)
        done = subprocess.run([cat, "/proc/self/maps"], user=65534, text=True, capture_output=True, check=False,
                              env={"LD_PRELOAD": str(library), "GEMS_LOG": str(tmp_path / "log")})
        assert done.returncode == 0, done.stderr
        assert LIBRARY.name not in done.stdout and "libc" in done.stdout
        cat.chmod(0o755)
        done = subprocess.run([cat, "/proc/self/maps"], user=65534, text=True, capture_output=True, check=False,
                              env={"LD_PRELOAD": str(library)})
        assert LIBRARY.name in done.stdout  # the same program without the bit is preloaded: the test can fail
    finally:
        shutil.rmtree(folder)


# ---- other devices ----

def test_device_with_small_work_groups(tmp_path):
    """Every family's kernels on a device whose work-groups hold 64 work-items, those for GPUs included: PoCL, passed off as
    a GPU."""
    shim = tmp_path / "small_groups.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", shim, program("small_groups.c"), "-Wl,--no-as-needed",
                    "-lOpenCL", "-ldl"], env=environment(preload=False), check=True)
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                pathlib.Path(__file__).parent / "test_every_kernel.py"], LD_PRELOAD=f"{LIBRARY}:{shim}", GEMS_VENDOR="pocl",
               GEMS_TEST_EVERY="family", POCL_MAX_WORK_GROUP_SIZE=64, timeout=600)
    assert done.returncode == 0, done.stdout


# ---- what goes wrong ----

def test_small_program_is_routed():
    """What the tests below compare with."""
    done = python(SMALL)
    assert done.stdout.strip() == SMALL_RESULT and routed(done) > 0 and not complaints(done), done.stderr


NO_DEVICE = {"vendor": {"GEMS_VENDOR": "nosuchvendor"}, "driver": {"OCL_ICD_VENDORS": "/nonexistent"}}


@pytest.mark.parametrize("what", NO_DEVICE)
def test_no_device(what):
    """No such vendor, or no driver at all: one clear line, and the host's result."""
    done = python(SMALL, **NO_DEVICE[what])
    assert done.returncode == 0 and done.stdout.strip() == SMALL_RESULT, done.stderr
    assert len(complaints(done)) == 1, done.stderr
    assert routed(done) == 0
    if what == "vendor":
        assert "nosuchvendor" in complaints(done)[0]


def test_device_number_that_is_too_large():
    """One clear line, and the first device serves."""
    done = python(SMALL, GEMS_DEVICE=99)
    assert done.returncode == 0 and done.stdout.strip() == SMALL_RESULT and routed(done) > 0, done.stderr
    assert len(complaints(done)) == 1 and "GEMS_DEVICE=99" in complaints(done)[0]


@pytest.mark.parametrize("what", NO_DEVICE)
def test_strict_aborts(what):
    """GEMS_STRICT=1: the same ends the process, and says why."""
    done = python(SMALL, GEMS_STRICT=1, **NO_DEVICE[what])
    assert done.returncode == -signal.SIGABRT
    assert complaints(done) and done.stdout == ""


@pytest.mark.parametrize("table", ['{"rules": [', '{"rules": [{"op": "nosuchoperator"}]}', "/nonexistent/table.json", "[]"])
def test_broken_table(table):
    """GEMS_TUNE_JSON that does not parse, names something unknown or is not there: one line, and the layer below serves."""
    done = python(SMALL, GEMS_TUNE_JSON=table)
    assert done.returncode == 0 and done.stdout.strip() == SMALL_RESULT, done.stderr
    assert len(complaints(done)) == 1 and "GEMS_TUNE_JSON" in done.stderr or "table.json" in done.stderr, done.stderr


def test_log_that_cannot_be_written(tmp_path):
    done = python(SMALL, GEMS_LOG="/nonexistent/folder/log")
    assert done.returncode == 0 and done.stdout.strip() == SMALL_RESULT
    assert len(complaints(done)) == 1 and "GEMS_LOG" in complaints(done)[0], done.stderr
    done = python(SMALL, GEMS_LOG="/dev/full")
    assert done.returncode == 0 and done.stdout.strip() == SMALL_RESULT
    assert len(complaints(done)) == 1, done.stderr


def test_log_has_a_line_a_call(tmp_path):
    done = python(SMALL, GEMS_LOG=tmp_path / "log-%p")
    logs = list(tmp_path.iterdir())
    assert len(logs) == 1 and logs[0].name[4:].isdigit()
    lines = logs[0].read_text().splitlines()
    assert any("mm" in line and "8x8" in line.replace(" ", "").replace("[8,8]", "8x8") for line in lines), lines
    assert len(lines) >= routed(done)


@pytest.mark.parametrize("variable", ["GEMS_ROUTE=sideways", "GEMS_DEVICE=minus", "GEMS_CHECK=-3", "GEMS_LOG_ONCE=perhaps",
                                      "GEMS_EXCLUDE=nosuchoperator"])
def test_value_that_makes_no_sense(variable):
    """One clear line that names the variable; the value is ignored."""
    name, value = variable.split("=")
    done = python(SMALL, **{name: value})
    assert done.returncode == 0 and done.stdout.strip() == SMALL_RESULT
    assert len(complaints(done)) == 1 and name in complaints(done)[0], done.stderr


def test_cache_folder_that_cannot_be_written(tmp_path):
    for folder in ("/proc/nothing", tmp_path / "file" / "below"):
        (tmp_path / "file").touch()
        done = python(SMALL, GEMS_CACHE_DIR=folder)
        assert done.returncode == 0 and done.stdout.strip() == SMALL_RESULT and routed(done) > 0, done.stderr


# Before anything is opened; what is in the way; what is said. PoCL would end the process in each of these.
NO_KERNELS = {
    "linker's end unseen": ("import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "SIGCHLD"),
    "open files": ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))", "ulimit"),
    "size of files": ("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))", "ulimit"),
    "folder gone": ("import glob, shutil; shutil.rmtree(glob.glob(os.environ['GEMS_CACHE_DIR'] + '/gems-pocl-*')[0])",
                    "No such file"),
}


@pytest.mark.parametrize("what", NO_KERNELS)
def test_kernels_that_cannot_be_built(what, tmp_path):
    """What PoCL needs goes away after it was opened: new kernels stay on the host, which says why; built ones run on."""
    setting, said = NO_KERNELS[what]
    done = python(f"import os, torch\nx = torch.arange(5000.)\nassert (x + x)[3] == 6\n{setting}\n"
                  "assert (x + x)[3] == 6 and (x * x)[3] == 9 and x.cumsum(0)[3] == 6\n",
                  GEMS_CACHE_DIR=tmp_path)
    assert done.returncode == 0 and routed(done) >= 2, done.stderr
    assert complaints(done) and all(said in line for line in complaints(done)), done.stderr


@pytest.mark.parametrize("length", [5000, 0])
def test_spoilt_kernels_of_the_driver(length, tmp_path):
    """What a full disk or a power cut has left of the driver's files, wherever it keeps them, is not loaded."""
    places = {"GEMS_CACHE_DIR": tmp_path / "ours", "POCL_CACHE_DIR": tmp_path / "pocl", "XDG_CACHE_HOME": tmp_path / "xdg"}
    assert python(SMALL + "os_ = __import__('os'); os_.kill(os_.getpid(), 9)", **places).stdout.strip() in ("", SMALL_RESULT)
    assert python(SMALL, **places).stdout.strip() == SMALL_RESULT
    for file in tmp_path.rglob("*"):
        if file.suffix in (".so", ".bc"):
            os.truncate(file, length)
    done = python(SMALL, **places)
    assert done.returncode == 0 and done.stdout.strip() == SMALL_RESULT and routed(done) > 0, done.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_folder_of_kernels_that_is_an_empty_name(tmp_path):
    done = python(SMALL, GEMS_CACHE_DIR=tmp_path, POCL_CACHE_DIR="")
    assert done.returncode == 0 and done.stdout.strip() == SMALL_RESULT and routed(done) > 0, done.stderr


@pytest.mark.parametrize("kib", [64, 80])
def test_thread_with_a_small_stack(kib, tmp_path):
    """The first routed call, from a thread whose stack is too small for drivers and compilers: opening, building and
    launching, small and large; and once more with kernels kept."""
    text = ("import threading, torch\nx, y = torch.arange(64.), torch.rand(1000, 1000).abs()\n"
            "def work():\n    print((x + x).sum().item(), bool((y + 1 > y).all()))\n"
            f"threading.stack_size({kib} * 1024)\nthread = threading.Thread(target=work)\nthread.start()\nthread.join()\n")
    for _ in range(2):
        done = python(text, GEMS_CACHE_DIR=tmp_path)
        assert done.returncode == 0 and done.stdout == "4032.0 True\n" and routed(done) > 2, done.stderr


@pytest.mark.parametrize("name,value", [("POCL_MAX_PTHREAD_COUNT", "-3"), ("POCL_MAX_PTHREAD_COUNT", "99999999999"),
                                        ("POCL_MAX_WORK_GROUP_SIZE", "many")])
def test_drivers_variable_that_makes_no_sense(name, value):
    """PoCL would end the process: it is opened without the variable, which is said once; the program still sees it."""
    done = python(SMALL + f"import os\nprint(os.environ['{name}'])", **{name: value})
    assert done.returncode == 0 and done.stdout.split() == [SMALL_RESULT, value] and routed(done) > 0, done.stderr
    assert len(complaints(done)) == 1 and f"{name}={value}" in complaints(done)[0], done.stderr


def test_a_cpu_device_has_as_many_threads_as_the_host():
    script = """
import os, torch
x = torch.rand(1000000)
before = len(os.listdir("/proc/self/task"))
(x + x).sum().item()
print(len(os.listdir("/proc/self/task")) - before)
"""
    def came(**limits):
        done = python(script, **{"GEMS_FUSE": "off", "POCL_MAX_PTHREAD_COUNT": None, **limits})
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    one, two = came(OMP_NUM_THREADS=1), came(OMP_NUM_THREADS=2)
    assert two == one + 1
    assert came(OMP_NUM_THREADS=1, POCL_MAX_PTHREAD_COUNT=2) == two  # who asks for it gets it


def test_kernels_run_while_binaries_are_made(tmp_path):
    """Binaries are made when nothing has been built for a while, also of a kernel that runs all the time: PoCL must not be
    asked for one then."""
    done = python("import time, torch\nx = torch.rand(1000000)\n"
                  "for op in (torch.exp, torch.sin, torch.cos, torch.abs):\n"
                  "    op(x)\n"
                  "import pathlib, sys\n"
                  "binaries = lambda: len(list(pathlib.Path(sys.argv[1]).rglob('*.bin')))\n"
                  "for op in (torch.tanh, torch.sigmoid, torch.log1p):\n"
                  "    op(x)\n    built = binaries()\n"
                  "    end = time.time() + 2.5\n    while time.time() < end: op(x)\n"
                  "end = time.time() + 120\n"  # a busy machine takes longer
                  "while binaries() <= built and time.time() < end: op(x)\n"
                  "print(binaries() - built)\n", tmp_path, GEMS_CACHE_DIR=tmp_path, GEMS_FUSE="off")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0, "no binary was made while kernels ran"


def test_corrupt_cache_entries(tmp_path):
    """Cut short, emptied and overwritten entries are built anew."""
    assert python(SMALL, GEMS_CACHE_DIR=tmp_path).stdout.strip() == SMALL_RESULT
    entries = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    assert entries, "nothing was kept"
    for i, file in enumerate(entries):
        data = file.read_bytes()
        file.write_bytes([data[:len(data) // 2], b"", os.urandom(len(data))][i % 3])
    done = python(SMALL, GEMS_CACHE_DIR=tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == SMALL_RESULT and routed(done) > 0, done.stderr


def test_check_compares_both_sides():
    """GEMS_CHECK=N runs calls on both sides and reports the largest error of each operator."""
    done = python(SMALL, GEMS_CHECK=2)
    assert done.returncode == 0 and done.stdout.strip() == SMALL_RESULT
    assert "mm" in done.stderr and "softmax" in done.stderr


@pytest.mark.skipif(gems.lib is None, reason="needs this process to be preloaded")
def test_disabled():
    for variables in ({"GEMS_DISABLE": 1}, {"GEMS_ROUTE": "off"}, {"GEMS_ONLY": "abs"}):
        done = python(SMALL, **variables)
        assert done.returncode == 0 and done.stdout.strip() == SMALL_RESULT
        assert "libpocl" not in done.stderr and not complaints(done)
