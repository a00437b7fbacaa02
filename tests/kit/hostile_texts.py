"""Texts that try to forge log lines, colour a terminal or turn the direction of writing. Never judges what they do."""

from __future__ import annotations

FORGED = "INFO operation_id=forged"
CORPUS = {
    "line feed": f"x\n{FORGED}",
    "carriage return": f"x\r{FORGED}",
    "both": f"x\r\n{FORGED}",
    "vertical tab and form feed": f"x\v{FORGED}\f{FORGED}",
    "separators of files and records": f"x\x1c{FORGED}\x1d{FORGED}\x1e{FORGED}",
    "next line": f"x\x85{FORGED}",
    "line separator": f"x\u2028{FORGED}",
    "paragraph separator": f"x\u2029{FORGED}",
    "NUL": f"x\x00{FORGED}",
    "backspaces": "x" + "\b" * 80 + FORGED,
    "colour": f"\x1b[31m{FORGED}\x1b[0m",
    "colour in one byte": f"\x9b31m{FORGED}",
    "cleared screen": f"\x1b[2J\x1b[H{FORGED}",
    "window title": f"\x1b]0;{FORGED}\x07",
    "link": "\x1b]8;;https://example.org\x1b\\click\x1b]8;;\x1b\\",
    "device control": "\x1bP$q\x1b\\\x90$q\x9c",
    "bidi override": f"\u202e{FORGED[::-1]}",
    "bidi isolate": f"\u2066{FORGED}\u2069",
    "marks of direction": "\u200e\u200f\u061c",
    "no width": "ad\u200bmin\u200d\ufeff",
    "soft hyphen": "ad\u00admin",
    "other spaces": f"x\u00a0{FORGED}\u3000{FORGED}",
    "tags": "\U000e0041\U000e0042",
    "lone surrogates": "\ud800\udfff",
    "private use": "\ue000\U0010ffff",
    "another field": "x operation_id=forged",
    "quotes": 'x" operation_id="forged',
    "escaped quotes": 'x\\" operation_id=forged',
    "backslash at the end": "x y\\",
    "percent signs": "%s %d %(message)s %%",
    "braces": "{0} {message} {",
    "empty": "",
}
