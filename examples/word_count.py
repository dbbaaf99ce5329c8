"""Workers share a queue of work and a dict of results: potluck run examples/word_count.py"""

import queue

import potluck

app = potluck.App("word-count")
lines = potluck.Queue.from_name("lines", create_if_missing=True)
counts = potluck.Dict.from_name("counts", create_if_missing=True)


@app.function()
def count(worker: int) -> int:
    """Take lines until none comes for a second. Each worker counts under its own key, so that none is counted twice."""
    mine: dict[str, int] = {}
    done = 0
    try:
        while True:
            for word in lines.get(timeout=1).split():
                mine[word] = mine.get(word, 0) + 1
            done += 1
            counts[worker] = mine
    except queue.Empty:
        return done


@app.local_entrypoint()
def main(workers: int = 2) -> None:
    lines.clear()
    counts.clear()
    lines.put_many(["to be or not to be", "that is the question", "to die to sleep"] * 10)
    print("lines counted:", sum(count.map(range(workers))))
    total: dict[str, int] = {}
    for each in counts.values():
        for word, number in each.items():
            total[word] = total.get(word, 0) + number
    print("most frequent:", max(total, key=lambda word: total[word]), max(total.values()))
