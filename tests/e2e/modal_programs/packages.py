"""An image with a package that the caller does not have, and a small pipeline over pages that are at hand."""

import modal

app = modal.App("example-packages")
image = modal.Image.debian_slim().uv_pip_install("inflection==0.5.1")

with image.imports():
    import inflection

PAGES = {
    "index": '<a href="first">one</a> <a href="second">two</a>',
    "first": '<a href="index">back</a>',
    "second": "nothing",
}


@app.function(image=image)
def links(page: str) -> list[str]:
    from html.parser import HTMLParser

    found = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag == "a":
                found.append(inflection.pluralize(dict(attrs)["href"]))

    Parser().feed(PAGES[page])
    return found


@app.local_entrypoint()
def main():
    for page, found in zip(PAGES, links.map(PAGES), strict=True):
        print(page, "→", found)
