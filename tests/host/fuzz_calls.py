"""The calls from which fuzz_programs.py makes programs.

A line: the operator; what it takes (t a tensor, s a number, n a number that is not zero, m a mask); for which dtypes of
the first (f floating, h also of 16 bits, i integers, b bool); its forms (f torch.x(...), m method, i in-place, o out=,
n torch.nn.functional); keywords.

Exact programs hold only what has one right answer to the bit, so that any difference is an error. Programs of the other
kind hold functions whose last bits may differ, on operands that keep them tame, and nothing that would make a difference of the
last bit a large one: no comparisons of floats, no casts to integers."""
import collections

Call = collections.namedtuple("Call", "name takes dtypes forms keywords")


def parse(text):
    rows = [line.split(None, 4) for line in text.splitlines() if line.strip()]
    return [Call(*row, *[""] * (5 - len(row))) for row in rows]


ALWAYS = parse("""
abs         t    fhi  fmio
neg         t    fhib fmio
square      t    fhi  fmi
add         tt   fhib fmio
add         ts   fhib mi
add         tt   fi   fmio alpha=2
sub         tt   fhib fmio
sub         ts   fhi  mi
sub         tt   fi   fmio alpha=-1
rsub        tt   fhi  f
mul         tt   fhib fmio
mul         ts   fhi  mi
bitwise_and tt   ib   fmio
bitwise_or  tt   ib   fmio
bitwise_and ts   i    mi
bitwise_xor tt   ib   fmio
bitwise_not t    ib   fmio
bitwise_left_shift  tn i fmi
bitwise_right_shift tn i fmi
logical_and tt   ib   fmio
logical_or  tt   ib   fmio
logical_xor tt   ib   fmio
logical_not t    ib   fmio
eq          tt   ib   fmio
lt          tt   ib   fmio
ge          ts   ib   fmi
ne          ts   ib   fm
floor_divide tn  i    fmi
remainder   tn   i    fmi
fmod        tn   i    fmi
sgn         t    ib   fmio
signbit     t    ib   fmo
addcmul     ttt  i    fmio value=2
pow         t2   i    fm
where       mtt  fhib f
where       mts  fhi  f
masked_fill tms  fhi  mi
masked_fill tm0  fhi  mi
fill_       ts   fhi  m
zero_       t    fhib m
zeros_like  t    fhib f
ones_like   t    fhib f
full_like   ts   fhi  f
clone       t    fhib fm
contiguous  t    fhib m
copy_       tt   fhib m
""")
EXACT = parse("""
eq          tt   fh   fmio
ne          ts   fh   fmi
lt          tt   fh   fmio
le          tt   fh   fmio
gt          tt   fh   fmio
gt          ts   fh   fmi
ge          tt   fh   fmio
isnan       t    fh   fm
isinf       t    fh   fm
isfinite    t    fh   fm
logical_not t    fh   fmio
logical_and tt   fh   fmio
isposinf    t    fh   fo
isneginf    t    fh   fo
floor       t    fhi  fmio
trunc       t    fhi  fmio
ceil        t    fhi  fmio
round       t    fhi  fmio
frac        t    fh   fmio
copysign    ts   fh   fmi
heaviside   tt   fhib fmio
nan_to_num  t    fh   fmio nan=0.5, posinf=9.0, neginf=-9.0
""")
# Zero's sign is not compared where these are used: they may choose either of two equal numbers.
ORDER = parse("""
maximum     tt   fhi  fmo
minimum     tt   fhi  fmo
clamp       t    fhi  fmio min=-2, max=3
clamp       ttt  fhi  fm
clamp_min   ts   fhi  fmi
clamp_max   ts   fhi  fmi
clamp_min   tt   fhi  fmio
clamp_max   tt   fhi  fmio
fmax        tt   fhi  fmo
fmin        tt   fhi  fmo
relu        t    fhi  fmin
threshold   t    fh   n threshold=0.5, value=-1
sign        t    fhi  fmi
hardshrink  t    fh   n
hardtanh    t    f    n
relu6       t    f    n
""")
DIVISION = parse("""
div         tt   fhi  fmio
div         tn   fhi  fmi
div         tn   fi   fmi rounding_mode="trunc"
true_divide tt   f    fm
reciprocal  t    f    fmio
""")
CLOSE = parse("""
exp         c    fh   fmio
exp2        c    f    fm
expm1       c    fh   fmio
log         p    fh   fmio
log1p       p    fh   fmio
log2        p    f    fmio
log10       p    f    fmio
xlogy       tp   f    fmio
sinc        t    fh   fmio
logaddexp2  tt   f    fmo
sqrt        p    fh   fmio
rsqrt       p    f    fmio
reciprocal  p    f    fmio
sin         t    fh   fmio
cos         t    fh   fmio
tanh        t    fh   fmio
sigmoid     t    fh   fmio
erf         t    f    fmio
atan        t    fh   fmio
atan2       tp   fh   fmio
asin        d    f    fm
acos        d    f    fm
atanh       d    f    fm
asinh       t    fh   fmio
sinh        c    fh   fmio
cosh        c    fh   fmio
erfc        t    f    fmio
silu        t    fh   n
gelu        t    f    n
gelu        t    f    n approximate="tanh"
celu        t    fh   n
elu         t    fh   n
softplus    t    fh   n
logsigmoid  t    f    n
mish        t    f    n
hardswish   t    fh   n
hardsigmoid t    fh   n
softshrink  t    fh   n
leaky_relu  t    fh   n
softsign    t    f    n
tanhshrink  p    f    n
lerp        tts  fh   fmi
lerp        ttt  f    fm
add         tt   fh   fmio alpha=0.3
rsub        tt   f    f alpha=0.7
addcmul     ttt  fh   fmio value=0.7
addcdiv     ttp  fh   fmio value=0.3
div         tp   fh   fmio
div         tn   fh   fmi
pow         p1   f    fm
pow         t2   fh   fm
pow         pt   f    fm
hypot       tp   fh   fmio
logaddexp   tt   f    fm
""")
# Smooth, of one operand and of two: what backward passes are made of.
SMOOTH = ["({a}).tanh()", "({a}).sigmoid()", "({a}).sin()", "({a}) * 0.5", "F.silu({a})", "F.gelu({a})", "({a}).square() * 0.25",
          "torch.exp(({a}) * 0.1)", "({a}) * ({b})", "({a}) + ({b}) * 2", "({a}) - ({b})", "({a}) / (({b}).square() + 1)",
          "torch.lerp({a}, {b}, 0.3)", "torch.addcmul({a}, {b}, {a}, value=0.5)", "F.softplus({a})"]
UNIT_GRADIENTS = ["({a}) * 2", "({a}) + 1", "({a}) * ({b})", "({a}) - ({b})", "-({a})", "({a}).abs()", "({a}).square()"]
OPERATORS = {"+": "fhi", "-": "fhi", "*": "fhi", "&": "ib", "|": "ib", "^": "ib"}
EXACT_OPERATORS = {">": "fhib", "<=": "fhib", "==": "fhib", "!=": "fhib"}
OUTSIDE = {  # operators that are not pointwise: they read what is pending
    "exact": ["{a}.amax(-1)", "{a}.amin(0)", "{a}.flatten().argmax()", "{a}.max(-1)[0]", "{a}.isnan().any()", "({a} > 1).sum()",
              "torch.cat([{a}, {a}])", "torch.flip({a}, [0])", "{a}.flatten()[:64].sort()[0]", "torch.stack([{a}, {a}])[1]",
              "{a}.roll(1, 0)", "({a} != 0).all(-1)", "{a}.index_select(0, torch.tensor([0]))", "torch.tril({a})",
              "{a}.repeat_interleave(2, 0)[::2]"],
    "close": ["{a}.sum(-1)", "{a}.mean(0)", "{a}.softmax(-1)", "F.layer_norm({a}, {a}.shape[-1:])", "{a}.flatten()[:400].view(20, 20) @ {a}.flatten()[-400:].view(20, 20)",
              "{a}.amax(-1)", "torch.cat([{a}, {a}])", "{a}.cumsum(0)", "{a}.norm()", "torch.flip({a}, [0])", "{a}.logsumexp(-1)"],
    "i": ["{a}.sum(-1)", "{a}.sum()", "{a}.amax(0)", "{a}.cumsum(-1)", "{a}.flatten()[:400].view(20, 20) @ {a}.flatten()[-400:].view(20, 20)",
          "{a}.argmin()", "{a}.flatten()[:100].unique()", "torch.bincount({a}.flatten().abs().clamp(0, 50))"],
    "b": ["{a}.any()", "{a}.all(-1)", "{a}.sum()", "{a}.nonzero()", "{a}.flatten().int().cumsum(0)"],
}
