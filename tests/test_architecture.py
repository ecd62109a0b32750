"""Who imports whom, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pyro_vae

ROOT = Path(pyro_vae.__file__).parent
FORBIDDEN = {  # a room, and the rooms that it must not see
    "distributions": {"spec", "families", "vae", "infer", "evaluate", "data", "cli", "networks"},
    "mixtures": {"priors", "guides", "vae", "infer", "evaluate", "data", "cli"},
    "flows": {"priors", "guides", "vae", "infer", "evaluate", "data", "cli"},
    "priors": {"guides", "vae", "infer", "evaluate", "data", "cli"},
    "guides": {"priors", "vae", "infer", "evaluate", "data", "cli"},
    "spec": {"families", "likelihoods", "vae", "infer", "evaluate", "data", "cli", "networks"},
    "families": {"likelihoods", "priors", "guides", "vae", "infer", "evaluate", "cli", "data"},
    "likelihoods": {"priors", "guides", "vae", "infer", "evaluate", "cli", "data"},
    "networks": {"vae", "infer", "evaluate", "cli", "families"},
    "vae": {"infer", "evaluate", "cli", "data"},
    "infer": {"vae", "families", "likelihoods", "networks", "evaluate", "cli", "data"},
    "data": {"vae", "families", "infer", "evaluate", "cli"},
    "evaluate": {"cli"},
    "settings": {"vae", "families", "infer", "evaluate", "data", "cli"},
}
HEAVY = {"zuko", "torchvision", "arviz", "matplotlib", "sklearn", "typer"}


def imports(path):
    """Absolute names of what a file imports: at its top level, and anywhere."""
    tree = ast.parse(path.read_text())
    package = ["pyro_vae", *path.relative_to(ROOT).with_suffix("").parts[:-1]]
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            yield from ((a.name, top) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *filter(None, [node.module])])
            yield name, top
            yield from ((f"{name}.{a.name}", top) for a in node.names)


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(f.relative_to(ROOT)) for f in FILES])
def test_rooms_see_only_what_they_may(path):
    room = path.relative_to(ROOT).with_suffix("").parts[0]
    seen = {n.split(".")[1] for n, _ in imports(path) if n.startswith("pyro_vae.")}
    assert not seen & FORBIDDEN.get(room, set())
    if room not in ("cli", "__main__"):
        assert "cli" not in seen
        heavy = {n.split(".")[0] for n, top in imports(path) if top} & HEAVY
        assert not heavy, f"{heavy} must be imported where it is used"


def test_the_check_sees_what_it_should():
    names = {n for n, _ in imports(ROOT / "vae.py")}
    assert "pyro_vae.families" in names
    assert "torch" in names
    assert "pyro_vae.spec" in {n for n, _ in imports(ROOT / "infer" / "estimators.py")}


def modules_after(code):
    shown = "import sys; print(' '.join(m.split('.')[0] for m in sys.modules))"
    run = [sys.executable, "-c", f"{code}; {shown}"]
    return set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())


def test_help_does_not_import_torch():
    code = "import pyro_vae.cli as c; from typer.testing import CliRunner as R"
    seen = modules_after(code + "; assert R().invoke(c.app, ['fit', '--help']).exit_code == 0")
    assert not seen & {"torch", "pyro", "numpy", "pandas", "matplotlib"}


def test_importing_the_package_costs_no_more_than_pyro():
    assert not modules_after("import pyro_vae; pyro_vae.parse, pyro_vae.learned") & {
        "torch",
        "pyro",
    }
    extra = modules_after("import pyro_vae; pyro_vae.VAE, pyro_vae.fit") & HEAVY
    assert not extra


def test_every_public_name_is_there_and_described():
    for name in pyro_vae.__all__:
        value = getattr(pyro_vae, name)
        assert value.__doc__ or name in ("__version__",)
        assert name in dir(pyro_vae)
    with pytest.raises(AttributeError, match="no attribute 'vea'"):
        pyro_vae.vea  # noqa: B018
