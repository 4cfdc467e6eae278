"""Runs whose prompts are served, over real HTTP in this process, without Ray Serve around it."""

import json
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tiny

import cliptune


def searched(weights: Path, data: Path, run: Path, **sections: Any) -> Path:
    """A run of a search that takes no time."""
    cliptune.search(tiny.config(weights, data, run, ensemble={"clip_ratio": 0.4}, **sections))
    return run


def ask(url: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """Status, content and headers of an answer; `body` is sent as JSON unless it is bytes."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    sent = {"content-type": "application/json", **headers}
    connection.request("GET" if body is None else "POST", path, content, sent)
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    found = {name.lower(): value for name, value in answer.getheaders()}
    is_json = found.get("content-type") == "application/json"
    return answer.status, json.loads(read) if is_json else read.decode(), found
