"""sort and topk: every dtype, layout and dimension, equal elements, NaN, rows of one piece and of several."""
import pytest
import torch

import gems
from agree import agree, same, same_form
from inputs import DTYPES, layouts, on_groups, special, values


def few(shape, dtype):
    """Mostly equal elements."""
    return torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def in_order(fn, x, *args, dim=-1, op, **kwargs):
    """agree, where of equal elements no order is promised: places are those of the values, and no two alike."""
    routed = gems.counters(op).routed
    ours, places = fn(x, *args, dim=dim, **kwargs)
    assert gems.counters(op).routed > routed, gems.last_reason()
    with gems.off():
        expected, host_places = fn(x, *args, dim=dim, **kwargs)
        same(expected, ours)
        same(ours, x.gather(dim, places), strides=False)
        same_form(host_places, places)
        ordered = places.sort(dim).values.movedim(dim, 0)
        assert (ordered[1:] > ordered[:-1]).all()
    return ours


def topk(x, k, dim=-1, largest=True):
    in_order(torch.topk, x, k, dim=dim, largest=largest, op="topk")


def sort(x, dim=-1, descending=False):
    """Both kinds."""
    agree(torch.sort, x, dim=dim, stable=True, descending=descending, op="sort.stable")
    return in_order(torch.sort, x, dim=dim, descending=descending, op="sort")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sort(dtype):
    for shape in ((1,), (17, 40), (5, 40, 33)):
        for x in layouts(shape, dtype):
            for dim in range(-1, len(shape)):
                sort(x, dim, descending=dim == 1)
    for descending in False, True:
        sort(few((3, 300), dtype), 1, descending)


def test_special_values_keep_their_bits():
    for dtype in torch.float32, torch.float64, torch.float16, torch.bfloat16:
        for descending in False, True:
            x = special(dtype).flatten()
            ours = sort(x, -1, descending)
            with gems.off():
                assert torch.equal(ours.signbit(), torch.sort(x, stable=True, descending=descending).values.signbit())
    for dtype in torch.int8, torch.int64:
        info = torch.iinfo(dtype)
        sort(torch.tensor([0, info.max, info.min, -1, 1], dtype=dtype))


def test_rows_of_several_pieces():
    for shape in (4096,), (2, 4097), (3, 20_000):
        sort(values(shape))
        sort(few(shape, torch.int64), -1, True)
    sort(values((9000, 3)), 0)


def test_topk():
    for dtype in torch.float32, torch.bfloat16, torch.int64:
        for x in layouts((17, 40), dtype):
            for dim in (0, 1):
                topk(x, 5, dim, largest=dim == 0)
    topk(few((3, 100), torch.int32), 50)
    topk(special(), 7)
    topk(values((2, 9000)), 3)
    agree(torch.topk, values((4, 50)), 50, op="topk")
    agree(torch.topk, values((4, 50)), 5, sorted=False, op="topk", routed=False)


def test_what_is_made_of_sort():
    x = values((20, 30))
    agree(torch.argsort, x, 1, op="sort")
    agree(torch.msort, x, op="sort")
    agree(torch.quantile, x, 0.3, dim=1, op="sort")


def test_left_to_the_host():
    agree(torch.sort, torch.tensor(3.0), op="sort", routed=False)
    agree(torch.sort, torch.empty(0, 3), 1, op="sort", routed=False)
    agree(torch.sort, values((3, 4)), 2, op="sort", routed=False)
    agree(torch.topk, values((3, 4)), 5, op="topk", routed=False)
    agree(torch.topk, values((3, 4), torch.bool), 2, op="topk", routed=False)
    agree(torch.topk, values((3, 4)), 0, op="topk", routed=False)


def test_work_groups():
    def all_of_it():
        for shape in (1,), (17, 40), (3, 2000), (2, 5000):
            for x in layouts(shape):
                sort(x, 0)
                sort(x, -1, True)
        sort(special(), 1)
        sort(few((2, 6000), torch.float32), 1)
        topk(values((6, 700)), 9)
        topk(values((2, 6000)), 9)
    on_groups(all_of_it)
