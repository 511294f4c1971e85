"""The manual is true: its Python runs, its links lead somewhere, its commands and options exist.

Every ```python block of every README.md runs, in one namespace for each file and in a temporary folder that has
saved_models/ and scripts/ of the checkout. A block that begins with "# name.py" is written to that file instead. What
takes minutes, a download or a GPU is fenced as ```py and does not run. Every `kzoo` line of a ```sh block must parse.
"""

import os
import re
import shlex
from pathlib import Path

import click
import pytest

from kzoo import tasks
from kzoo.builder import options as network_options
from kzoo.catalog import registry
from kzoo.cli import VERBS, group

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = sorted(p.parent for p in (ROOT / "kzoo").glob("*/__init__.py"))
MANUALS = [ROOT / "README.md", *(p / "README.md" for p in PACKAGES), ROOT / "scripts/README.md"]
MANUALS += [ROOT / "saved_models/README.md"]
PAGES = [*MANUALS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
NAMED = re.compile(r"# (\w+\.py)\n")


def name_of(page):
    return str(page.relative_to(ROOT))


def parametrize(pages):
    return pytest.mark.parametrize("page", pages, ids=name_of)


def blocks(page, language):
    """(line of the file, code) of each block in a language."""
    text = page.read_text("utf-8")
    return [(text[: m.start()].count("\n") + 2, m[2]) for m in FENCE.finditer(text) if m[1] == language]


def prose(page):
    return FENCE.sub("", page.read_text("utf-8"))


# --- Python ------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to run examples in, with caches of its own; what they register is forgotten afterwards."""
    for name in ("saved_models", "scripts"):
        (tmp_path / name).mkdir()
        for path in (ROOT / name).iterdir():
            (tmp_path / name / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("KZOO_FEATURES", str(tmp_path / "features"))
    monkeypatch.setattr(registry, "ROWS", dict(registry.ROWS))
    monkeypatch.setattr(registry, "REGISTERED_BY", dict(registry.REGISTERED_BY))
    monkeypatch.setattr(tasks, "REGISTERED", dict(tasks.REGISTERED))
    return tmp_path


@parametrize([p for p in MANUALS if blocks(p, "python")])
def test_python(page, place):
    scope = {"__name__": "__manual__"}
    for line, code in blocks(page, "python"):
        if named := NAMED.match(code):
            (place / named[1]).write_text(code, "utf-8")
            continue
        # Lines are counted as in the page, so that a traceback names them.
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), scope)


def test_each_package_has_a_manual_with_limits():
    for package in PACKAGES:
        text = (package / "README.md").read_text("utf-8")
        assert text.startswith(f"# kzoo.{package.name}: ") and "\n## Limits\n" in text, package.name


# --- Links -------------------------------------------------------------------------------------------------


def anchors(page):
    """What GitHub makes of a page's headings."""
    found = set()
    for title in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", title.lower())
        found.add(plain.replace(" ", "-"))
    return found


@parametrize(PAGES)
def test_links(page):
    for target in LINK.findall(prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists() and ROOT in file.parents, f"{name_of(page)}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{name_of(page)}: {target}"


# --- Commands ----------------------------------------------------------------------------------------------


def commands(name="kzoo", command=group):
    """{"kzoo train": its click command}, groups included."""
    found = {name: command}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for verb in command.list_commands(context):
            found.update(commands(f"{name} {verb}", command.get_command(context, verb)))
    return found


COMMANDS = commands()
OPTIONS = {
    name: {o for p in command.params if isinstance(p, click.Option) for o in (*p.opts, *p.secondary_opts)}
    | {"--help", "-h"}
    for name, command in COMMANDS.items()
}
EVERY_OPTION = set().union(*OPTIONS.values())
SCRIPTS = {
    str(p.relative_to(ROOT)): p.read_text("utf-8")
    for p in [*(ROOT / "scripts").rglob("*.py"), ROOT / "tests/floors.py"]
}


def command_of(words):
    """The longest command that a line begins with, and the words behind it."""
    for n in (3, 2, 1):
        if (name := " ".join(words[:n])) in COMMANDS:
            return name, words[n:]
    raise AssertionError(f"no command: {' '.join(words)}")


def parse(line):
    """Parse a command line as click does; nothing is run."""
    name, rest = command_of(shlex.split(line, comments=True))
    command = COMMANDS[name]
    with click.Context(command, info_name=name) as parent:
        command.make_context(name, rest, parent=parent.parent)


@parametrize(PAGES)
def test_command_lines_parse(page, monkeypatch):
    monkeypatch.setattr("kzoo.cli.options.load_imports", list)  # the files of --import are not there
    for number, block in blocks(page, "sh"):
        for i, line in enumerate(block.splitlines()):
            for part in line.split("&&"):
                where = f"{name_of(page)}:{number + i}: {part.strip()}"
                if part.strip().startswith("kzoo "):
                    try:
                        parse(part)
                    except click.ClickException as e:
                        pytest.fail(f"{where}: {e.format_message()}")
                elif part.strip().startswith("python "):
                    script(part.split(), where)


def script(words, where):
    """A `python scripts/...` line: the script is there, and its options stand in the scripts."""
    assert words[1] in SCRIPTS or words[1].startswith("-"), where
    for option in (w for w in words if w.startswith("--")):
        assert any(f'"{option}"' in text for text in SCRIPTS.values()), f"{where}: {option}"


@parametrize(PAGES)
def test_commands_and_options_in_the_text_exist(page):
    for code in CODE.findall(prose(page)):
        first, *more = code.split() or [""]
        where = f"{name_of(page)}: {code}"
        if first == "python" and more and more[0].startswith(("scripts/", "tests/")):
            script([first, *more], where)
        elif first == "kzoo" and more and more[0].isalpha() and more[0].islower():
            name, rest = command_of([first, *more])
            for option in (w.partition("=")[0] for w in rest if w.startswith("--")):
                assert option in OPTIONS[name], f"{where}: {option}"
        elif first.startswith("--"):
            option = re.match(r"[\w-]+", first)[0]
            known = option in EVERY_OPTION or any(f'"{option}"' in text for text in SCRIPTS.values())
            assert known, where


def test_every_option_of_every_command_is_in_the_manual():
    text = "\n".join(p.read_text("utf-8") for p in MANUALS)
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    missing = {f"{name} {o}" for name, options in OPTIONS.items() for o in options if o.startswith("--")} - {
        f"{name} {o}" for name in OPTIONS for o in known
    }
    assert not missing, sorted(missing)


def test_every_variable_of_the_environment_is_in_the_manual():
    sources = "\n".join(p.read_text("utf-8") for p in (ROOT / "kzoo").rglob("*.py"))
    variables = set(re.findall(r"KZOO_[A-Z_]+", sources)) | {"KERAS_BACKEND", "TMPDIR"}
    text = (ROOT / "kzoo/cli/README.md").read_text("utf-8")
    assert not {v for v in variables if f"`{v}`" not in text}


def test_every_verb_is_in_the_table_of_commands():
    rows = [
        line for line in (ROOT / "kzoo/cli/README.md").read_text("utf-8").splitlines() if line.startswith("| `kzoo")
    ]
    assert [re.match(r"\| `kzoo (\w+)", row)[1] for row in rows] != []
    assert {re.match(r"\| `kzoo (\w+)", row)[1] for row in rows} == set(VERBS)


def test_python_m_kzoo():
    import subprocess
    import sys

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "kzoo", "list", "vgg1*"], capture_output=True, text=True, env=env, cwd=ROOT
    )
    assert done.returncode == 0 and done.stdout.splitlines()[1].startswith("vgg11 ")
    wrong = subprocess.run([sys.executable, "-m", "kzoo", "lst"], capture_output=True, text=True, env=env, cwd=ROOT)
    assert wrong.returncode == 2 and wrong.stderr.startswith("Usage: kzoo ")


def test_the_tables_of_architectures_have_all_files_and_all_options():
    page = (ROOT / "kzoo/models/README.md").read_text("utf-8")
    files, options = (page.split(head)[1].split("\n\n")[0] for head in ("| File | Networks |", "| Family | Options |"))
    named = [name for line in files.splitlines()[2:] for name in CODE.findall(line.split("|")[1])]
    assert sorted(named) == sorted(p.name for p in (ROOT / "kzoo/models").glob("*.py") if p.stem != "__init__")
    named = {name for line in options.splitlines()[2:] for name in CODE.findall(line.split("|")[2])}
    known = {option for name in registry.list_models() for option in network_options(registry.spec(name))}
    assert known - named == {"backbone_weights"}, "which is an argument of kzoo.build"
    assert {name for name in named - known if '"' not in name} == {"unet_same"}
