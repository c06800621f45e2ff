"""`make install` and `make uninstall` below a folder, with the real package and without its dependencies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"

pytestmark = [
    pytest.mark.skipif(not shutil.which("make"), reason="needs make"),
    pytest.mark.skipif(
        subprocess.run([PYTHON, "-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"]).returncode != 0
        if Path(PYTHON).exists()
        else True,
        reason="needs the system's own Python 3.11 or newer, with venv",
    ),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no wheel can be built here: {done.stderr.strip()[-200:]}")
    return next(folder.glob("*.whl"))


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MAKEFLAGS")}
    command = ["make", "--no-print-directory", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_installing_twice_and_uninstalling(wheel: Path, tmp_path: Path) -> None:
    """All files are installed with the right paths; installing again and uninstalling keep the configuration."""
    there = tmp_path / "root"
    install = (f"DESTDIR={there}", f"PYTHON={PYTHON}", f"PACKAGE={wheel}", "PIP_FLAGS=--no-deps --no-index")
    done = make("install", *install)
    assert done.returncode == 0, done.stderr
    units = there / "usr/local/lib/systemd/system"
    files = [
        there / "opt/perceiverd/bin/perceiverd",
        there / "usr/local/lib/sysusers.d/perceiverd.conf",
        there / "usr/local/lib/tmpfiles.d/perceiverd.conf",
        *(there / "usr/local/share/doc/perceiverd" / name for name in ("README.md", "docs/README.md")),
        there / "etc/perceiverd/perceiverd.schema.json",
        *(units / name for name in ("perceiverd.service", "perceiverd@.service", "perceiverd-mqtt.service")),
        *(units / f"perceiverd-{name}.service" for name in ("history", "web")),
    ]
    assert [str(path) for path in files if not path.is_file()] == []
    assert files[0].read_text().startswith("#!/opt/perceiverd/bin/python")
    assert str(there) not in "".join(path.read_text() for path in files)
    assert str((there / "usr/local/bin/perceiverd").readlink()) == "/opt/perceiverd/bin/perceiverd"
    config = there / "etc/perceiverd/perceiverd.toml"
    assert config.read_text() == (ROOT / "configs/perceiverd.toml").read_text()
    config.write_text("# mine\n")
    assert make("install", *install).returncode == 0
    assert config.read_text() == "# mine\n"
    assert files[0].read_text().startswith("#!/opt/perceiverd/bin/python")
    done = make("uninstall", f"DESTDIR={there}")
    assert done.returncode == 0, done.stderr
    left = sorted(str(path.relative_to(there)) for path in there.rglob("*") if not path.is_dir())
    assert left == [f"etc/perceiverd/{name}.toml" for name in ("history", "perceiverd", "web")]
    assert f"rm -rf {there}/etc/perceiverd" in done.stdout
    assert make("uninstall", f"DESTDIR={there}").returncode == 0


def test_other_places_are_written_into_the_units(wheel: Path, tmp_path: Path) -> None:
    """The units have the given OPT, ETC and PREFIX."""
    where = (f"DESTDIR={tmp_path}", "PREFIX=/usr", "OPT=/usr/lib/perceiverd", "ETC=/etc/other")
    done = make("install", *where, f"PYTHON={PYTHON}", f"PACKAGE={wheel}", "PIP_FLAGS=--no-deps --no-index")
    assert done.returncode == 0, done.stderr
    unit = (tmp_path / "usr/lib/systemd/system/perceiverd.service").read_text()
    assert "ExecStart=/usr/lib/perceiverd/bin/perceiverd run --config /etc/other/perceiverd.toml" in unit
    assert "/usr/local" not in unit
    assert (tmp_path / "etc/other/perceiverd.toml").is_file()


def test_a_failed_install_says_what_to_do(tmp_path: Path) -> None:
    """A Python in a home folder and a folder that cannot be written are errors that say what to do; nothing is made."""
    python = tmp_path / "python3"
    shutil.copy(os.path.realpath(PYTHON), python)
    done = make("install", f"DESTDIR={tmp_path}/a", f"PYTHON={python}")
    assert done.returncode != 0
    assert "make install PYTHON=/usr/bin/python3" in done.stdout
    (tmp_path / "file").touch()
    done = make("install", f"DESTDIR={tmp_path}/file", f"PYTHON={PYTHON}")
    assert done.returncode != 0
    assert "run make install as root, or with DESTDIR=FOLDER" in done.stdout
    assert not (tmp_path / "a").exists()
