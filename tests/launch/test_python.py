"""Which Python launch.sh takes, and what it says when there is none."""

import pytest

from tests.launch.conftest import Tree

OLD = "is Python 3.9; 3.11, 3.12 or 3.13 is needed"


def test_the_first_fit_python_is_taken(bare_tree: Tree) -> None:
    bare_tree.python("python3", unfit=OLD)
    bare_tree.python("python3.11", unfit="has no venv module; on Debian and Ubuntu: apt install x")
    bare_tree.python("python3.12")
    bare_tree.python("python3.13")
    done = bare_tree.launch()
    assert done.returncode == 0, done.stderr
    assert bare_tree.calls("-m venv") == [f"python3.12 -m venv {bare_tree.venv}"]


def test_a_machine_whose_only_python_is_called_python(bare_tree: Tree) -> None:
    bare_tree.python("python")
    assert bare_tree.launch().returncode == 0


def test_without_any_python_it_says_how_to_get_one(bare_tree: Tree) -> None:
    done = bare_tree.launch()
    assert done.returncode == 1
    assert "no fit Python (3.11, 3.12 or 3.13) was found" in done.stderr
    assert "There is none on PATH" in done.stderr
    for way in ("sudo apt install python3 python3-venv", "dnf install", "brew", "conda create"):
        assert way in done.stderr
    assert "Then: bash launch.sh --python /path/to/python" in done.stderr


def test_each_unfit_python_is_named_with_its_fault(bare_tree: Tree) -> None:
    old = bare_tree.python("python3", unfit=OLD)
    bare_tree.python("python3.11", unfit="is a 32-bit Python; torch needs 64 bits")
    bare_tree.program("python", "exit 1")
    done = bare_tree.launch()
    assert done.returncode == 1
    assert f"{old} {OLD}" in done.stderr
    assert "python3.11 is a 32-bit Python" in done.stderr
    assert f"{bare_tree.bin}/python does not start" in done.stderr
    assert bare_tree.calls("-m venv") == []


@pytest.mark.parametrize("by_path", [True, False])
def test_the_named_python_is_taken(tree: Tree, by_path: bool) -> None:
    named = tree.python("special")
    done = tree.launch("--python", str(named) if by_path else "special")
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in tree.calls("-m venv")] == ["special"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("absent", "there is no such program"), ("special", OLD), ("broken", "does not start")],
)
def test_a_named_python_that_does_not_fit_is_no_reason_for_another(
    tree: Tree, name: str, words: str
) -> None:
    tree.python("special", unfit=OLD)
    tree.program("broken", "exit 3")
    done = tree.launch("--python", name)
    assert done.returncode == 1
    assert f"launch.sh: --python {name}" in done.stderr
    assert words in done.stderr
    assert tree.calls("-m venv") == []


def test_another_python_than_before_makes_the_packages_anew(tree: Tree) -> None:
    tree.launch()
    tree.python("special")
    tree.forget()
    done = tree.launch("--python", "special")
    assert "was made for something else; making it anew" in done.stderr
    assert [call.split()[0] for call in tree.calls("-m venv")] == ["special"]
    tree.forget()
    assert tree.launch("--python", "special").returncode == 0
    assert tree.launch().returncode == 0  # and it stays when it is not named
    assert tree.installs() == []


def test_a_python_that_was_replaced_by_another_version(tree: Tree) -> None:
    tree.launch()
    tree.forget()
    tree.answer("version", "3.13")
    done = tree.launch()
    assert "making it anew" in done.stderr
    assert len(tree.calls("-m venv")) == 1
