"""Networks from elsewhere: files, modules and installed packages; what goes wrong in them is one line."""

import hashlib
import sys
from importlib.metadata import EntryPoint

import pytest
from support.own import SOURCE, forgetful  # noqa: F401  a fixture

import kzoo
from kzoo.catalog import imports, imports_of
from kzoo.catalog.imports import load_imports

LIGHT = """import kzoo
kzoo.register(kzoo.ModelSpec("my_row", "kzoo.models.mnist:mlp", (8, 8, 1), 10, kzoo.Paper("None yet", "I", 2026)))
"""


def test_a_file_registers_once_and_is_recorded(tmp_path, forgetful):  # noqa: F811
    path = tmp_path / "own_of_a_test.py"
    path.write_text(SOURCE)
    load_imports([str(path), str(path)])
    load_imports(["own_of_a_test"])  # it is a module of that name now
    assert kzoo.list_models("my_*") == ["my_net"]
    assert kzoo.build("my_net", filters=4).get_layer("conv1").filters == 4
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()
    assert imports_of("my_net") == [{"module": "own_of_a_test", "file": str(path), "sha256": digest}]
    assert imports_of("vgg16") == []


def test_a_row_of_a_file_with_an_architecture_of_another(tmp_path, forgetful):  # noqa: F811
    (tmp_path / "own_of_a_test_a.py").write_text(SOURCE.split("kzoo.register")[0])
    own = LIGHT.replace("kzoo.models.mnist:mlp", "own_of_a_test_a:my_net")
    (tmp_path / "own_of_a_test_b.py").write_text("import own_of_a_test_a\n" + own)  # a file beside it
    load_imports([str(tmp_path / "own_of_a_test_b.py")])
    assert [i["module"] for i in imports_of("my_row")] == ["own_of_a_test_b", "own_of_a_test_a"]


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("own_of_a_test.py", None, r"^There is no file '.*own_of_a_test\.py' to import\.$"),
        ("own_of_a_test_package", None, "There is no module 'own_of_a_test_package' to import: name a file"),
        ("own_of_a_test_package.nets", None, "There is no module 'own_of_a_test_package.nets'"),
        ("own..of", None, "There is no module 'own..of'"),
        ("own-net.py", "", "named like a variable"),
        ("json.py", "", "another module is named 'json': rename the file"),
        ("keras.py", "", "another module is named 'keras': rename the file"),
        ("own_of_a_test.py", "a = 1\nb = (", r"own_of_a_test\.py, line 2: SyntaxError: '\(' was never closed$"),
        ("own_of_a_test.py", "a = 1\n\nb = a.c\n", r"own_of_a_test\.py, line 3: AttributeError: 'int' object has no"),
        (
            "own_of_a_test.py",
            "import json\njson.loads('{')\n",
            r"own_of_a_test\.py, line 2: JSONDecodeError: Expecting",
        ),
        ("own_of_a_test.py", "import sys\nsys.exit(3)\n", r"own_of_a_test\.py, line 2: SystemExit: 3$"),
        (
            "own_of_a_test.py",
            "import kzoo\nkzoo.register(1)\n",
            r"own_of_a_test\.py, line 2: register\(\) takes a kzoo",
        ),
        ("own_of_a_test.py", LIGHT.replace("my_row", "vgg16"), r"line 2: A model named 'vgg16' is registered already"),
    ],
)
def test_what_cannot_be_imported_is_one_line(tmp_path, forgetful, name, source, message):  # noqa: F811
    path = tmp_path / name if name.endswith(".py") else name
    if source is not None:
        path.write_text(source)
    for _ in range(2):  # a failed module does not stay
        with pytest.raises(kzoo.KzooError, match=message) as e:
            load_imports([str(path)])
        assert "\n" not in str(e.value)
    assert "own_of_a_test" not in sys.modules


def test_an_error_in_the_network_itself_names_its_line(tmp_path, forgetful):  # noqa: F811
    path = tmp_path / "own_of_a_test.py"
    path.write_text(SOURCE.replace("x = Doubled(", "x = Tripled("))
    load_imports([str(path)])
    with pytest.raises(kzoo.KzooError, match=r"own_of_a_test\.py, line 16: NameError: name 'Tripled'"):
        kzoo.build("my_net")


def test_installed_packages_are_found_when_a_name_is_unknown(tmp_path, forgetful, monkeypatch, capsys):  # noqa: F811
    (tmp_path / "own_of_a_test.py").write_text(LIGHT)
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        EntryPoint("bad", "own_of_a_test_missing", "kzoo.models"),
        EntryPoint("good", "own_of_a_test", "kzoo.models"),
    ]
    monkeypatch.setattr(imports, "entry_points", lambda group: points if group == "kzoo.models" else [])
    monkeypatch.setattr(imports, "_installed", False)
    assert kzoo.spec("vgg16") and "own_of_a_test" not in sys.modules
    assert kzoo.spec("my_row").name == "my_row"
    assert "package bad are left out: There is no module 'own_of_a_test_missing'" in capsys.readouterr().err
    assert imports_of("my_row")[0]["module"] == "own_of_a_test"


def test_commands_import_what_the_option_and_the_environment_name(tmp_path, forgetful, monkeypatch, kzoo_command):  # noqa: F811
    for name in ("one", "two"):
        (tmp_path / f"own_of_a_test_{name}.py").write_text(LIGHT.replace("my_row", f"my_{name}"))
    one, two = (str(tmp_path / f"own_of_a_test_{name}.py") for name in ("one", "two"))
    assert kzoo_command("list", "my_*")[0] == 1
    monkeypatch.setenv("KZOO_IMPORT", f"{one}:")
    code, out, _ = kzoo_command("list", "my_*", "--json")
    assert code == 0 and '"my_one"' in out and '"my_two"' not in out
    code, out, _ = kzoo_command("list", "my_*", "--json", "--import", two)
    assert code == 0 and '"my_one"' in out and '"my_two"' in out
    code, _, err = kzoo_command("weights", "list", "--import", tmp_path / "none.py")
    assert code == 1 and err.startswith("Error: There is no file") and err.count("\n") == 1
    assert kzoo_command("train", "--help", "--import", tmp_path / "none.py")[0] == 0
