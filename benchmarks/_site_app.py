"""The application of `_site`, as a function."""

import _site

import potluck

app = potluck.App("bench")
image = potluck.Image.local_python().add_local_python_source("_site")


@app.function(cpu=1, max_containers=1, image=image)
@potluck.concurrent(max_inputs=100)
@potluck.asgi_app()
def served():
    return _site.site
