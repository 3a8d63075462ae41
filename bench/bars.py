"""A picture of ratios: a group of bars a case, a bar a mode, above 1 is faster."""
import os
import subprocess
import sys


def draw(path, title, cases):
    """cases: {name: {mode: ratio, or NaN where there is none}}, all of the same modes. Needs gnuplot; without it there is no picture."""
    if not cases:
        return
    modes = list(next(iter(cases.values())))
    data = "\n".join(f'"{name}" ' + " ".join(f"{ratios[m]:.4f}" for m in modes) for name, ratios in cases.items())
    bars = ", ".join(f'$data using {i + 2}:xtic(1) title "{m}"' for i, m in enumerate(modes))
    script = f"""
set terminal pngcairo size {260 + 90 * len(cases)},560 font "sans,11" background rgb "white"
set output "{path}"
set title "{title}" noenhanced
set logscale y 2
set grid y
set style data histogram
set style histogram cluster gap 1
set style fill solid 0.8 noborder
set xtics rotate by -40 noenhanced
set rmargin 8
set key top right
$data << EOD
{data}
EOD
plot 1 with lines lc rgb "black" notitle, {bars}
"""
    env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    try:
        subprocess.run(["gnuplot"], input=script, text=True, check=True, env=env)
    except (OSError, subprocess.CalledProcessError) as e:
        print(f"no picture: {e}", file=sys.stderr)
