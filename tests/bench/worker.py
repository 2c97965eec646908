"""The Python worker of examples/ with a no-op task: it does the work of the other Python contestants, which is to parse the
body and the JSON inside it. Two variables serve the measurements of waiting times:

  BENCH_STARTS    a file that gets a line `STAMP NOW` (nanoseconds) for each task that bears a stamp
  BENCH_SLEEP_MS  how long a task takes
"""
import importlib.util
import json
import os
import pathlib
import time

STARTS = os.environ.get("BENCH_STARTS")
SLEEP = float(os.environ.get("BENCH_SLEEP_MS", "0")) / 1000


def noop(_task, body):
    now = time.time_ns()
    message = json.loads(body)
    json.loads(message["payload"])
    if STARTS and "stamp" in message:
        # One write, so that the lines of two workers never mix.
        os.write(starts, f"{message['stamp']} {now}\n".encode())
    if SLEEP:
        time.sleep(SLEEP)


if __name__ == "__main__":
    if STARTS:
        starts = os.open(STARTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    path = pathlib.Path(__file__).parents[2] / "examples/workers/worker.py"
    spec = importlib.util.spec_from_file_location("example", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.handle = noop
    example.main()
