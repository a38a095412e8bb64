"""The page's table of figures that papers have published, beside those measured here."""

from collections.abc import Iterable

from afunet_jax import reports
from afunet_jax.html_report.markup import Markup, element, join, name

NOTE = (
    'What papers print, and what this evaluation measured. A column holds one definition, as far as papers say '
    'theirs; those that do not say their preset of HDR-VDP-2 have a column of their own.'
)


def section(table: reports.SourcedTable) -> Markup:
    """Heading, table and sources; a line's numbers lead to its sources."""
    head = element(
        'tr',
        None,
        element('th', {'scope': 'col'}, 'method'),
        element('th', {'scope': 'col', 'class': 'text'}, 'from'),
        *(element('th', {'scope': 'col'}, title) for title in table.titles.values()),
    )
    body = element('tbody', None, *(_line(line, table.titles) for line in table.lines))
    region = {'class': 'scroll', 'tabindex': 0, 'role': 'region', 'aria-label': 'Published figures'}
    sources = (
        element('li', {'id': f'source-{number}'}, name(source))
        for number, source in enumerate(table.sources, start=1)
    )
    return element(
        'section',
        {'class': 'published'},
        element('h2', None, 'Published figures, data set ', name(table.dataset)),
        element('div', region, element('table', None, element('thead', None, head), body)),
        element('p', {'class': 'note'}, NOTE),
        element('ol', {'class': 'sources', 'aria-label': 'Sources'}, *sources),
    )


def _line(line: reports.SourcedLine, columns: Iterable[str]) -> Markup:
    links = join(
        element('a', {'href': f'#source-{number}', 'aria-label': f'source {number}'}, f'[{number}]')
        for number in line.sources
    )
    return element(
        'tr',
        {'class': line.origin},
        element('th', {'scope': 'row'}, name(line.method)),
        element('td', {'class': 'text'}, line.origin, ' ' if line.sources else '', links),
        *(element('td', None, line.figures.get(column, '–')) for column in columns),
    )
