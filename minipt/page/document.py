"""The page as one HTML file, which needs nothing else: no network, no other file.

In: `Steps`. Out: HTML. `page.html` beside this module names its styles and scripts, and says where
the data go. All of it is put in its place.
"""

import html
import re
from importlib import resources

from minipt.page.contents import contents
from minipt.page.steps import Steps

STYLE = re.compile(r'<link rel="stylesheet" href="(\w+\.css)">')
SCRIPT = re.compile(r'<script src="(\w+\.js)"></script>')
DATA = re.compile(r'(?<=<script id=")(step|numbers)(" type="text/plain">)(?=</script>)')
FRAME = "width:100%;height:720px;border:0"


def document(of: Steps) -> str:
    """The whole page. All that came from the user is in its data, which are letters of base64."""
    data = contents(of)
    page = STYLE.sub(lambda found: f"<style>\n{_read(found[1])}</style>", _read("page.html"))
    page = SCRIPT.sub(lambda found: f"<script>\n{_read(found[1])}</script>", page)
    return DATA.sub(lambda found: found[1] + found[2] + data[found[1]], page)


def frame(page: str) -> str:
    """A page inside a notebook: the document as an attribute, so that neither sees the other."""
    title = "minipt: one training step"
    source = html.escape(page)
    return f'<iframe title="{title}" style="{FRAME}" srcdoc="{source}"></iframe>'


def _read(name: str) -> str:
    return resources.files("minipt.page").joinpath(name).read_text(encoding="utf-8")
