"""DEP-04: every setting is documented, and the pages name no setting that does not exist."""

import re
import subprocess
import sys

import pytest

from core.settings import Settings
from docs.settings_page import settings
from tests.meta.tree import ROOT, pages, procfile, text

MAKE_VARIABLES = {"ARGS", "PYTHON"}
"""What CONTRIBUTING gives to make on its command line."""


def known_names():
    shell = re.findall(r"\$\{(\w+)", " ".join(procfile().values()))
    return {name for name, _ in settings()} | set(shell) | MAKE_VARIABLES


def test_generated_pages_equal_the_code():
    # a process of its own: it declares every job type on a broker that belongs to nobody else
    check = [sys.executable, "-m", "docs.generate", "--check"]
    result = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", [".env.example", "docs/settings.md"])
def test_every_setting_is_documented(page):
    documented = re.findall(r"^(?:#|\| `)([A-Z][A-Z0-9_]*)(?:=|`)", text(page), flags=re.MULTILINE)
    assert documented == [name.upper() for name in Settings.model_fields]


def test_env_example_loads_as_the_defaults(tmp_path, monkeypatch):
    env = tmp_path / ".env"
    env.write_text(re.sub(r"^#(?=[A-Z])", "", text(".env.example"), flags=re.MULTILINE), encoding="utf-8")
    assert len(re.findall(r"^[A-Z]", env.read_text(encoding="utf-8"), flags=re.MULTILINE)) == len(Settings.model_fields)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    loaded = Settings()
    env.unlink()
    assert loaded == Settings()


def test_pages_name_only_settings_that_exist():
    unknown = []
    for page in pages():
        if page.parts[:2] == ("docs", "adr"):
            continue  # decisions speak of constants and of what was
        named = re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)`", text(page))
        given = re.findall(r"(?<![\w-])([A-Z][A-Z0-9]*_[A-Z0-9_]+)=", text(page))
        unknown += [f"{page}: {name}" for name in {*named, *given} - known_names()]
    assert not unknown
