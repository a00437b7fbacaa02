"""Texts that try to become markup, script or an address once they stand in a page. Never judges what they do."""

from __future__ import annotations

from tests.kit.hostile_texts import CORPUS as FORGERIES

MARKUP = {
    "script": "<script>alert(1)</script>",
    "script that closes what is open": "</pre></td></script><script>alert(2)</script>",
    "image": '<img src=x onerror="alert(3)">',
    "quote and handler": '" autofocus onfocus="alert(4)" x="',
    "single quote and handler": "' onmouseover='alert(5)' x='",
    "drawing": "<svg/onload=alert(6)>",
    "frame": '<iframe srcdoc="<script>parent.alert(7)</script>"></iframe>',
    "address": "javascript:alert(8)",
    "style": "<style>*{display:none}</style>",
    "base": '<base href="//example.org/">',
    "refresh": '<meta http-equiv="refresh" content="0;url=//example.org/">',
    "form": '<form action="//example.org/"><button>Retry</button></form>',
    "comment": "<!--",
    "character data": "<![CDATA[<script>alert(9)</script>]]>",
    "end of title": "</title><script>alert(10)</script>",
    "template of ours": "{{ 7 * 7 }}{% include 'login.html' %}",
    "template of scripts": "${alert(11)}`",
    "entity": "&lt;script&gt;alert(12)&lt;/script&gt;",
    "wide brackets": "\uff1cscript\uff1ealert(13)\uff1c/script\uff1e",
    "event of a stream": 'x\n\ndata: {"overview": "<script>alert(14)</script>"}\n\n',
    "end of a block": "]]></template></main></body></html><script>alert(15)</script>",
}
CORPUS = {**MARKUP, **{f"forged: {name}": text for name, text in FORGERIES.items()}}
