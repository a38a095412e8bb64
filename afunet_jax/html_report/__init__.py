"""The HTML report of an evaluation: one page with tables, pictures to compare, and training curves.

`write_report` writes it. Pictures are shown at -6 to +6 stops, with a divider between any two, zoomed
and panned together; see `encoding` for how an HDR image gets into a browser. No network is needed.

Inside: `markup` escapes, `encoding` makes images small, `scenes` writes a scene's pictures, `curves` draws a
training log, `sourced` shows published figures beside ours, `page` puts the page together; `template.html`,
`report.css` and `report.js` are its parts.
"""

from afunet_jax.html_report.curves import read_log, write_png
from afunet_jax.html_report.page import PAGE, write_report
from afunet_jax.html_report.scenes import ScenePictures, WrittenScene, write_scene

__all__ = ['PAGE', 'ScenePictures', 'WrittenScene', 'read_log', 'write_png', 'write_report', 'write_scene']
