"""The house keeps its shape: file and function lengths, layers, words that belong nowhere."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "autointerp").rglob("*.py"), *(ROOT / "sae").rglob("*.py")])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path: Path) -> None:
    """A file is one noun of about 300 lines, a function fits a screen of about 60."""
    text = path.read_text()
    assert len(text.splitlines()) <= 320
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 70, node.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    """Every module opens with a docstring, save those that are empty."""
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree)


def test_help_imports_only_the_configuration() -> None:
    """`autointerp --help` loads no tensor library, no provider and no table library."""
    code = (
        "import sys\nfrom autointerp.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'pandas', 'pyarrow', 'matplotlib'}\n"
        "heavy |= {'anthropic', 'openai', 'httpx2'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr.strip() == "[]"
    assert "run" in done.stdout


def test_the_layers_hold() -> None:
    """import-linter finds every import going down."""
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(lint)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
