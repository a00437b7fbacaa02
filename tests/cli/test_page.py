"""docs/cli.md shows what its commands print, and its picture what `status --watch` draws."""

from __future__ import annotations

import html
import re

from queue_system import QueueConfig
from tests.cli.page import PAGE, PICTURE, masked, picture, prepared, regenerated
from tests.kit.logs import LineLogger
from tests.kit.servers import StartServer

REWRITE = "`python -m tests.cli.page` writes it anew"


def words(svg: str) -> list[str]:
    """What a picture says."""
    return html.unescape(" ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))).split()


def test_the_page_shows_what_its_commands_print() -> None:
    page = PAGE.read_text(encoding="utf-8")
    with prepared(page) as shell:
        assert masked(regenerated(page, shell)) == masked(page), REWRITE


async def test_the_picture_shows_what_watch_draws(start_server: StartServer) -> None:
    config = QueueConfig(redis_url=start_server().url, logger=LineLogger())
    drawn, shown = words(await picture(config)), words(PICTURE.read_text(encoding="utf-8"))
    config.transport.close()
    assert drawn == shown, REWRITE
    assert {"send_mail", "1,240", "report", "57", "900.0/s"} <= set(shown)
