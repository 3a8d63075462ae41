"""Products by CLBlast, as a rule of the table chooses it: agreement with the host, what goes to our own kernels instead, and
whole programs: with copies, with that library missing, with its calls failing.

A user's table needs one rule: {"rules": [{"family": "blas", "dtype": ["f32"], "variant": "clblast"}]}"""
import ctypes
import itertools
import shutil

import pytest
import torch
import torch.nn.functional as F

import gems
from agree import agree
from processes import complaints, python, routed, run
from test_blas import close, layouts, values

RULE = '{"rules": [{"family": "blas", "dtype": ["f32", "f64"], "variant": "clblast"}]}'


@pytest.fixture
def clblast():
    error = ctypes.create_string_buffer(200)
    assert gems.lib.gems_table_set(b'{"rules": [{"family": "blas", "variant": "clblast"}]}', error, 200) == 0, error.value
    yield
    gems.lib.gems_table_set(None, error, 200)


def clblast_agrees(fn, *args, why="", **kwargs):
    """agree, and CLBlast served the call; or, with `why`, our kernel did, since CLBlast could not for that reason."""
    reasons = []

    def noted(*args):
        result = fn(*args)
        reasons.append(gems.last_reason())
        return result
    agree(noted, *args, **kwargs)
    assert why in reasons[1] and bool(why) == bool(reasons[1]), reasons[1]


# CLBlast builds a kernel for each dtype and each pair of transposed operands, seconds each: few are asked for.

@pytest.mark.long
def test_clblast_mm(clblast):
    """Pairs of layouts, also with an offset, and results with gaps; sizes off and on CLBlast's own tiles."""
    for m, n, k in [(37, 50, 70), (128, 64, 300), (5, 2000, 9), (300, 320, 310), (256, 256, 256)]:
        near = close(torch.float32, k)
        for a, b in itertools.product(list(layouts(m, k))[:3], list(layouts(k, n))[:3]):
            clblast_agrees(torch.mm, a, b, op="mm", **near)
        for out in list(layouts(m, n))[:3]:
            clblast_agrees(lambda x, y, o: torch.mm(x, y, out=o), values((m, k)), values((k, n)), out, op="mm.out", **near)


@pytest.mark.long
def test_clblast_f64(clblast):
    a, b, near = values((37, 70), torch.float64), values((70, 50), torch.float64), close(torch.float64, 300)
    clblast_agrees(torch.mm, a, b, op="mm", **near)
    clblast_agrees(lambda x, y, z: torch.addmm(z, x, y, beta=1 / 3, alpha=1 / 7), a, b, values((50,), torch.float64), op="addmm", **near)


def test_clblast_addmm(clblast):
    m, n, k = 37, 50, 70
    a, b, near = values((m, k)), values((n, k)).t(), close(torch.float32, 4 * k)

    def factors(s, p, q):
        return torch.addmm(s, p, q, beta=-0.5, alpha=1.5)
    for shape in [(m, n), (n,), (m, 1), (1, n), ()]:
        clblast_agrees(torch.addmm, values(shape), a, b, op="addmm", **near)
        clblast_agrees(factors, values(shape), a, b, op="addmm", **near)
    for x in list(layouts(m, n))[:3]:
        clblast_agrees(lambda s, p, q: s.addmm_(p, q, beta=0.5, alpha=2), x, a, b, op="addmm_", **near)
        clblast_agrees(lambda s, p, q, o: torch.addmm(s, p, q, beta=0.5, out=o), values((n,)), a, b, x, op="addmm.out", **near)
    clblast_agrees(lambda s, p, q: torch.addmm(s, p, q, beta=0), torch.full((m, n), float("nan")), a, b, op="addmm", **near)
    a[3, 4], b[5, 6] = float("nan"), float("inf")
    clblast_agrees(torch.addmm, values((n,)), a, b, op="addmm", **near)
    with torch.no_grad():
        clblast_agrees(F.linear, values((3, 5, 40)), values((30, 40)), values((30,)), op="linear", **close(torch.float32, 40))


@pytest.mark.long
def test_clblast_bmm(clblast):
    b, m, n, k = 4, 20, 34, 18
    right, near = values((b, k, n)), close(torch.float32, 3 * k)
    for x in [values((b, m, k)), values((b, k, m)).transpose(1, 2), values((m, b, k)).transpose(0, 1), values((1, m, k)).expand(b, m, k)]:
        clblast_agrees(torch.bmm, x, right, op="bmm", **near)
    clblast_agrees(torch.bmm, values((b, m, k)), values((b, k + 1, n + 3))[:, 1:, 2:-1], op="bmm", **near)
    clblast_agrees(lambda s, x, y: torch.baddbmm(s, x, y, beta=2), values((m, 1)), values((b, m, k)), right, op="baddbmm", **near)
    clblast_agrees(lambda s, x, y: s.baddbmm_(x, y), values((b, m, n)), values((b, m, k)), right, op="baddbmm_", **near)
    clblast_agrees(lambda x, y, o: torch.bmm(x, y, out=o), values((b, m, k)), right, values((m, b, n)).transpose(0, 1), op="bmm.out", **near)


@pytest.mark.long
def test_clblast_vectors(clblast):
    for m, k in [(100, 300), (3, 4000), (1, 5), (64, 64)]:
        near = close(torch.float32, 3 * k)
        for a in list(layouts(m, k))[:3]:
            clblast_agrees(torch.mv, a, values((k,)), op="mv", **near)
            clblast_agrees(lambda s, p, q: torch.addmv(s, p, q, beta=0.5, alpha=2), values((m,)), a, values((2 * k,))[::2], op="addmv", **near)
            clblast_agrees(lambda s, p, q: s.addmv_(p, q), values((2 * m,))[::2], a, values((k,)), op="addmv_", **near)
            clblast_agrees(torch.mm, values((1, k)), a.t(), op="mm", **near)
        clblast_agrees(torch.mv, values((m, k)), torch.full((k,), float("inf")), op="mv", **near)
    clblast_agrees(torch.dot, values((3000,))[::3], values((1000,)), op="dot", **close(torch.float32, 1000))


def test_clblast_leaves_the_rest_to_our_kernels(clblast):
    for a, b, why in [(values((8, 20))[:, ::2], values((10, 9)), "strides"), (values((1, 9)).expand(8, 9), values((9, 9)), "strides"),
                      (values((8, 9), torch.bfloat16), values((9, 9), torch.bfloat16), "dtype"),
                      (values((8, 9), torch.float16), values((9, 9), torch.float16), "dtype"),
                      (values((8, 0)), values((0, 9)), "nothing to sum"), (values((8, 9), torch.int32), values((9, 9), torch.int32), "dtype")]:
        clblast_agrees(torch.mm, a, b, op="mm", why=why, **close(a.dtype, 10))


# ---- whole programs ----

PROGRAM = """import torch
x = torch.arange(64.0).reshape(8, 8) % 5
for _ in range(5):
    y = x.clone().addmm_(x, x, beta=2)
print((y + x @ y).sum().item())
"""
RESULT = "37780.0"


def by_clblast(log):
    return [line for line in log.read_text().splitlines() if "routed blas clblast by" in line]


@pytest.mark.parametrize("memory", ["auto", pytest.param("staged", marks=pytest.mark.long)])
def test_program(memory, tmp_path):
    done = python(PROGRAM, GEMS_ROUTE="table", GEMS_TUNE_JSON=RULE, GEMS_MEMORY=memory, GEMS_LOG=tmp_path / "log")
    assert done.stdout.split() == [RESULT], done.stderr
    assert len(by_clblast(tmp_path / "log")) == 6


def test_program_without_clblast(tmp_path):
    """Another library under that name is found first: our own kernels serve, and one line says why."""
    run([shutil.which("cc"), "-shared", "-o", tmp_path / "libclblast.so.1", "-x", "c", "/dev/null"], preload=False).check_returncode()
    done = python(PROGRAM, GEMS_ROUTE="table", GEMS_TUNE_JSON=RULE, LD_LIBRARY_PATH=tmp_path, GEMS_LOG=tmp_path / "log")
    assert done.stdout.split() == [RESULT] and routed(done) == 6
    assert not by_clblast(tmp_path / "log")
    assert (tmp_path / "log").read_text().count("libclblast.so.1 lacks") == 7  # once by itself, once a call
    assert python(PROGRAM, GEMS_TUNE_JSON=RULE, LD_LIBRARY_PATH=tmp_path).stderr.count("own kernels serve") == 1


def test_program_with_failures():
    """From some OpenCL call on all fail: the host serves, in place too."""
    for n in (-30, -60):
        done = python(PROGRAM, GEMS_TUNE_JSON=RULE, GEMS_FAULT=n)
        assert done.stdout.split() == [RESULT], done.stderr
        assert any("GEMS_FAULT" in line for line in complaints(done))
