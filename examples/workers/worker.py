#!/usr/bin/env python3
"""A warrend worker in Python: copy this file and fill in handle(). It needs nothing but Python 3.

    [jobs.mails.handler]
    worker = ["/opt/mails/worker.py"]
    batch = 50

warrend starts it, writes one JSON line with a batch of tasks to descriptor 3, and reads one JSON line with their results
from descriptor 4. What you print goes to warrend's log and disturbs nothing.
"""

import base64
import json
import signal
import sys


class Dead(Exception):
    """This message must never be tried again: it goes to the dead-letter queue."""


class Retry(Exception):
    """Try it again, after this delay ("10s", "5m"); without one, after the delay that the job is configured with."""

    def __init__(self, error, delay=None):
        super().__init__(error)
        self.delay = delay


def handle(task, body):
    """Your work. Returning means done; what is returned is the reply, where the job replies (None: an empty one).

    `task` is a dict: key, attempt, max_attempts, queue, routing_key, headers and so on. `body` is bytes. A task can run
    again after a crash; task["key"] is the same each time, so use it to do things once.
    """
    order = json.loads(body) if body[:1] == b"{" else {}
    if order.get("fail") == "dead":
        raise Dead("no such address")
    if order.get("fail") == "retry":
        raise Retry("the mail server is busy", delay="10s")
    return None


def result_of(task):
    try:
        text = task.get("body")
        body = text.encode() if text is not None else base64.b64decode(task["body_base64"])
        reply = handle(task, body)
    except Dead as error:
        return {"status": "dead", "error": str(error)}
    except Retry as error:
        return {"status": "retry", "error": str(error), **({"delay": error.delay} if error.delay else {})}
    except Exception as error:  # a bug, or anything unforeseen: warrend counts the attempts
        return {"status": "retry", "error": f"{type(error).__name__}: {error}"}
    return {"status": "done"} if reply is None else {"status": "done", "reply": reply}


class Terminated(BaseException):
    """TERM came while no task was at work."""


def main():
    requests = open(3, "rb")
    answers = open(4, "wb", buffering=0)
    working = ending = False

    def say(value):
        line = memoryview(json.dumps(value).encode() + b"\n")
        while line:  # a long line takes several writes
            line = line[answers.write(line) :]

    def on_term(*_):
        # warrend sends TERM when this process has to end. The task at work is finished; then no other is begun.
        nonlocal ending
        ending = True
        if not working:
            raise Terminated

    signal.signal(signal.SIGTERM, on_term)
    say({"warrend": 1})
    try:
        for line in requests:  # ends when warrend closes descriptor 3
            working = True
            request = json.loads(line)
            results = []
            for task in request["tasks"]:
                if ending:
                    break
                results.append(result_of(task))
                # Slow tasks are better answered one by one: if this process dies, the finished ones stay finished.
                #   say({"id": request["id"], "results": results, "more": True}); results = []
            # Without "more", tasks that have no result would count as failed; warrend knows what to do with the rest.
            say({"id": request["id"], "results": results, "more": ending})
            working = False
            if ending:
                break
    except Terminated:
        pass


if __name__ == "__main__":
    sys.exit(main())
