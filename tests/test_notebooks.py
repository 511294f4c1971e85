"""The notebooks run from top to bottom in a process of their own, without a word on stderr."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "scripts/notebooks").glob("*.ipynb"))
# What shows a value in a notebook, done as a notebook does it.
RUN = """
import ast, json, sys, types
display = types.ModuleType("IPython.display"); display.HTML = lambda text: text
ipython = types.ModuleType("IPython"); ipython.version_info = (9, 0); ipython.get_ipython = lambda: None
sys.modules.update({"IPython": ipython, "IPython.display": display})
names = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] != "code":
        continue
    body = ast.parse("".join(cell["source"])).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        shown = getattr(value, "_repr_html_", lambda: None)() or repr(value)
        getattr(value, "_repr_png_", lambda: None)()
        print(len(shown), shown[:200])
"""


def test_they_are_three_without_outputs():
    assert [p.stem for p in NOTEBOOKS] == ["finetune", "style", "train"]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path


@pytest.mark.deep("2026-11-27")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs(path, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", RUN, path], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == "", "a notebook would show it in red"
    assert all(
        int(line.split()[0]) < 4_000_000 for line in done.stdout.splitlines() if line.split()[:1] and line[0].isdigit()
    )
