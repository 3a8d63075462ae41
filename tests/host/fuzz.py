#!/usr/bin/env python3
"""Runs random programs plain and preloaded and compares all that they read, all that lives at their end, and what they raise.

    make fuzz                                    until stopped, from a random seed
    make fuzz FUZZ="--seconds 600 --seed 7"
    scripts/python tests/host/fuzz.py build/libgems_preload.so --seed 7 --programs 1 GEMS_FUSE=all

Exact programs must agree to the bit (the payload and sign of NaN aside). The others run a third time, plain, with the last
bits of every result varied: what that changes, times 30, is what a difference may be. A program that differs is
made shorter and written as a plain script into build/fuzz/; `python that.py LIBRARY GEMS_FUSE=all` shows the difference."""
import argparse
import gc
import os
import pathlib
import pickle
import random
import selectors
import signal
import struct
import subprocess
import sys
import textwrap
import time
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import numpy as np  # noqa: E402

import fuzz_programs  # noqa: E402

TIMEOUT = 120  # seconds for one program; kernels may have to be compiled
UNITS = {"float64": 2.0 ** -51, "float32": 2.0 ** -21, "float16": 2.0 ** -10, "bfloat16": 2.0 ** -7}


# ---- running one program, in this process ----

def vary(t, rng, torch):
    """Changes the last bits of a tensor's elements, where it can be written."""
    if isinstance(t, torch.Tensor) and t.is_floating_point() and t.numel():
        # Of a few elements each: their noise is not to cancel by chance.
        noise = torch.from_numpy(rng.choice([-1.0, 0.0, 1.0] if t.numel() >= 16 else [-1.0, 1.0], t.numel())).reshape(t.shape) * UNITS[str(t.dtype)[6:]]
        try:
            with torch.inference_mode():
                t.data.mul_(noise.add_(1).to(torch.promote_types(t.dtype, torch.float32)))
        except RuntimeError:  # expanded: its base was varied
            pass


def execute(statements, varied=False):
    """{"errors": {index: exception's name}, "reads": [...], "live": {name: (form, values)}}"""
    names = fuzz_programs.namespace()
    torch, errors, rng = names["torch"], {}, np.random.RandomState(1)
    if varied:
        names["made"] = lambda *tensors: [vary(t, rng, torch) for t in tensors]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, statement in enumerate(statements):
            try:
                exec(compile(statement.text, f"<statement {i}>", "exec"), names)
            except Exception as e:  # noqa: BLE001 - whatever it raises is compared
                errors[i] = type(e).__name__
            if varied:
                for name in statement.targets:
                    vary(names.get(name), rng, torch)
        live = {}
        for name, t in names.items():
            if name[0] in "tn" and name[1:].isdigit():
                form = ("array",) if name[0] == "n" else (str(t.dtype)[6:], t.stride(), t.requires_grad, t.is_inference())
                live[name] = form, np.array(names["array"](t))
    return {"errors": errors, "reads": names["reads"], "live": live}


# ---- comparing ----

def differ(kind, dtype, plain, varied, ours):
    """Why two arrays differ, or None."""
    if plain.shape != ours.shape or plain.dtype != ours.dtype:
        return f"{ours.dtype}{list(ours.shape)} is not {plain.dtype}{list(plain.shape)}"
    if plain.dtype.kind != "f" or kind != "close":
        wrong = plain != ours
        if plain.dtype.kind == "f":
            if kind == "exact":  # also the sign of zero
                wrong |= np.signbit(plain) != np.signbit(ours)
            wrong &= ~(np.isnan(plain) & np.isnan(ours))
    else:
        unit = UNITS.get(dtype, UNITS.get(str(plain.dtype), 2.0 ** -21))
        with np.errstate(all="ignore"):
            p, v, o = (x.astype(np.float64) for x in (plain, varied if varied is not None else plain, ours))
            noise = np.nan_to_num(np.abs(p - v), nan=np.inf)
            mean = np.sqrt(np.mean(noise[np.isfinite(noise)] ** 2)) if np.isfinite(noise).any() else 0.0
            # Nothing is varied that small: numbers near zero that came of cancelling.
            allowed = 30 * (noise + mean) + 8 * unit * np.abs(p) + unit * 1e-3
            wrong = ~(np.abs(p - o) <= allowed) & ~(np.isnan(p) & np.isnan(o)) & ~(p == o) & np.isfinite(noise)
    if not np.any(wrong):
        return None
    at = np.argwhere(wrong)
    first = tuple(at[0])
    return f"{len(at)} of {plain.size} elements; at {[int(x) for x in first]} {ours[first]} is not {plain[first]}"


def differ_read(kind, plain, varied, ours):
    if isinstance(plain, (list, tuple)) and isinstance(ours, (list, tuple)) and len(plain) == len(ours):
        for i, (p, o) in enumerate(zip(plain, ours)):
            why = differ_read(kind, p, varied[i] if isinstance(varied, (list, tuple)) and len(varied) == len(plain) else None, o)
            if why:
                return why
        return None
    if all(isinstance(x, (np.ndarray, np.generic, float)) for x in (plain, ours)):
        p, o, v = np.asarray(plain), np.asarray(ours), None if varied is None else np.asarray(varied)
        # Single numbers vary by chance too little: also by their size, and their dtype is not known.
        return differ(kind, "bfloat16" if p.ndim == 0 or p.size < 16 else "float16", p, v if v is not None and v.shape == p.shape else None, o)
    return None if type(plain) is type(ours) and plain == ours else f"{ours!r:.200} is not {plain!r:.200}"


def compare(kind, plain, varied, ours):
    """What is wrong, as text, or None."""
    if "died" in ours:
        return ours["died"]
    if plain["errors"] != ours["errors"]:
        i = min(set(plain["errors"].items()) ^ set(ours["errors"].items()))[0]
        return f"statement {i} raised {ours['errors'].get(i)}, plain {plain['errors'].get(i)}"
    if len(plain["reads"]) != len(ours["reads"]):
        return f"{len(ours['reads'])} reads instead of {len(plain['reads'])}"
    for i, (p, o) in enumerate(zip(plain["reads"], ours["reads"])):
        v = varied["reads"][i] if varied and len(varied["reads"]) == len(plain["reads"]) else None
        why = differ_read(kind, p, v, o)
        if why:
            return f"read {i}: {why}"
    if set(plain["live"]) != set(ours["live"]):  # threads make them in any order
        return f"live: {sorted(ours['live'])}, plain {sorted(plain['live'])}"
    for name, (form, values) in plain["live"].items():
        their_form, theirs = ours["live"][name]
        if form != their_form:
            return f"{name}: {their_form} is not {form}"
        why = differ(kind, form[0], values, varied["live"][name][1] if varied and name in varied["live"] else None, theirs)
        if why:
            return f"{name} ({form[0]}): {why}"
    return None


# ---- the preloaded process ----

def serve():
    """Runs the programs that come on stdin. What a program prints must not get between the answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process, which then closes stdin
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while size := sys.stdin.buffer.read(8):
        statements = pickle.loads(sys.stdin.buffer.read(struct.unpack("q", size)[0]))
        text = pickle.dumps(execute([fuzz_programs.Statement(*s) for s in statements]))
        gc.collect()
        answers.write(struct.pack("q", len(text)) + text)
        answers.flush()


class Preloaded:
    def __init__(self, library, variables):
        self.library, self.variables, self.process = library, variables, None

    def start(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("GEMS_") or k in ("GEMS_CACHE_DIR", "GEMS_CACHE_MB")}
        env.update(self.variables, LD_PRELOAD=str(self.library), OMP_NUM_THREADS="1")
        self.process = subprocess.Popen([sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)

    def exactly(self, size, end):
        parts, wait = [], selectors.DefaultSelector()
        wait.register(self.process.stdout, selectors.EVENT_READ)
        while size and wait.select(max(0.0, end - time.monotonic())):
            part = os.read(self.process.stdout.fileno(), min(size, 1 << 20))
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return None if size else b"".join(parts)

    def send(self, statements):
        if self.process is None:
            self.start()
        text = pickle.dumps([tuple(s) for s in statements])
        try:
            self.process.stdin.write(struct.pack("q", len(text)) + text)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer will say so

    def answer(self):
        """What execute gave there; {"died": why} where there was no answer."""
        end = time.monotonic() + TIMEOUT
        size = self.exactly(8, end)
        answer = self.exactly(struct.unpack("q", size)[0], end) if size else None
        if answer is not None:
            return pickle.loads(answer)
        late = time.monotonic() >= end
        if late:
            self.process.kill()
        self.process.stdout.close()
        status, self.process = self.process.wait(), None
        return {"died": f"no end within {TIMEOUT} s" if late else f"the process ended with status {status}"}

    def stop(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()


# ---- what is wrong, made short ----

def check(kind, statements, ours):
    """(why it is wrong or None, what the plain run gave)"""
    ours.send(statements)  # it runs there meanwhile
    plain = execute(statements)
    varied = execute(statements, varied=True) if kind == "close" else None
    return compare(kind, plain, varied, ours.answer()), plain


def shorter(kind, statements, ours, seconds):
    """The program without the statements that the difference does not need."""
    end, part = time.monotonic() + seconds, max(1, len(statements) // 2)
    while part:
        i = 0
        while i < len(statements) and time.monotonic() < end:
            fewer = statements[:i] + statements[i + part:]
            why, plain = check(kind, fewer, ours) if fewer else (None, None)
            if why and "NameError" not in plain["errors"].values():  # a statement that lacks what it works on says nothing
                statements = fewer
            else:
                i += part
        part //= 2
    return statements


SCRIPT = '''

# ---- the program ----

raised = []

{program}

# ---- what came of it: run with the library's path, the script runs itself plain and preloaded ----

def lines():
    found = {{f"read {{i}}": x for i, x in enumerate(reads)}}
    found |= {{name: array(t) for name, t in globals().items() if name[0] in "tn" and name[1:].isdigit()}}
    yield f"raised {{raised}}"
    for name, x in found.items():
        if isinstance(x, np.ndarray):
            with np.errstate(all="ignore"):
                x = f"{{x.dtype}}{{list(x.shape)}} {{x.ravel()[:6]}} ... {{np.asarray(x, np.float64).sum():.5g}}"
        yield f"{{name}}: {{x}}"


if __name__ == "__main__":
    import subprocess
    import sys

    if len(sys.argv) == 1:
        print("\\n".join(lines()))
    else:
        env = {{k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}}
        ours = {{**env, **dict(x.split("=", 1) for x in sys.argv[2:]), "LD_PRELOAD": os.path.abspath(sys.argv[1])}}
        plain, preloaded = (subprocess.run([sys.executable, __file__], env=e, capture_output=True, text=True) for e in (env, ours))
        for one, other in zip(plain.stdout.splitlines(), preloaded.stdout.splitlines()):
            print("same     " if one == other else "DIFFERENT", one if one == other else f"\\n  {{one}}\\n  {{other}}")
        print(preloaded.stderr, f"status {{preloaded.returncode}}", end="")
'''


def script(seed, kind, why, statements, variables):
    """The program as a script of its own."""
    errors, text = execute(statements)["errors"], []
    for i, statement in enumerate(statements):
        if i in errors:
            text.append("try:\n" + textwrap.indent(statement.text, "    ") + f"\nexcept Exception as e:\n    raised.append(({i}, type(e).__name__))")
        else:
            text.append(statement.text)
    head = f'"""A program of tests/host/fuzz.py, seed {seed} ({kind}), with {" ".join(f"{k}={v}" for k, v in variables.items())}:\n{why}"""\n'
    base = fuzz_programs.BASE.split('"""', 2)[2].lstrip()
    return head + base + SCRIPT.format(program="\n".join(text))


def fuzz(library, variables, seeds, statements=None, folder=None, seconds=None, say=print, reduce=60):
    """Runs the programs of the seeds. ({"programs", "statements"}, {seed: why}), the wrong ones written into the folder."""
    ours, wrong, done = Preloaded(library, variables), {}, {"programs": 0, "statements": 0, "raised": 0}
    shown = time.monotonic()
    end = shown + seconds if seconds else None
    try:
        for seed in seeds:
            if end and time.monotonic() > end:
                break
            kind, program = fuzz_programs.program(seed, statements)
            why, plain = check(kind, program, ours)
            done["programs"] += 1
            if time.monotonic() > shown + 60:
                shown = time.monotonic()
                say(f"{done['programs']} programs, {len(wrong)} wrong")
            done["statements"] += len(program)
            done["raised"] += len(plain["errors"])
            if why is None:
                continue
            wrong[seed] = why
            say(f"seed {seed} ({kind}): {why}")
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / f"wrong-{seed}.py"
                path.write_text(script(seed, kind, why, program, variables))
                if reduce:
                    # Again and shorter in a process of its own: what went before may have been needed.
                    fresh = Preloaded(library, variables)
                    if check(kind, program, fresh)[0]:
                        program = shorter(kind, program, fresh, reduce)
                        path.write_text(script(seed, kind, check(kind, program, fresh)[0] or why, program, variables))
                    else:
                        say("  not alone in a new process")
                    fresh.stop()
                say(f"  {len(program)} statements: {path}")
    except KeyboardInterrupt:
        pass
    finally:
        ours.stop()
    return done, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library", type=pathlib.Path, nargs="?", help="libgems_preload.so")
    parser.add_argument("variables", nargs="*", default=[], help="NAME=VALUE for the preloaded process (default: GEMS_FUSE=all)")
    parser.add_argument("--seed", type=int, help="the first; each further program has the next (default: random)")
    parser.add_argument("--programs", type=int, default=10**9)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--statements", type=int, help="statements of a program (default: 5 to 60)")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("build/fuzz"), help="for the scripts of wrong programs")
    parser.add_argument("--no-reduce", action="store_true", help="do not make wrong programs shorter")
    parser.add_argument("--show", action="store_true", help="print the programs and run nothing")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    if args.serve:
        return serve()
    first = random.SystemRandom().randrange(10**9) if args.seed is None else args.seed
    if args.show:
        for seed in range(first, first + min(args.programs, 1000)):
            kind, statements = fuzz_programs.program(seed, args.statements)
            print(f"# seed {seed}, {kind}", *(s.text for s in statements), sep="\n")
        return 0
    if not args.library or not args.library.is_file():
        parser.error("which library?")
    if "libgems_preload" in os.environ.get("LD_PRELOAD", ""):
        sys.exit("fuzz.py itself is the plain process: run it without LD_PRELOAD")
    variables = dict(v.split("=", 1) for v in args.variables) or {"GEMS_FUSE": "all"}
    print(f"from seed {first}", *(f"{k}={v}" for k, v in variables.items()), flush=True)
    done, wrong = fuzz(args.library.absolute(), variables, range(first, first + args.programs), args.statements, args.folder, args.seconds,
                       say=lambda text: print(text, flush=True), reduce=0 if args.no_reduce else 60)
    print(f"{done['programs']} programs, {done['statements']} statements ({done['raised']} raised), {len(wrong)} wrong"
          + (f": seeds {' '.join(map(str, wrong))}" if wrong else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
