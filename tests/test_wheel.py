"""The wheel holds every file of the package, and works from a folder of its own."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    for path in (ROOT / "src").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path):
            place = folder / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", str(folder), "--no-deps", "--no-build-isolation", "-w", str(folder / "out"), "-q"]
    subprocess.run(build, check=True, capture_output=True, text=True)
    [found] = (folder / "out").glob("*.whl")
    return found


def test_it_holds_every_file_of_the_package(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "forgetmenot"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(ROOT / "src").as_posix() for path in files} <= held


def test_it_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import forgetmenot as fmn\n"
        f"assert fmn.__file__.startswith({str(tmp_path / 'site')!r}), fmn.__file__\n"
        "few = {'training': {'limit': 8}, 'evaluation': {'limit': 4}}\n"
        "assert fmn.run(tasks=['qs-sentiment'], output='out', **few).matrix.shape == (2, 1)\n"
        "assert fmn.known('settings', 'training').entries\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert (tmp_path / "out" / "report.html").is_file()
