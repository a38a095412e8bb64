"""HTML that is safe by construction: what is not `Markup` is escaped where it enters."""

import html
import json
from typing import Any


class Markup(str):
    """Text that is HTML already. Only this package's own constants and `element` make it."""


def escape(value: Any) -> Markup:
    """Text as HTML, for content and for quoted attributes; `Markup` stays as it is.

    Bytes of a file name that are no UTF-8 appear as `\\udcff`.
    """
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(str(value).encode('utf-8', 'backslashreplace').decode(), quote=True))


def element(tag: str, attributes: dict[str, Any] | None = None, *children: Any) -> Markup:
    """`<tag name="value">children</tag>`, everything escaped; attributes that are None are left out."""
    pairs = ''.join(
        f' {name}="{escape(value)}"' for name, value in (attributes or {}).items() if value is not None
    )
    return Markup(f'<{tag}{pairs}>{join(children)}</{tag}>')


def join(parts: Any) -> Markup:
    """Parts one after the other, escaped."""
    return Markup(''.join(map(escape, parts)))


def name(value: Any) -> Markup:
    """A name from a file, kept from turning the text around it (right-to-left marks)."""
    return element('bdi', None, value)


def script_json(value: Any) -> Markup:
    """JSON for a script element: no `<`, `>` or `&`, pure ASCII; NaN and infinity are refused."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(',', ':'))
    return Markup(text.replace('&', '\\u0026').replace('<', '\\u003c').replace('>', '\\u003e'))
