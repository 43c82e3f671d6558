"""Packages import only from lower layers, and no command loads a heavy library for its help."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "manifests": set(),
    "lm": {"manifests"},
    "scoring": {"manifests"},
    "systems": {"manifests", "lm", "scoring"},
    "fusion": {"manifests", "lm", "scoring"},
    "recipes": {"manifests", "lm", "scoring", "systems", "fusion"},
}
HEAVY = ("torch", "transformers", "peft", "scipy", "jiwer")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_from_lower_layers(package):
    allowed = MAY_IMPORT[package] | {package}
    for path in modules(package):
        upward = (imported_packages(path) & set(MAY_IMPORT)) - allowed
        assert not upward, f"{path.relative_to(ROOT)} imports {upward}"


COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in MAY_IMPORT
    for path in modules(package)
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_no_heavy_library(command):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{command}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('{command}', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0, stop.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]", run.stdout


def test_commands_are_found():
    assert "scoring.score" in COMMANDS
    assert "systems.decode" in COMMANDS
