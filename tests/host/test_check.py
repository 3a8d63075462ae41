"""GEMS_CHECK=N: the first N calls of each operator and class run on both sides. Each as a real process."""
import pytest

from processes import LIBRARY, complaints, python

# Functional, in-place, through a view, out=, another dtype, several results, a composite and a list: two calls of each.
PROGRAM = """
import torch
nan, inf = float("nan"), float("inf")
x = torch.tensor([[1., -2, 3], [nan, inf, 0]])
for _ in range(2):
    made = [torch.neg(x), x.clone().neg_(), torch.neg(x, out=torch.empty(2, 3)), torch.neg(torch.tensor([2**62 + 1, -5])),
            torch.neg(torch.arange(4, dtype=torch.int8)), torch.neg(x.half()), *torch.max(x[:1], 0), torch.cat([x, x])]
    square = torch.arange(16.0).reshape(4, 4)
    square.t()[::2].neg_()
    made.append(square)
    with torch.inference_mode():
        made += [torch.neg(x), torch.nn.functional.linear(x[:1], x[:1])]
    for t in made:
        print(t.dtype, t.tolist())
"""


@pytest.fixture(scope="module")
def plain():
    return python(PROGRAM, preload=False).stdout


@pytest.fixture(scope="module")
def wrong_library(tmp_path_factory):
    """The library with a wrong kernel: a copy in which the expression of neg is no longer "-self" but "self "."""
    bytes_of = LIBRARY.read_bytes()
    assert bytes_of.count(b"\0-self\0") == 1
    path = tmp_path_factory.mktemp("wrong") / LIBRARY.name
    path.write_bytes(bytes_of.replace(b"\0-self\0", b"\0self \0"))
    return path


def lines(done):
    """{operator: its line of the report}"""
    return {words[1]: words for line in done.stderr.splitlines() if " compared " in line for words in [line.split()]}


def test_agreement(plain):
    done = python(PROGRAM, GEMS_CHECK=100)
    assert (done.returncode, done.stdout, complaints(done)) == (0, plain, []), done.stderr
    compared = lines(done)
    for name in ("neg", "neg_", "neg.out", "max.dim", "cat", "linear"):  # the composite, too, not its parts
        assert compared[name][3:5] == ["compared", "0"] and int(compared[name][2]) >= 2, compared[name]
    assert int(compared["max.dim"][2]) == 4  # two results


def test_a_wrong_kernel_is_reported_and_does_no_harm(plain, wrong_library):
    done = python(PROGRAM, LD_PRELOAD=wrong_library, GEMS_CHECK=100)
    assert done.stdout == plain
    said = "\n".join(complaints(done))
    for call in ("neg f32[2,3]", "neg_ f32[2,3]", "neg_ f32[2,4]", "neg.out f32[2,3] f32[2,3]", "neg i64[2]", "neg f16[2,3]"):
        assert f"GEMS_CHECK: {call}: result 0: " in said, call
    assert "neg i8[4]: result 0: 3 of 4 values differ, by up to 6" in said
    compared = lines(done)
    assert compared["neg_"][2:5:2] == compared["neg_"][2:3] + compared["neg_"][2:3]  # all of them
    assert "neg" in compared["neg"][-2] and compared["cat"][4] == "0"


def test_only_the_first_calls_are_compared(wrong_library):
    program = "import torch\nfor _ in range(4):\n    print(torch.neg(torch.ones(3)).tolist())\n"
    done = python(program, LD_PRELOAD=wrong_library, GEMS_CHECK=3)
    assert done.stdout.split("\n")[:4] == ["[-1.0, -1.0, -1.0]"] * 3 + ["[1.0, 1.0, 1.0]"]
    assert lines(done)["neg"][2:5] == ["3", "compared", "3"]


def test_memory(plain):
    """Neither results nor copies of what was overwritten are kept, nor anything of a call that raises an error."""
    program = """
import torch
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
x, y = torch.rand(64, 64), torch.empty(64, 64)
def body():
    a = x + x
    a.mul_(2)
    torch.neg(a, out=y)
    torch.max(a, 0)
    try:
        a + torch.ones(3)
    except RuntimeError:
        pass
for _ in range(500):
    body()
before = resident()
for _ in range(4000):
    body()
print(resident() - before)
"""
    done = python(program, GEMS_CHECK=10**9)
    assert int(done.stdout) < 8 << 20, "4000 rounds of 48 KiB in results grew the process"
    assert int(lines(done)["add.Tensor"][2]) == 4500
