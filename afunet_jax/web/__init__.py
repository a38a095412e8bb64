"""A web page on the user's own machine: photos in, progress, one HDR image to look at and to download.

    python -m afunet_jax.web [--port=8000] [--weights=FILE]

`worker` merges in a process of its own, which can be ended at any time; `process` is the server's hold on it.
`jobs` keeps uploads, the queue and the results, with their limits; `messages` puts our errors into the words of the
page; `app` answers requests, and refuses those that do not come from the page. `page.html`, `page.js` and `page.css`
are the page; the picture is shown by the viewer of `html_report`.

Needs Starlette and Uvicorn. Nothing leaves the machine, and nothing is kept when the server ends.
"""
