"""What is looked for in prose is found word by word: quickly, and exactly as if the whole text were searched at once."""

from __future__ import annotations

import re
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.core import sinks
from quarterdeck.core.sinks import links


def searched(text: str) -> list[str]:
    """The slow way: every pattern over the whole of every form."""

    def undisguised(text: str) -> str:
        text = sinks.unquote(sinks.html.unescape(text))
        if not text.isascii():
            text = sinks.unicodedata.normalize("NFKC", text).translate(sinks._DOTS)
            text = "".join([char for char in text if sinks.unicodedata.category(char) != "Cf"])
        for shown, meant in sinks._DISGUISES:
            text = re.sub(re.escape(shown), meant, text, flags=re.IGNORECASE)
        return text

    plain = undisguised(text)
    forms = [plain]
    for found in islice(sinks._ENCODED.finditer(plain), sinks.MAX_DECODED):
        forms += [undisguised(decoded) for decoded in sinks._decoded(found[0])]
    seen: dict[str, None] = {}
    for form in forms:
        for match in sinks._LINKS.finditer(form):
            link = match[0].rstrip(".,;:!?")
            host = link.partition("/")[0]
            if not ("://" not in link and "/" not in link and host.rpartition(".")[2].lower() in sinks._FILES):
                seen[link] = None
    return list(seen)


PIECES = st.sampled_from(
    [
        *(
            "http://a.example/x",
            "HTTPS://B.Example",
            "hxxps://c[.]example",
            "d(dot)example",
            "www.e.example",
            "ftp://",
            "://",
            "xxp",
        ),
        *(
            "DE89",
            "3704",
            "0044",
            "0532",
            "0130",
            "00",
            "de89370400440532013000",
            "notes.txt",
            "a.b",
            "co.uk/x",
            "@f.example",
            "...",
        ),
        *("aHR0cDovL2cuZXhhbXBsZS94", "687474703a2f2f682e6578616d706c65", "%2e", "&#46;", "i\u3002example", "j\u2024example"),
        *("\u200b", "\u017f.\u017f\u017f", "-", "(", "]", "\x1c", "\u2028", "\u00a0", " ", "\n"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.text(max_size=6), max_size=12).map("".join))
def test_nothing_is_found_otherwise(text: str) -> None:
    assert list(links(text)) == searched(text)


@pytest.mark.parametrize(
    "text", ["pay DE89 3704 0044 0532 0130 00 at x.example", "see http://a.example/DE89370400440532013000", "a\u2028b.example"]
)
def test_accounts_and_links_in_one_text(text: str) -> None:
    assert list(links(text)) == searched(text) != []
