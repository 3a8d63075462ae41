"""shim/ops.json with an entry an operator, forms included. How the library derives the schemas of forms is not repeated
here: the schemas are PyTorch's own, and test_rows.py proves that the library's are the same."""
import fnmatch
import json

import torch

import gems

LINES = [json.loads(line.rstrip(",\n")) for line in (gems.ROOT / "shim/ops.json").open() if line.startswith("{")]


def name_of(schema):
    return schema.split("(")[0]


def overload(name):
    base, _, over = name.partition(".")
    return getattr(getattr(torch.ops.aten, base), over or "default")


def marked(value, name):
    """Does a row's "aoti" or "composite" mean this operator?"""
    return value is True or any(fnmatch.fnmatchcase(name, p) for p in (value or "").split())


def operators():
    """{"add_.Tensor": its row's fields, "row": "add.Tensor", "schema": as PyTorch prints it, "aoti", "composite": bool}"""
    found = {}
    for line in LINES:
        own = name_of(line["schema"])
        for name in [own, *map(name_of, line.get("forms", []))]:
            found[name] = line | {"row": own, "schema": str(overload(name)._schema).removeprefix("aten::"),
                                  "aoti": marked(line.get("aoti"), name), "composite": marked(line.get("composite"), name)}
    return found
