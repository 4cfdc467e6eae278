"""How many requests a second `cliptune serve` answers, beside its model called in this process.

    cliptune serve RUN &
    python examples/serve_load.py RUN http://127.0.0.1:8401

Both compute with one thread; the server's clients, `CLIENTS` of them, each wait for an answer
before they ask again. Texts are those of the run's task.
"""

import json
import os
import sys
import threading
import time
from http.client import HTTPConnection
from itertools import cycle, islice
from urllib.parse import urlsplit

import numpy as np
import torch

from cliptune.config import Config
from cliptune.models.load import load_plain
from cliptune.record import read_run
from cliptune.task import load_task

SECONDS, CLIENTS, SIZES = 10.0, 8, (1, 32)


def timed(ask, texts, size, until):
    """Seconds of each call, one after the other."""
    taken, left = [], cycle(texts)
    while (started := time.perf_counter()) < until:
        ask(list(islice(left, size)))
        taken.append(time.perf_counter() - started)
    return taken


def server(url):
    """Asks over a connection of its own, which stays open."""
    connection = HTTPConnection(urlsplit(url).netloc)
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get("CLIPTUNE_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"

    def ask(texts):
        connection.request("POST", "/v1/classify", json.dumps({"texts": texts}), headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            sys.exit(f"{url} answers {answer.status}: {content.decode():.300}")

    return ask


def plain(config):
    """The model of the run without a prompt: tokens, one forward pass."""
    torch.set_num_threads(1)
    model = load_plain(config.model)

    @torch.inference_mode()
    def ask(texts):
        tokens = model.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        model.module(**tokens.to(config.model.device))

    return ask


def measure(name, asks, texts, size):
    """Let all ask at the same time, and print what came of it."""
    asks[0](texts[:size])  # what only the first call takes is not counted
    found = []
    until = time.perf_counter() + SECONDS
    threads = [
        threading.Thread(target=lambda ask=ask: found.extend(timed(ask, texts, size, until)))
        for ask in asks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = np.percentile(found, (50, 99)) * 1000
    rate = len(found) / SECONDS
    print(f"{name}\t{size}\t{rate:.1f}\t{rate * size:.0f}\t{p50:.1f}\t{p99:.1f}", flush=True)


run, url = sys.argv[1:]
config = read_run(Config, run).config
texts = load_task(config.task)["validation"].texts
model = plain(config)
print("who\ttexts a request\trequests/s\ttexts/s\tp50 ms\tp99 ms")
for size in SIZES:
    measure("plain model", [model], texts, size)
    measure("1 client", [server(url)], texts, size)
    measure(f"{CLIENTS} clients", [server(url) for _ in range(CLIENTS)], texts, size)
