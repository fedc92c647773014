"""JSON lines: one question on standard input, one answer on standard output, until the input ends.

A question is `{"op": name, ...fields}`. An answer is `{"ok": true, ...}` with what the operation
found, or `{"ok": false, "class": ..., "error": ...}` with the class of the exception.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Operation = Callable[..., Awaitable[dict[str, Any]]]


def failure(error: Exception) -> dict[str, str]:
    """What an answer tells of an exception; some libraries keep the text in an attribute."""
    text = str(error) or str(getattr(error, "message", ""))
    return {"class": type(error).__name__, "error": text or repr(error)}


async def answer(operations: Mapping[str, Operation], line: bytes) -> dict[str, Any]:
    """The answer to one line; `from` is no name in Python, so operations call it `sender`."""
    try:
        question = json.loads(line)
        operation = operations[question.pop("op")]
        if "from" in question:
            question["sender"] = question.pop("from")
        return {"ok": True, **await operation(**question)}
    except Exception as error:  # whatever a library raises is an answer here
        return {"ok": False, **failure(error)}


async def serve(operations: Mapping[str, Operation]) -> None:
    """Answer every line, one after the other. What operations started goes on in between."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        print(json.dumps(await answer(operations, line)), flush=True)
