"""Adds the files of `deploy/` and the changelog to the site, since pages link to them. Never changes a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Let the site have a copy of each file."""
    folder = Path(config.config_file_path).parent / "deploy"
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = f"deploy/{path.relative_to(folder).as_posix()}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    changelog = folder.parent / "CHANGELOG.md"
    files.append(File.generated(config, "changelog.md", abs_src_path=str(changelog)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead the links of a page to the copies; in the source they lead to the files themselves."""
    return markdown.replace("](../deploy/", "](deploy/").replace("](../CHANGELOG.md", "](changelog.md")
