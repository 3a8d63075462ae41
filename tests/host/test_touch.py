"""All ways in which a program's memory is read or written outside PyTorch's operators: each finds results that are not
computed yet, and none spoils what a computation that has not run yet will read. Each way is a small program in a process
of its own; what it read is compared with plain arithmetic."""
import json
import os
import pathlib
import re
import signal
import sys
import textwrap

import pytest

from processes import complaints, run

LARGE, SMALL = 1 << 18, 300  # elements; the small ones are no blocks of ours
SIZES = LARGE, SMALL

# ---- what a program has ----

PREAMBLE = """
import array, copy, ctypes, faulthandler, io, mmap, os, pickle, select, signal, socket, subprocess, sys, tempfile, threading
import numpy as np
import torch
import torch.multiprocessing as mp

libc = ctypes.CDLL(None, use_errno=True)
for name in "read", "write", "fread", "fwrite", "process_vm_readv", "process_vm_writev":
    getattr(libc, name).restype = ctypes.c_ssize_t
libc.fdopen.restype = ctypes.c_void_p


def numbers(n):
    return torch.arange(n, dtype=torch.float32).remainder(1000)

def result(n):
    "Pending, if anything is: i % 1000 * 2 + 1."
    return numbers(n) * 2 + 1

def fresh(n):
    "What is written over an input: i % 777 + 3."
    return array.array("f", [i % 777 + 3 for i in range(n)]).tobytes()

def checksum(data):
    "In Python's integers, with the places of the elements."
    a = array.array("f")
    a.frombytes(data)
    return len(a), sum(int(v) * (i % 7 + 1) for i, v in enumerate(a))

def size(t):
    return t.numel() * t.element_size()

def raw(t):
    "The tensor's memory as a buffer, without asking PyTorch for more than its address."
    memory = (ctypes.c_char * size(t)).from_address(t.data_ptr())
    memory.tensor = t  # which stays
    return memory

def pointer(t):
    return ctypes.c_void_p(t.data_ptr())

class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]

def from_file(write):
    "What write(fd) has put into a file."
    with tempfile.TemporaryFile() as f:
        write(f.fileno())
        return os.pread(f.fileno(), 1 << 24, 0)

files = []

def file_with(data):
    "Open until the end."
    files.append(f := tempfile.TemporaryFile())
    f.write(data)
    f.flush()
    f.seek(0)
    return f

def from_peer(send):
    "What send(socket) has sent, received by another thread."
    a, b = socket.socketpair()
    parts = []
    def receive():
        while part := b.recv(1 << 20):
            parts.append(part)
    thread = threading.Thread(target=receive)
    thread.start()
    send(a)
    a.close()
    thread.join()
    b.close()
    return b"".join(parts)

def from_peer_into(data, n, receive):
    "Lets receive(socket, k) take n bytes that another thread sends, the next k behind each other."
    a, b = socket.socketpair()
    thread = threading.Thread(target=lambda: (a.sendall(data), a.close()))
    thread.start()
    done = 0
    while done < n:
        done += receive(b, done)
    thread.join()
    b.close()

def whole(call, data):
    "Calls until all of the buffer has gone."
    data = memoryview(data).cast("B")
    while data:
        data = data[call(data):]
"""

MAIN = """
if __name__ == "__main__":
    for n in {sizes}:
        main(n)
"""


def plain(kind, n):
    """The checksum that is right."""
    value = {"result": lambda i: i % 1000 * 2 + 1, "numbers": lambda i: i % 1000, "fresh": lambda i: i % 777 + 3,
             "sum": lambda i: 2 * (i % 1000 * 2 + 1)}[kind]
    return n, sum(value(i) * (i % 7 + 1) for i in range(n))


def start(tmp_path, text, preamble=PREAMBLE, arguments=(), **options):
    """A program in a file, for processes that it spawns."""
    file = tmp_path / "program.py"
    file.write_text(preamble + text)
    return run([sys.executable, file, *arguments], GEMS_FUSE="all", cwd=tmp_path, **options)


def said(done):
    """Complaints, but for what a forked child says when it leaves a call to PyTorch."""
    return [line for line in complaints(done) if "forked after OpenCL was opened" not in line]


def check(done, *expected):
    assert done.returncode == 0, f"status {done.returncode}\n{done.stderr}"
    assert [eval(line) for line in done.stdout.splitlines()] == list(expected), done.stderr
    assert not said(done)


# ---- results are deferred ----

chains = pytest.mark.skipif("GEMS_RESIDENT" in os.environ.get("GEMS_TEST_WITH", ""), reason="what stays on a device is not deferred")

DEFERS = """
import time, torch
x = torch.rand(1 << 20)
for _ in range(100):
    y = (x * 2 + 1).sqrt() - x
    assert abs(y[3].item() - ((x[3].item() * 2 + 1) ** 0.5 - x[3].item())) < 1e-6
    if {until}:
        break
    time.sleep(0.1)
else:
    raise SystemExit(7)
"""


@chains
@pytest.mark.parametrize("mode", ["all", "auto"])
def test_results_are_deferred(mode, tmp_path):
    """What the other tests here count on."""
    log = tmp_path / "log"
    done = run([sys.executable, "-c", DEFERS.format(until="_ == 9")], GEMS_FUSE=mode, GEMS_REPORT=1, GEMS_LOG=log)
    assert done.returncode == 0, done.stderr
    calls, unstored = re.search(r"chains: (\d+) calls in .*; (\d+) results never stored", done.stderr).groups()
    assert int(calls) >= 30 and int(unstored) >= 20
    assert re.search(r"sqrt .* -> routed .*, deferred", log.read_text())


REDUCES = """
import time, torch
with torch.inference_mode():
    x, y = torch.rand(1536, 1000), torch.rand(1000)
    wanted = (x.double() * y.double() + 1).sum(-1)
    for _ in range(400):
        got = (x * y + 1).sum(-1)
        assert torch.allclose(got.double(), wanted, rtol=1e-5)
        time.sleep(0.03)
"""


@chains
def test_reductions_compute_what_they_read():
    done = run([sys.executable, "-c", REDUCES], GEMS_REPORT=1)  # by default
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"chains: .*, (\d+) of them for a reduction", done.stderr)[1]) >= 20, done.stderr


@chains
def test_rules_say_what_is_deferred():
    smaller = DEFERS.replace("1 << 20", "1 << 18").format(until="_ == 39")
    least, never = ('{"rules": [{"op": "*", "chain": %s}]}' % chain for chain in ('{"least_kb": 512}', "false"))
    for script, table, some in ((smaller, least, True), (smaller, "", False), (DEFERS.format(until="_ == 9"), never, False)):
        done = run([sys.executable, "-c", script], GEMS_REPORT=1, **({"GEMS_TUNE_JSON": table} if table else {}))
        assert done.returncode == 0, done.stderr
        assert ("chains: " in done.stderr) == some, done.stderr


@chains
def test_a_chain_that_was_worth_a_kernel_has_one_at_once_in_the_next_process(tmp_path):
    script = """
import sys, time, torch
x = torch.rand(1 << 16)
for _ in range(int(sys.argv[1])):
    assert ((x * 3 - 1).sigmoid() + x)[5].item() > 0
    time.sleep(0.2)
time.sleep(2 + 6 * int(sys.argv[2]))  # for what is done in the background
"""
    for times, kernels in ((1, 0), (2, 1), (1, 1)):
        done = run([sys.executable, "-c", script, str(times), str(kernels)], GEMS_FUSE="all", GEMS_REPORT=1, GEMS_CACHE_DIR=tmp_path)
        assert done.returncode == 0, done.stderr
        assert int(re.search(r"chains: .* (\d+) kernels built", done.stderr)[1]) == kernels, done.stderr


@chains
def test_a_program_that_repeats_itself_wants_the_same_kernels(tmp_path):
    """Also while some of them are not there yet: chains do not begin in the middle of what is one as a rule."""
    program = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "demo" / "options.py"
    done = run([sys.executable, program, "--passes", "30"], GEMS_ROUTE="table", GEMS_REPORT=1, GEMS_CACHE_DIR=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(re.search(r"chains: .* (\d+) kernels built", done.stderr)[1]) <= 20, done.stderr


@chains
def test_the_device_is_opened_in_the_background(tmp_path):
    threads = "any('gems-touch' in open(f'/proc/self/task/{t}/comm').read() for t in __import__('os').listdir('/proc/self/task'))"
    done = run([sys.executable, "-c", DEFERS.format(until=threads)], GEMS_FUSE="auto")
    assert done.returncode == 0, done.stderr
    off = run([sys.executable, "-c", DEFERS.format(until=threads)], GEMS_FUSE="off")
    assert off.returncode == 7, off.stderr


@chains
def test_a_few_large_operators_open_nothing():
    script = """
import torch
x = torch.rand(1 << 20)
for _ in range(3):
    y = (x * 2 + 1).sqrt() - x
raise SystemExit("pocl" in open("/proc/self/maps").read())
"""
    assert run([sys.executable, "-c", script], GEMS_ROUTE="table", GEMS_REPORT=0).returncode == 0
    assert run([sys.executable, "-c", script], GEMS_ROUTE="table", GEMS_REPORT=0, GEMS_FUSE="all").returncode == 1


# ---- results are read ----

SOURCES = {
    # files
    "os.write": "data = from_file(lambda fd: whole(lambda d: os.write(fd, d), raw(y)))",
    "os.write-numpy": "data = from_file(lambda fd: whole(lambda d: os.write(fd, d), y.numpy()))",
    "os.pwrite": "data = from_file(lambda fd: os.pwrite(fd, raw(y), 0))",
    "os.writev": "data = from_file(lambda fd: os.writev(fd, [memoryview(raw(y))[:400], memoryview(raw(y))[400:]]))",
    "os.pwritev": "data = from_file(lambda fd: os.pwritev(fd, [memoryview(raw(y))[:400], memoryview(raw(y))[400:]], 0))",
    "os.pwritev2": "data = from_file(lambda fd: os.pwritev(fd, [raw(y)], 0, os.RWF_HIPRI))",
    "file.write": """
        def write(fd):
            with open(fd, "wb", closefd=False) as f:
                f.write(raw(y))
        data = from_file(write)""",
    "file.write-raw": """
        def write(fd):
            with open(fd, "wb", buffering=0, closefd=False) as f:
                whole(f.write, raw(y))
        data = from_file(write)""",
    "tofile": """
        with tempfile.NamedTemporaryFile() as f:
            y.numpy().tofile(f.name)
            data = f.read()""",
    "np.save": """
        f = io.BytesIO()
        np.save(f, y.numpy())
        data = f.getvalue()[-size(y):]""",
    "libc.write": "data = from_file(lambda fd: libc.write(fd, pointer(y), ctypes.c_size_t(size(y))))",
    "libc.fwrite": """
        def write(fd):
            f = ctypes.c_void_p(libc.fdopen(os.dup(fd), b"w"))
            assert libc.fwrite(pointer(y), ctypes.c_size_t(4), ctypes.c_size_t(y.numel()), f) == y.numel()
            libc.fclose(f)
        data = from_file(write)""",
    "process_vm_readv": """
        buffer = ctypes.create_string_buffer(size(y))
        here, there = Vector(ctypes.addressof(buffer), size(y)), Vector(y.data_ptr(), size(y))
        assert libc.process_vm_readv(os.getpid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0) == size(y)
        data = buffer.raw""",
    # pipes and sockets
    "pipe": """
        r, w = os.pipe()
        parts = []
        def receive():
            while part := os.read(r, 1 << 20):
                parts.append(part)
        thread = threading.Thread(target=receive)
        thread.start()
        whole(lambda d: os.write(w, d), raw(y))
        os.close(w)
        thread.join()
        os.close(r)
        data = b"".join(parts)""",
    "subprocess": "data = subprocess.run(['cat'], input=memoryview(raw(y)), capture_output=True, check=True).stdout",
    "socket.sendall": "data = from_peer(lambda s: s.sendall(raw(y)))",
    "socket.send": "data = from_peer(lambda s: whole(s.send, raw(y)))",
    "socket.sendmsg": "data = from_peer(lambda s: whole(lambda d: s.sendmsg([d[:400], d[400:]]), raw(y)))",
    "socket.sendto": """
        a, b = socket.socketpair(type=socket.SOCK_DGRAM)
        data = b""
        for i in range(0, size(y), 4096):
            a.send(memoryview(raw(y))[i:i + 4096])
            data += b.recv(4096)
        a.close()
        b.close()""",
    # memory
    "ctypes.memmove": """
        buffer = ctypes.create_string_buffer(size(y))
        ctypes.memmove(buffer, y.data_ptr(), size(y))
        data = buffer.raw""",
    "ctypes.string_at": "data = ctypes.string_at(y.data_ptr(), size(y))",
    "buffer": "data = bytes(raw(y))",
    "numpy": "data = y.numpy().tobytes()",
    "np.asarray": "data = np.asarray(y).tobytes()",
    "np.frombuffer": "data = np.frombuffer(raw(y), np.float32).copy().tobytes()",
    "numpy-sum": "assert y.numpy().sum(dtype=np.float64) == sum(i % 1000 * 2 + 1 for i in range(n)); data = bytes(raw(y))",
    "numpy-backwards": "data = y.numpy()[::-1].copy()[::-1].tobytes()",
    "memoryview": "data = memoryview(y.numpy()).tobytes()",
    "view-first": "v = y.numpy(); y.add_(0); data = v.tobytes()",
    "dlpack-numpy": "data = np.from_dlpack(y).tobytes()",
    "dlpack-torch": "z = torch.from_dlpack(y); data = bytes(raw(z))",
    "array-interface": "data = np.array(y, copy=True).tobytes()",
    "storage": "data = ctypes.string_at(y.storage().data_ptr(), size(y))",
    "untyped_storage": "data = ctypes.string_at(y.untyped_storage().data_ptr(), size(y))",
    "storage-items": """
        s = y.untyped_storage()
        data = ctypes.string_at(s.data_ptr(), size(y)) if n > 1000 else bytes(s.tolist())
        assert bytes(s[i] for i in range(400)) == data[:400]""",
    "slice": "data = ctypes.string_at(y[7:].data_ptr() - 28, size(y))",
    "tolist": "data = array.array('f', y.tolist()).tobytes()",
    "item": "data = array.array('f', [y[i].item() for i in range(300)]).tobytes() + bytes(raw(y))[1200:]",
    "clone": "z = y.clone(); data = bytes(raw(z))",
    # PyTorch's own ways out
    "torch.save": """
        f = io.BytesIO()
        torch.save(y, f)
        f.seek(0)
        z = torch.load(f); data = bytes(raw(z))""",
    "torch.save-file": """
        with tempfile.NamedTemporaryFile() as f:
            torch.save({"y": y}, f.name)
            z = torch.load(f.name, mmap=True)["y"]; data = bytes(raw(z))""",
    "torch.save-old": """
        with tempfile.TemporaryFile() as f:
            torch.save(y, f, _use_new_zipfile_serialization=False)
            f.seek(0)
            z = torch.load(f); data = bytes(raw(z))""",
    "pickle": "z = pickle.loads(pickle.dumps(y)); data = bytes(raw(z))",
    "deepcopy": "z = copy.deepcopy(y); data = bytes(raw(z))",
    "share_memory_": "z = y.share_memory_(); data = bytes(raw(z))",
    # threads
    "threads": """
        found = [None] * 6
        def look(i):
            found[i] = ctypes.string_at(y.data_ptr(), size(y))
        threads = [threading.Thread(target=look, args=(i,)) for i in range(6)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        data = found[0]
        assert all(f == data for f in found)""",
    "thread-of-4-tensors": """
        tensors, found = [y] + [result(n) for _ in range(3)], [None] * 4
        def look(i):
            found[i] = bytes(raw(tensors[i]))
        threads = [threading.Thread(target=look, args=(i,)) for i in range(4)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        data = found[0]
        assert all(f == data for f in found)""",
    # processes
    "fork": """
        r, w = os.pipe()
        if os.fork() == 0:
            os.write(w, repr(checksum(raw(y))).encode())
            os._exit(0)
        os.close(w)
        assert os.wait()[1] == 0
        assert os.read(r, 99).decode() == repr(checksum(raw(y)))
        os.close(r)
        data = bytes(raw(y))""",
    "fork-computes": """
        if os.fork() == 0:
            z = y * 2
            os._exit(0 if checksum(raw(z))[1] == 2 * checksum(raw(y))[1] else 1)
        assert os.wait()[1] == 0
        data = bytes(raw(y))""",
    "vfork": "subprocess.run(['true'], check=True, close_fds=False); data = bytes(raw(y))",
    # signals
    "faulthandler": "faulthandler.enable(); data = bytes(raw(y)); assert faulthandler.is_enabled()",
    "signal.signal": """
        def handler(*_):
            raise SystemExit(9)
        signal.signal(signal.SIGSEGV, handler)
        data = bytes(raw(y))
        assert signal.getsignal(signal.SIGSEGV) is handler
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)""",
    "signal-ignored": "signal.signal(signal.SIGSEGV, signal.SIG_IGN); data = bytes(raw(y))",
    "signal-blocked": """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        data = bytes(raw(y))
        assert signal.SIGSEGV in signal.pthread_sigmask(signal.SIG_SETMASK, before)""",
    "signal-blocked-thread": """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGSEGV])
        found = []
        thread = threading.Thread(target=lambda: found.append(bytes(raw(y))))
        thread.start()
        thread.join()
        data = found[0]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGSEGV])""",
    "python-handler": """
        found = []
        signal.signal(signal.SIGUSR1, lambda *_: found.append(bytes(raw(y))))
        os.kill(os.getpid(), signal.SIGUSR1)
        while not found:
            pass
        data = found[0]""",
}


# Runs programs, each in a child that has imported everything: importing PyTorch takes longer than most of them.
APART = """
import json
import os
for way, text in json.load(open(sys.argv[1])).items():
    with tempfile.TemporaryFile("w+") as out:
        sys.stdout.flush()
        if (child := os.fork()) == 0:
            os.dup2(out.fileno(), 1)
            exec(compile(text, way, "exec"), globals())
            break
        status = os.waitpid(child, 0)[1]
        out.seek(0)
        print(json.dumps([way, status, out.read()]))
"""
GROUPS = 6  # of the ways of a test: so many tests, which can run beside each other


def check_ways(tmp_path, ways, group, before, after, *expected):
    """That the programs of this group's ways, or of all, print the checksums of `expected` for each size."""
    chosen = list(ways) if group is None else list(ways)[group::GROUPS]
    programs = {way: program_of(ways[way], before, after) for way in chosen}
    file = tmp_path / "programs.json"
    file.write_text(json.dumps(programs))
    done = start(tmp_path, APART, arguments=[file], timeout=900)
    assert done.returncode == 0 and not said(done), done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [way for way, _, _ in found] == list(programs), done.stderr
    wanted = [plain(kind, n) for n in SIZES for kind in expected]
    wrong = {way: (status, text) for way, status, text in found if status or [eval(line) for line in text.splitlines()] != wanted}
    assert not wrong, done.stderr


def program_of(code, before, after, sizes=SIZES):
    body = "\n".join([before, textwrap.dedent(code).strip("\n"), after])
    return f"\n\ndef main(n):\n{textwrap.indent(body, '    ')}\n" + MAIN.format(sizes=sizes)


@pytest.mark.parametrize("group", range(GROUPS))
def test_result_is_read(group, tmp_path):
    check_ways(tmp_path, SOURCES, group, "y = result(n)", "print(checksum(data))", "result")


def test_input_is_read_while_a_result_is_pending(tmp_path):
    """Reading what a pending computation reads, too, needs nothing and changes nothing."""
    ways = {way: SOURCES[way] for way in ("os.write", "socket.sendmsg", "ctypes.memmove", "numpy", "dlpack-numpy")}
    check_ways(tmp_path, ways, None, "y = result(n)\nbytes(raw(y))\nz = y * 2",
               "print(checksum(data))\nprint(checksum(raw(z)))", "result", "sum")


# ---- inputs are written over ----

TARGETS = {
    "os.readv": "os.readv(file_with(new).fileno(), [memoryview(raw(x))[:400], memoryview(raw(x))[400:]])",
    "os.preadv": "os.preadv(file_with(new).fileno(), [memoryview(raw(x))[:400], memoryview(raw(x))[400:]], 0)",
    "os.preadv2": "os.preadv(file_with(new).fileno(), [raw(x)], 0, os.RWF_HIPRI)",
    "readinto": "file_with(new).readinto(raw(x))",
    "readinto-numpy": "file_with(new).readinto(x.numpy())",
    "readinto-raw": """
        f, done = open(os.dup(file_with(new).fileno()), "rb", buffering=0), 0
        f.seek(0)
        while done < size(x):
            done += f.readinto(memoryview(raw(x))[done:])""",
    "readinto-pipe": """
        r, w = os.pipe()
        thread = threading.Thread(target=lambda: (whole(lambda d: os.write(w, d), new), os.close(w)))
        thread.start()
        with open(r, "rb") as f:
            assert f.readinto(raw(x)) == size(x)
        thread.join()""",
    "np.fromfile": "x.numpy()[:] = np.fromfile(file_with(new), np.float32)",
    "libc.read": "assert libc.read(file_with(new).fileno(), pointer(x), ctypes.c_size_t(size(x))) == size(x)",
    "libc.fread": """
        f = ctypes.c_void_p(libc.fdopen(os.dup(file_with(new).fileno()), b"r"))
        assert libc.fread(pointer(x), ctypes.c_size_t(4), ctypes.c_size_t(n), f) == n
        libc.fclose(f)""",
    "process_vm_writev": """
        buffer = ctypes.create_string_buffer(new, len(new))
        here, there = Vector(ctypes.addressof(buffer), size(x)), Vector(x.data_ptr(), size(x))
        assert libc.process_vm_writev(os.getpid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0) == size(x)""",
    "recv_into": "from_peer_into(new, size(x), lambda s, k: s.recv_into(memoryview(raw(x))[k:]))",
    "recvfrom_into": "from_peer_into(new, size(x), lambda s, k: s.recvfrom_into(memoryview(raw(x))[k:])[0])",
    "recvmsg_into": """
        def receive(s, k):
            rest = memoryview(raw(x))[k:]
            return s.recvmsg_into([rest[:100], rest[100:]])[0]
        from_peer_into(new, size(x), receive)""",
    "recv_into-waits": """
        a, b = socket.socketpair()
        thread = threading.Thread(target=lambda: b.recv_into(raw(x), size(x), socket.MSG_WAITALL))
        thread.start()
        half = len(new) // 2
        a.sendall(new[:half])
        w = numbers(n) * 3  # others go on meanwhile
        a.sendall(new[half:])
        thread.join()
        assert checksum(raw(w))[0] == n""",
    "ctypes.memmove": "ctypes.memmove(x.data_ptr(), new, size(x))",
    "numpy": "x.numpy()[:] = np.frombuffer(new, np.float32)",
    "np.asarray": "np.copyto(np.asarray(x), np.frombuffer(new, np.float32))",
    "numpy-view-from-before": "v[:] = np.frombuffer(new, np.float32)",
    "memoryview": "memoryview(x.numpy()).cast('B')[:] = new",
    "buffer": "raw(x)[:] = new",
    "storage": "ctypes.memmove(x.untyped_storage().data_ptr(), new, size(x))",
    "storage-items": """
        raw(x)[400:] = new[400:]
        s = x.untyped_storage()
        for i in range(400):
            s[i] = new[i]""",
    "dlpack": "torch.from_dlpack(x.__dlpack__()).numpy()[:] = np.frombuffer(new, np.float32)",
    "operator": "x.copy_(torch.frombuffer(bytearray(new), dtype=torch.float32))",
    "thread": """
        thread = threading.Thread(target=lambda: ctypes.memmove(x.data_ptr(), new, size(x)))
        thread.start()
        thread.join()""",
    "set_": "w = x; w.set_(torch.frombuffer(bytearray(new), dtype=torch.float32).clone())",
    "freed": """
        del x
        others = [torch.empty(n) for _ in range(3)]  # perhaps where it was
        for x in others:
            raw(x)[:] = new""",
}


@pytest.mark.parametrize("group", range(GROUPS))
def test_input_is_written_over(group, tmp_path):
    """A pending result is of what the input was when it was called; the input is what was written."""
    ways = {way: code.replace("del x", "del x, v") for way, code in TARGETS.items()}
    check_ways(tmp_path, ways, group, "x, new = numbers(n), fresh(n)\nbytes(raw(x))\nv = x.numpy()\ny = x * 2 + 1",
               "print(checksum(raw(y)))\nprint(checksum(raw(x)))", "result", "fresh")


@pytest.mark.parametrize("group", range(GROUPS))
def test_result_is_written_over(group, tmp_path):
    """What is written over a pending result stays, and a result of the pending one is of what that was to be."""
    ways = {way: code for way, code in TARGETS.items() if way not in ("freed", "set_", "numpy-view-from-before")}
    check_ways(tmp_path, ways, group, "new = fresh(n)\nx = result(n)\nz = x * 2",
               "print(checksum(raw(x)))\nprint(checksum(raw(z)))", "fresh", "sum")


def test_a_part_is_written(tmp_path):
    """A write of four bytes leaves the rest of a pending result."""
    done = start(tmp_path, program_of("raw(y)[40:44] = bytes(raw(y))[40:44]", "y = result(n)", "print(checksum(raw(y)))"))
    check(done, *(plain("result", n) for n in SIZES))


# ---- several processes ----

MULTI = """
def child(queue, back):
    t = queue.get()
    back.put(checksum(raw(t)))
    t.numpy()[:] = np.frombuffer(fresh(t.numel()), np.float32)  # the memory is shared
    back.put("written")

def main(n):
    mp.set_sharing_strategy("{strategy}")
    context = mp.get_context("{method}")
    queue, back = context.Queue(), context.Queue()
    y = result(n)
    process = context.Process(target=child, args=(queue, back))
    process.start()
    queue.put(y)
    print(back.get())
    assert back.get() == "written"
    process.join()
    assert process.exitcode == 0
    print(checksum(raw(y)))
    z = y * 2
    print(checksum(raw(z))[1] - 2 * checksum(raw(y))[1])
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
def test_multiprocessing(strategy, method, tmp_path):
    done = start(tmp_path, MULTI.format(strategy=strategy, method=method) + MAIN.format(sizes=SIZES))
    check(done, *(line for n in SIZES for line in (plain("result", n), plain("fresh", n), 0)))


GLOO = """
import torch.distributed as dist

def rank(r, file, n):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=r, world_size=2)
    y = result(n)
    dist.all_reduce(y)
    sums = checksum(raw(y))
    x = numbers(n) if r else result(n)
    z = x * 2  # reads what the broadcast writes over
    dist.broadcast(x, 0)
    got, twice = checksum(raw(x)), checksum(raw(z))
    parts = [torch.empty(n) for _ in range(2)]
    dist.all_gather(parts, result(n))
    gathered = [checksum(raw(p)) for p in parts]
    if r == 0:
        dist.send(result(n), 1)
    else:
        dist.recv(x, 0)
    # Rank after rank: lines of two processes must not mix.
    for turn in range(2):
        if turn == r:
            print(sums, got, *gathered, checksum(raw(x)), twice[1], sep=", ", flush=True)
        dist.barrier()
    dist.destroy_process_group()

def main(n):
    file = tempfile.mktemp(dir=os.getcwd())
    mp.spawn(rank, args=(file, n), nprocs=2)
"""


def test_gloo(tmp_path):
    done = start(tmp_path, GLOO + MAIN.format(sizes=SIZES))
    check(done, *((plain("sum", n), plain("result", n), plain("result", n), plain("result", n), plain("result", n),
                   2 * plain("numbers" if r else "result", n)[1]) for n in SIZES for r in range(2)))


# ---- ends, with results pending ----

ENDS = {
    "end": ("", 0),
    "kept-by-a-module": ("torch.kept = y", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "os._exit": ("os._exit(4)", 4),
    "exception": ("raise SystemExit(5)", 5),
    "exec": ("os.execv('/bin/true', ['true'])", 0),
    "abort": ("os.abort()", -signal.SIGABRT),
    "sigterm": ("os.kill(os.getpid(), signal.SIGTERM); signal.pause()", -signal.SIGTERM),
    "atexit-reads": ("import atexit; atexit.register(lambda: os._exit(6 if checksum(raw(y)) == EXPECTED else 7))", 6),
    "thread-reads-at-exit": ("threading.Thread(target=lambda: os._exit(6 if checksum(raw(y)) == EXPECTED else 7)).start()", 6),
    "freed": ("del y", 0),
    "fork-exit": ("p = os.fork()\nif p: assert os.wait()[1] == 0", 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_end_with_a_result_pending(end, tmp_path):
    code, status = ENDS[end]
    done = start(tmp_path, f"EXPECTED = {plain('result', LARGE)}\ny = result({LARGE})\n{code}\n")
    assert done.returncode == status, done.stderr
    assert not done.stdout and not said(done)
    assert "Traceback" not in done.stderr and "terminate" not in done.stderr


# ---- crashes are as without us ----

CRASH = "ctypes.string_at(0)"
CRASHES = {
    "null": (CRASH, -signal.SIGSEGV, False),
    "kill": ("os.kill(os.getpid(), signal.SIGSEGV); import time; time.sleep(9)", -signal.SIGSEGV, False),
    "faulthandler-before": ("faulthandler.enable(); y = result(N); bytes(raw(y)); " + CRASH, -signal.SIGSEGV, True),
    "faulthandler-after": ("bytes(raw(y)); faulthandler.enable(); " + CRASH, -signal.SIGSEGV, True),
    "faulthandler-pending": ("faulthandler.enable(); z = y * 2; " + CRASH, -signal.SIGSEGV, True),
    "faulthandler-and-vfork": ("faulthandler.enable(); bytes(raw(y)); subprocess.run(['true'], close_fds=False); " + CRASH,
                               -signal.SIGSEGV, True),
    "faulthandler-disabled": ("faulthandler.enable(); bytes(raw(y)); faulthandler.disable(); " + CRASH, -signal.SIGSEGV,
                              False),
    "ignored": ("signal.signal(signal.SIGSEGV, signal.SIG_IGN); bytes(raw(y)); " + CRASH, -signal.SIGSEGV, False),
    "blocked": ("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGSEGV]); bytes(raw(y)); " + CRASH, -signal.SIGSEGV,
                False),
    "thread": ("faulthandler.enable(); bytes(raw(y)); threading.Thread(target=ctypes.string_at, args=(0,)).start(); "
               "import time; time.sleep(9)", -signal.SIGSEGV, True),
    "fork": ("bytes(raw(y)); p = os.fork() or ctypes.string_at(0); "
             "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) + 20)", 20 - signal.SIGSEGV, False),
    "sent-and-handled": ("found = []; signal.signal(signal.SIGSEGV, lambda *_: found.append(1)); bytes(raw(y)); "
                         "os.kill(os.getpid(), signal.SIGSEGV); raise SystemExit(8 + len(found))", 9, False),
}


@pytest.mark.parametrize("crash", CRASHES)
def test_crash(crash, tmp_path):
    code, status, traced = CRASHES[crash]
    text = f"N = {LARGE}\ny = result(N)\n{code}\n"
    for preload in (False, True):
        done = start(tmp_path, text, preload=preload)
        assert done.returncode == status, done.stderr
        assert ("Fatal Python error: Segmentation fault" in done.stderr) == traced
        assert ("program.py" in done.stderr) == traced, done.stderr
        assert "Stack dump" not in done.stderr and "PLEASE submit a bug report" not in done.stderr


HANDLER = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
static int code; static void *address;
static void handler(int sig, siginfo_t *info, void *context) { (void)context; code = info->si_code; address = info->si_addr;
    char text[80]; int n = snprintf(text, sizeof text, "%d %d %p\n", sig, code, address); write(1, text, n); _exit(0); }
void install(void) { struct sigaction a = {0}; a.sa_sigaction = handler; a.sa_flags = SA_SIGINFO; sigaction(SIGSEGV, &a, 0); }
"""


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_handler_in_c_is_told_the_same(before, tmp_path):
    source, library = tmp_path / "handler.c", tmp_path / "handler.so"
    source.write_text(HANDLER)
    run(["cc", "-shared", "-fPIC", "-w", "-o", library, source], preload=False).check_returncode()
    install = f"ctypes.CDLL('{library}').install()\n"
    text = f"y = result({LARGE})\nbytes(raw(y))\nctypes.string_at(4096)\n"
    text = install + text if before else text.replace("ctypes.string_at", install + "ctypes.string_at")
    done = start(tmp_path, text)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "11 1 0x1000\n"
