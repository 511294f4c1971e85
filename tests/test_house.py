"""The shape of the house: imports point one way, light commands stay light, every command is documented."""

import subprocess
import sys
from pathlib import Path

import floors
import pytest

import kzoo
from kzoo.cli import VERBS

ROOT = Path(__file__).resolve().parents[1]


def test_every_module_has_a_floor():
    assert {floors.room_of(name) for name in floors.modules()} <= floors.FLOOR.keys()


@pytest.mark.parametrize(("module", "others"), floors.arrows().items(), ids=lambda v: v if isinstance(v, str) else "")
def test_imports_point_down(module, others):
    own = floors.room_of(module)
    for other in others:
        room = floors.room_of(other)
        assert room == own or floors.FLOOR[room] < floors.FLOOR[own], f"{module} imports {other}: not a floor below"


def test_no_two_files_import_each_other():
    assert floors.circles(floors.arrows()) == []


def test_no_public_function_shares_its_name_with_a_module():
    assert not set(kzoo.__all__) & {name.split(".")[1] for name in floors.modules()}


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


def test_every_command_stands_in_the_manual_and_has_an_example(kzoo_command):
    manual = (ROOT / "kzoo" / "cli" / "README.md").read_text("utf-8")
    for verb in VERBS:
        assert f"kzoo {verb}" in manual, verb
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
