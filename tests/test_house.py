"""The shape of the house: imports point one way, light commands stay light, every command is documented."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kzoo
from kzoo.cli import VERBS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kzoo"

# From the top down (design): a module may import from its own floor and from those below.
FLOORS = [
    {"cli"},
    {"training", "style", "export", "serve"},
    {"inference", "build", "data", "weights", "ledger", "hardware", "receptive_field"},
    {"catalog", "models", "pretrained"},
    {"layers", "spec", "errors", "files", "graph", "progress", "shipped"},
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def imports(path):
    """Names of kzoo's modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "kzoo" else [node.module]
        yield from (n.split(".")[1] for n in names if n.startswith("kzoo."))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(path):
        if name in FLOOR:  # else an attribute of the package, such as __version__
            assert FLOOR[name] >= FLOOR[own], f"{path} imports kzoo.{name}, which stands above kzoo.{own}"


def test_every_module_has_a_floor():
    names = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in modules()}
    assert names <= FLOOR.keys()


def loaded(*commands):
    """Which heavy packages are loaded after running command lines in a fresh process."""
    code = (
        "import sys\nfrom kzoo.cli import main\n"
        + "".join(f"try: main({list(c)!r})\nexcept SystemExit as e: assert not e.code, e.code\n" for c in commands)
        + "print('LOADED', sorted({'keras', 'tensorflow', 'jax', 'numpy', 'matplotlib'} & sys.modules.keys()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return out.split("LOADED ")[1].strip()


def test_light_commands_import_neither_keras_nor_tensorflow():
    helps = [(verb, "--help") for verb in VERBS]
    assert loaded(("--help",), ("list",), ("list", "vgg*", "--json"), *helps) == "[]"


def test_importing_kzoo_and_reading_the_catalog_loads_nothing_heavy():
    heavy = "[m in sys.modules for m in ('keras', 'numpy')]"
    code = f"import kzoo, sys; kzoo.list_models(); kzoo.spec('vgg16'); print({heavy})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.strip() == "[False, False]"


def test_public_names_exist_and_are_documented():
    for name in kzoo.__all__:
        assert getattr(kzoo, name).__doc__, name
    assert callable(kzoo.build) and callable(kzoo.ledger) and callable(kzoo.spec)
    with pytest.raises(AttributeError, match="nonsense"):
        kzoo.nonsense


def test_every_command_stands_in_the_readme_and_has_an_example(kzoo_command):
    readme = (ROOT / "README.md").read_text("utf-8")
    for verb in VERBS:
        assert f"kzoo {verb}" in readme, verb
        code, out, _ = kzoo_command(verb, "--help")
        assert code == 0 and "Example: kzoo" in out, verb


def test_the_readmes_first_two_commands_are_those_of_ci():
    text = (ROOT / "README.md").read_text("utf-8")
    commands = [line for line in text.split("```")[1].splitlines()[1:] if line]
    assert commands == ["pip install . && kzoo demo", "pip install '.[test]' && pytest"]


def test_whoever_reads_no_further_is_no_error():
    code = "from kzoo.cli import entry; entry()"
    p = subprocess.Popen([sys.executable, "-c", code, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    p.stdout.close()  # as head does
    assert p.stderr.read() == b"" and p.wait(30) == 0
    p.stderr.close()


def test_errors_are_one_line_and_exit_codes_are_kept(kzoo_command):
    assert kzoo_command("info", "resnet5")[0] == 1
    code, out, err = kzoo_command("train", "resnet5")
    assert (code, out) == (1, "") and err.startswith("Error: Unknown model 'resnet5'. Did you mean")
    assert err.count("\n") == 1
    code, _, err = kzoo_command("lst")
    assert code == 2 and "Did you mean 'list'?" in err
    code, _, err = kzoo_command("list", "nothing*")
    assert code == 1 and "No model's name matches 'nothing*'" in err
