"""The gems command out of the wheel, in place of this process.

    gems ...                                      as the command itself
    python -m gems_preload run [options] -- ...   what stands after -- is for this Python: app.py, -m module, -c text
    python -m gems_preload ...                    every other subcommand as it is
"""
import os
import sys

from gems_preload import command


def become(words):
    if words[:1] == ["doctor"]:  # the Python with the wheel is the one that is meant
        os.environ.setdefault("GEMS_PYTHON", sys.executable)
    os.execv(command, ["gems", *words])


def gems():
    become(sys.argv[1:])


def main():
    words = sys.argv[1:]
    if words[:1] == ["run"] and words[1:] not in (["-h"], ["--help"]):
        if "--" not in words[:-1]:
            sys.exit("usage: python -m gems_preload run [options] -- app.py|-m module|-c text [arguments]")
        words.insert(words.index("--") + 1, sys.executable)
    become(words)


if __name__ == "__main__":
    main()
