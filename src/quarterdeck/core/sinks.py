"""Where a call reaches: what each argument of a tool is to the action, and whether untrusted content decided about it.

A *target* is whom or what an action is about (a recipient, address, account, identifier, path, host); an *amount* how much money. Both
are what an attacker wants to choose. *Content* is prose; *neutral* is what harms nobody (times, flags, one of a closed list). A tool
declares its sinks; where it does not, they are read off its schema, and whatever is not plainly prose, a time or a closed choice counts
as a target.

>>> schema = {"properties": {"to": {"type": "string"}, "body": {"type": "string"}, "amount": {"type": "number"}}}
>>> [f"{name}: {role}" for name, role in roles(schema, EffectClass.EXTERNAL, None).items()]
['to: target', 'body: content', 'amount: amount']
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import islice
from urllib.parse import unquote

import msgspec

from quarterdeck.core.errands import ABOUT_WHOM, Deed
from quarterdeck.core.identifiers import Given, short
from quarterdeck.core.labels import Confidentiality, Labels
from quarterdeck.core.origins import MAX_VALUE, Origins, leaves, number
from quarterdeck.core.places import PAYMENTS
from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.vocabulary import EffectClass


class Role(StrEnum):
    """What an argument is to the action that it is given to."""

    TARGET = "target"
    AMOUNT = "amount"
    CONTENT = "content"
    NEUTRAL = "neutral"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PROSE = _words(
    "body content contents text message subject title description note notes comment comments summary caption reason memo "
    "detail details html markdown question answer review reply feedback location place agenda snippet heading headline "
    "topic greeting remark remarks explanation justification status state type kind category label labels tag tags "
    "priority format language currency unit units color colour mode order sort severity emoji keyword keywords "
    "prompt instructions"
)
_TIMES = _words(
    "date dates time times day days start end when deadline month year hour hours minute minutes second seconds duration "
    "timezone recurrence until expiry expires week weeks weekday"
)
_COUNTED = _words("quantity qty shares")
_MONEY = _words("amount price total sum cost fee tip value payment cents usd eur dollars minor") | _COUNTED
_NAMING = _words("id ids number account order phone ref reference uid pk key code")
_REACHING = _words("url urls uri uris href link links endpoint host hostname domain webhook website server origin proxy")
_WIDE = _words("public anyone everyone everybody world owner admin administrator root superuser")
_TIME_FORMATS = frozenset({"date", "time", "date-time", "duration"})
_REACHING_FORMATS = frozenset({"uri", "url", "iri", "hostname", "idn-hostname", "uri-reference", "ipv4", "ipv6"})
_HOPS = 8
_SPLIT = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")


def roles(schema: Mapping[str, object], effect: EffectClass, declared: tuple[str, ...] | None) -> dict[str, Role]:
    """What each argument is, by name; of a read only where it leaves to counts as a target."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return dict.fromkeys(declared or (), Role.TARGET)
    return {str(name): _role(str(name), _followed(part, schema), effect, declared) for name, part in properties.items()}


def _role(name: str, part: object, effect: EffectClass, declared: tuple[str, ...] | None) -> Role:
    shape = part if isinstance(part, Mapping) else {}
    kinds = _kinds(shape)
    words = _split(name)
    last = words[-1]
    if declared is not None:
        if effect is not EffectClass.READ and _MONEY.intersection(words):
            return Role.AMOUNT
        return Role.TARGET if name in declared else Role.NEUTRAL if effect is EffectClass.READ else Role.CONTENT
    if effect is EffectClass.READ:
        reaches = bool(_REACHING.intersection(words)) or shape.get("format") in _REACHING_FORMATS
        return Role.TARGET if reaches and "boolean" not in kinds else Role.NEUTRAL
    if _closed(shape) or kinds == {"boolean"}:
        return Role.NEUTRAL
    if shape.get("format") in _TIME_FORMATS or last in _TIMES:
        return Role.NEUTRAL
    if kinds and kinds <= {"integer", "number"}:
        return Role.AMOUNT if _MONEY.intersection(words) else Role.TARGET if last in _NAMING else Role.NEUTRAL
    if last in _MONEY:
        return Role.AMOUNT
    return Role.CONTENT if last in _PROSE else Role.TARGET


def _followed(part: object, schema: Mapping[str, object]) -> object:
    """A part of a schema, or what it refers to within the same schema; of a choice between parts, each."""
    for _ in range(_HOPS):
        if not isinstance(part, Mapping):
            return part
        one = part.get("allOf")
        to = part.get("$ref")
        if isinstance(one, list) and len(one) == 1:
            part = one[0]
        elif isinstance(to, str) and to.startswith("#/"):
            part = schema
            for step in to[2:].split("/"):
                part = part.get(step) if isinstance(part, Mapping) else None
        else:
            break
    if not isinstance(part, Mapping):
        return part
    each = {
        word: [_followed(branch, schema) if isinstance(branch, Mapping) and "$ref" in branch else branch for branch in branches]
        for word in ("anyOf", "oneOf")
        if isinstance(branches := part.get(word), list)
    }
    return {**part, **each}


def _closed(shape: Mapping[str, object]) -> bool:
    """Whether an argument is one of a closed list, some of it, or nothing."""
    if shape.get("type") == "array" and isinstance(shape.get("items"), Mapping):
        return _closed(shape["items"])  # type: ignore[arg-type]
    branches = next((shape[word] for word in ("anyOf", "oneOf") if isinstance(shape.get(word), list)), [shape])
    given = [each for each in branches if not (isinstance(each, Mapping) and each.get("type") == "null")]  # type: ignore[attr-defined]
    return bool(given) and all(isinstance(each, Mapping) and ("enum" in each or "const" in each) for each in given)


def _split(name: str) -> list[str]:
    return [word.lower() for word in _SPLIT.split(name) if word] or [name.lower()]


def _kinds(shape: Mapping[str, object]) -> set[str]:
    """The JSON types of an argument, null aside; of a list, those of its items."""
    kind = shape.get("type")
    if kind == "array" and isinstance(shape.get("items"), Mapping):
        return _kinds(shape["items"])  # type: ignore[arg-type]
    found = {kind} if isinstance(kind, str) else set(kind) if isinstance(kind, list | tuple) else set()
    for word in ("anyOf", "oneOf"):
        branches = shape.get(word)
        for branch in branches if isinstance(branches, list | tuple) else ():
            found |= _kinds(branch) if isinstance(branch, Mapping) else set()
    return {str(each) for each in found} - {"null"}


class Sinks(msgspec.Struct, frozen=True):
    """What the gate has to know of one tool's reach; made once. ``sensitive``: to act through it is sensitive access by itself;
    ``grave``: it gives something to whom it reaches, removes it, or cannot be undone, so that to be named is not enough; ``listed``:
    whom it reaches is a list, so that a call without one reaches nobody; ``paying``: what it moves is money; ``fields``: every name
    that its schema gives to a field, so that other names are data; ``closed``: the arguments that are one of a closed list.
    """

    roles: Mapping[str, Role]
    effect: EffectClass
    outward: bool
    sensitive: bool
    defaults: Mapping[str, object] = {}
    fields: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    grave: bool = False
    name: str = ""
    deed: Deed = Deed(frozenset(), frozenset(), frozenset())
    listed: bool = False
    paying: bool = False


def sinks_of(spec: ToolSpec) -> Sinks:
    """The reach of a tool, from its manifest: an effect reaches outside unless it is a write that names no sinks (``sinks=()``), a
    read if it has a target. Acting is sensitive unless the tool says that it touches only what is public.
    """
    schema = msgspec.json.decode(spec.input_schema, type=dict[str, object])
    found = roles(schema, spec.effect, spec.sinks)
    if spec.effect is EffectClass.READ:
        return Sinks(found, spec.effect, Role.TARGET in found.values(), sensitive=False, fields=_fields(schema), name=spec.name)
    inward = spec.effect is EffectClass.WRITE and spec.sinks == ()
    properties = schema.get("properties")
    defaults = {
        str(name): part["default"]
        for name, part in (properties.items() if isinstance(properties, dict) else ())
        if isinstance(part, dict) and "default" in part
    }
    shapes = {str(name): _followed(part, schema) for name, part in properties.items()} if isinstance(properties, dict) else {}
    closed = frozenset([name for name, shape in shapes.items() if isinstance(shape, Mapping) and _closed(shape)])
    sensitive = spec.touches is not Confidentiality.PUBLIC
    targets = [name for name, role in found.items() if role is Role.TARGET]
    listed = bool(targets) and isinstance(properties, dict) and all(_is_list(properties.get(name)) for name in targets)
    deed = Deed.of(spec.name)
    gives = spec.effect is not EffectClass.WRITE and bool(deed.families & ABOUT_WHOM)
    grave = gives or spec.effect is EffectClass.IRREVERSIBLE or "remove" in deed.families
    paying = deed.pays or not PAYMENTS.isdisjoint(deed.about)
    return Sinks(
        found, spec.effect, not inward, sensitive, defaults, _fields(schema), closed, grave, spec.name, deed, listed, paying
    )


def _fields(schema: object) -> frozenset[str]:
    """Every name of a field in a schema."""
    found: set[str] = set()
    stack = [schema]
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            properties = item.get("properties")
            found.update(str(name) for name in properties) if isinstance(properties, Mapping) else None
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
    return frozenset(found)


def _is_list(shape: object) -> bool:
    """Whether an argument is a list, or nothing at all."""
    if not isinstance(shape, Mapping):
        return False
    branches = next((shape[word] for word in ("anyOf", "oneOf") if isinstance(shape.get(word), list)), [shape])
    kinds = [branch.get("type") if isinstance(branch, Mapping) else None for branch in branches]
    return "array" in kinds and set(kinds) <= {"array", "null"}


class Crossing(msgspec.Struct, frozen=True):
    """Why a call needs a rule or a person: codes, and the arguments that nothing trusted vouches for. Empty where it needs neither."""

    codes: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


NO_CROSSING = Crossing()


def crossing(sinks: Sinks, arguments: object, labels: Labels, origins: Origins | None) -> Crossing:
    """The rule of two: untrusted input, sensitive access and an outward action meet, and trusted text does not vouch for the action.

    It does where every target and amount stands in it, and prose brings no links that do not. Without any target, all prose has to; of a
    write, which stays inside, some of it (the title of a note is the caller's, its text the model's).
    """
    reads = sinks.effect is EffectClass.READ
    if not labels.untrusted or (not sinks.outward and not (reads and _reaches(arguments))):
        return NO_CROSSING
    if not (sinks.sensitive or labels.sensitive):
        return _astray(sinks, arguments, origins)
    values = arguments if isinstance(arguments, dict) else {"": arguments}
    trusted = origins or _NOTHING_TRUSTED
    codes: dict[str, None] = {}
    blamed: dict[str, None] = {}
    aimed = False
    prose: list[tuple[str, list[object]]] = []
    loose: list[tuple[str, list[object]]] = []
    for name, value in values.items():
        role = sinks.roles.get(name, Role.NEUTRAL if reads else Role.TARGET)
        if reads and role is Role.NEUTRAL and _reaches(value):
            role = Role.TARGET
        if not reads and _widens(name, value, trusted):
            codes["label.untrusted_target"] = blamed[name] = None
        given = [*_names(name, value, sinks), *_said(value)]
        if not given or (name in sinks.defaults and sinks.defaults[name] == value):
            continue
        if role is Role.NEUTRAL:
            if name not in sinks.closed:
                loose.append((name, [leaf for leaf in given if not _harmless(leaf)]))
            continue
        if role is Role.CONTENT:
            prose.append((name, given))
            continue
        aimed = True
        if len(given) > MAX_TARGETS:
            codes[f"label.untrusted_{role.value}"] = blamed[name] = None
            continue
        for leaf in given:
            code = _doubt(name, leaf, role, sinks, trusted)
            if code and not (role is Role.TARGET and _points(leaf, values, labels, sinks, trusted)):
                codes[code] = blamed[name] = None
    secret = labels.confidentiality is Confidentiality.SECRET
    _judge_prose(sinks, prose, trusted, aimed, codes, blamed, secret=secret)
    for name, rest in loose if not reads else ():
        if _linked(rest, trusted):
            codes["label.untrusted_link"] = blamed[name] = None
        elif secret and not trusted.asked(rest):
            codes["label.secret_content"] = blamed[name] = None
    return Crossing(tuple(codes), tuple(blamed))


def _said(value: object) -> list[object]:
    """Every value that says something: no flag, nothing empty."""
    return [leaf for _, leaf in leaves(value) if leaf is not None and leaf != "" and not isinstance(leaf, bool)]


def _names(name: str, value: object, sinks: Sinks) -> list[object]:
    """The names in an argument, and its own, that its schema does not give: whoever chose them has written them."""
    found: list[object] = [] if not sinks.roles or name in sinks.roles else [name]
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            found.extend([key for key in item if key not in sinks.fields])
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return found


def _harmless(leaf: object) -> bool:
    """Whether a value of a neutral argument says nothing: a time, a small number, a single word of a closed list."""
    if isinstance(leaf, str):
        return _MOMENT.match(leaf) is not None
    return isinstance(leaf, int | float) and abs(leaf) < _SMALL


def _astray(sinks: Sinks, arguments: object, origins: Origins | None) -> Crossing:
    """Where nothing sensitive was read, what may leave is the request itself: a caller who named pages has said where it may go."""
    if sinks.effect is not EffectClass.READ or origins is None or not isinstance(arguments, dict):
        return NO_CROSSING
    reached = [name for name, value in arguments.items() if sinks.roles.get(name) is Role.TARGET or _reaches(value)]
    stray = tuple([name for name in reached if origins.strays(arguments[name])])
    return Crossing(("label.untrusted_target",), stray) if stray else NO_CROSSING


def _reaches(value: object) -> bool:
    """Whether an argument of a read holds an address, whatever it is called."""
    return any(isinstance(leaf, str) and _ADDRESS.match(leaf) is not None for _, leaf in leaves(value))


def _widens(name: str, value: object, trusted: Origins) -> bool:
    """Whether a flag or choice opens something to everybody, or to somebody wholly, in words that the caller did not use."""
    if value is True:
        return any(not trusted.calls(word) for word in _WIDE.intersection(_split(name)))
    return any(
        isinstance(leaf, str) and len(leaf) < 24 and any(not trusted.calls(word) for word in _WIDE.intersection(_split(leaf)))
        for _, leaf in leaves(value)
        if not isinstance(leaf, str) or not trusted.asked(leaf)
    )


def _judge_prose(
    sinks: Sinks,
    prose: list[tuple[str, list[object]]],
    trusted: Origins,
    aimed: bool,
    codes: dict[str, None],
    blamed: dict[str, None],
    *,
    secret: bool,
) -> None:
    inward = sinks.effect is EffectClass.WRITE or sinks.listed
    own = inward and any(all(_titled(trusted, leaf) for leaf in value) for _, value in prose)
    for name, value in prose:
        if _linked(value, trusted):
            codes["label.untrusted_link"] = blamed[name] = None
        elif not aimed and not own and not trusted.holds(value):
            codes["label.no_target"] = blamed[name] = None
        elif secret and aimed and not trusted.asked(value):
            codes["label.secret_content"] = blamed[name] = None
    if not aimed and not prose:
        codes["label.no_target"] = None


def _linked(value: object, trusted: Origins) -> bool:
    """Whether prose brings an address or account that nothing trusted vouches for, or is too much to be sure."""
    texts = [leaf for _, leaf in leaves(value) if isinstance(leaf, str)]
    if sum(len(text) for text in texts) > MAX_PROSE:
        return not trusted.holds(texts)
    return any(not trusted.holds(link) for text in texts for link in links(text))


def _titled(trusted: Origins, value: object) -> bool:
    return trusted.holds(value) or (isinstance(value, str) and (trusted.calls(value) or trusted.stated.fills(value)))


def _parts(leaf: str) -> list[str]:
    """What a list in one text is of; nothing if it is no list, or too long a one."""
    found = [part.strip() for part in _SEPARATORS.split(leaf)] if len(leaf) <= MAX_VALUE else []
    return [part for part in found if part] if len(found) > 1 else []


def _doubt(name: str, leaf: object, role: Role, sinks: Sinks, trusted: Origins) -> str:
    """Why a value may not be acted upon, as a code; empty if it may: the caller gave it, or asked for what it is now used for and a
    trusted source told it, or a record that the caller named has it.
    """
    if role is Role.AMOUNT:
        if leaf == 1 and _COUNTED.intersection(_split(name)):
            return ""
        minor = name.lower().endswith(("cents", "minor"))
        if trusted.holds(leaf) or (minor and isinstance(leaf, int) and leaf % 100 == 0 and trusted.holds(leaf // 100)):
            return ""
        paid = sinks.paying and not _COUNTED.intersection(_split(name)) and trusted.errand.asks(sinks.deed)
        return "" if paid and trusted.owes(leaf, minor=minor) else "label.untrusted_amount"
    parts = _parts(leaf) if isinstance(leaf, str) else []
    if any(short(part) for part in parts):
        return next((code for part in parts if (code := _doubt(name, part, role, sinks, trusted))), "")
    small, wanted = short(leaf), trusted.errand.asks(sinks.deed)
    unasked = "" if wanted or sinks.effect is EffectClass.READ or not trusted.errand.understood else "label.unasked"
    found = trusted.identifies(leaf, name, sinks.name) if small or not trusted.asked(leaf) else Given.ASKED
    if found is Given.ASKED:
        return unasked if sinks.grave else ""
    if wanted and not sinks.paying and trusted.pointed(leaf):
        return ""
    if found is Given.NAMED and (wanted or trusted.errand.allows(sinks.deed)):
        return ""
    if found is Given.TOLD or (not small and trusted.holds(leaf)):
        return unasked
    return "label.untrusted_target"


def _points(leaf: object, values: Mapping[str, object], labels: Labels, sinks: Sinks, trusted: Origins) -> bool:
    """Whether the caller pointed at a target without saying it: a page to be read where they are said to be, the only address at a
    named place, or somebody to whom is paid back what they paid.
    """
    if sinks.effect is EffectClass.READ:
        return labels.confidentiality is not Confidentiality.SECRET and trusted.opens(leaf)
    if not trusted.errand.asks(sinks.deed):
        return False
    if not sinks.paying:
        return trusted.only(leaf)
    most = trusted.paid(leaf)
    given = [each for name, value in values.items() if sinks.roles.get(name) is Role.AMOUNT for each in _said(value)]
    exact = [number(each) for each in given]
    return most is not None and bool(exact) and all(each is not None and 0 < each <= most for each in exact)


_NOTHING_TRUSTED = Origins(tainted=True)

_LINKS = re.compile(
    r"(?i)\b(?:https?|ftp|wss?|javascript):[/\\]*[^\s<>\"'`)\]]+|\b[a-z][a-z0-9+.-]*://[^\s<>\"'`)\]]+|\bwww\.[^\s<>\"'`)\]]+"
    r"|(?<![\w@.:/-])[/\\]{2}[\w.-]+\.[\w-]{2,24}[^\s<>\"'`)\]]*"
    r"|(?<![\w@./-])(?:[^\W_](?:[\w-]*[^\W_])?\.)+(?:xn--[a-z0-9-]+|[^\W\d_]{2,18})(?:[:/?][^\s<>\"'`)\]]*)?(?![\w@-])"
    r"|(?<![\w@./-])(?:\d{1,3}\.){3}\d{1,3}[:/][^\s<>\"'`)\]]*"
    r"|(?P<account>\b[A-Z]{2}\d{2}(?:[ .-]?[A-Z0-9]){11,30}\b)"
    r"|\b(?:bc1[a-z0-9]{25,60}|[13][1-9a-z]{25,34}|0x[0-9a-f]{40})\b"
    r"|(?P<card>(?<![\w.-])\d{4}(?:[ .-]{0,3}\d{4}){2}[ .-]{0,3}\d{1,7}(?!\w))"
)
_ADDRESS = re.compile(r"(?i)\s*(?:[a-z][a-z0-9+.-]*:)?[/\\]{2}|\s*(?:https?|ftp|wss?):|\s*www\.")
_SEPARATORS = re.compile(r"[,;]")
_FILES = _words(
    "txt pdf md csv json doc docx xls xlsx ppt pptx png jpg jpeg gif svg html htm xml yaml yml toml py js ts java rs go "
    "sh log zip tar gz mp3 mp4 mov ini cfg sql ipynb rtf odt ods tex bak"
)
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}|(?:[0-9a-fA-F]{2}){8,}")
_SHORTEST_ENCODED = 16
_SPACES = re.compile(r"[ .-]")
_HEAD, _FEWEST_DIGITS = 15, 8
_SMALL = 1_000
_MOMENT = re.compile(
    r"(?i)(?:\d{4}-\d\d-\d\d)?[T ]?(?:\d{1,2}:\d\d(?::\d\d(?:\.\d{1,6})?)?(?: ?[ap]m)?)? ?(?:Z|[+-]\d\d:?\d\d)?\Z"
)
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_ACCOUNT = re.compile(r"(?i)\b[A-Z]{2}\d{2}|\d{4}[ .-]{0,3}\d{4}[ .-]{0,3}\d{4}|\b(?:bc1|[13][1-9a-z]{25}|0x[0-9a-f]{40})")
_DOTS = str.maketrans({"\u3002": ".", "\u2024": ".", "\u2044": "/", "\u2215": "/", "\u29f8": "/", "\u2236": ":", "\ua789": ":"})
_DOTS |= dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2212), "-") | {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}
_DISGUISES = (("[.]", "."), ("(.)", "."), ("[dot]", "."), ("(dot)", "."), ("hxxp", "http"), ("[:]", ":"))
MAX_PROSE = 65_536
"""The longest text, in characters, that is searched for links. A longer one is taken to have some, unless all of it is trusted."""
MAX_TARGETS = 1_000
"""The most values of one argument that are looked at. More are not trusted."""
MAX_DECODED = 64
"""The most encoded pieces of one text that are looked into."""


def links(text: str) -> Iterator[str]:
    """Every web address, bank account and card number in a text, also where it is disguised or encoded.

    >>> list(links("see https://a.example/x and hxxps://b[.]example, not notes.txt"))
    ['https://a.example/x', 'https://b.example']
    """
    seen: set[str] = set()
    for form in _forms(text):
        for found in _found(form):
            if not _plausible(found):
                continue
            link = found[0].rstrip(".,;:!?")
            host = link.partition("/")[0]
            if ":/" not in link and "/" not in link and "?" not in link and host.rpartition(".")[2].lower() in _FILES:
                continue
            if link not in seen:
                seen.add(link)
                yield link


def _plausible(found: re.Match[str]) -> bool:
    """Whether what looks like an account or a card can be one: mostly digits, or with the check digit of cards."""
    digits = [int(digit) for digit in found[0] if digit.isdecimal()]
    if found.lastgroup == "account":
        return sum(char.isdecimal() for char in _SPACES.sub("", found[0])[:_HEAD]) >= _FEWEST_DIGITS
    if found.lastgroup == "card":
        return (sum(digits[-1::-2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])) % 10 == 0
    return True


def _found(form: str) -> Iterator[re.Match[str]]:
    """What the pattern finds, word by word where that is the same: only an account may have spaces, and most words are no link."""
    if _ACCOUNT.search(form) is not None:
        yield from _LINKS.finditer(form)
        return
    for word in form.split():
        if "." in word or ":" in word or word[:2] in ("//", "\\\\"):
            yield from _LINKS.finditer(word)


def _forms(text: str) -> Iterator[str]:
    plain = _undisguised(text)
    yield plain
    long = [word for word in plain.split() if len(word) >= _SHORTEST_ENCODED]
    for found in islice((each for word in long for each in _ENCODED.finditer(word)), MAX_DECODED):
        for decoded in _decoded(found[0]):
            yield _undisguised(decoded)


def _undisguised(text: str) -> str:
    text = unquote(html.unescape(text))
    if "\\u" in text:
        text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_DOTS)
        text = "".join([char for char in text if unicodedata.category(char) != "Cf"])
    if "[" not in text and "(" not in text and "xxp" not in text.lower():
        return text
    for shown, meant in _DISGUISES:
        text = re.sub(re.escape(shown), meant, text, flags=re.IGNORECASE)
    return text


def _decoded(piece: str) -> Iterator[str]:
    bare = piece.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    for decode, given in ((base64.b64decode, padded), (base64.urlsafe_b64decode, padded), (bytes.fromhex, piece)):
        try:
            yield decode(given).decode()
        except (ValueError, binascii.Error, UnicodeDecodeError):
            continue
