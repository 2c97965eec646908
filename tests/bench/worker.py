"""A no-op worker of warrend: requests on descriptor 3, answers on 4, one JSON object a line.

It does the work of the other Python contestants: parse the body and the JSON inside it. Two variables serve the
measurements of waiting times:

  BENCH_STARTS    a file that gets a line `STAMP NOW` for each task that bears a stamp (both in nanoseconds)
  BENCH_SLEEP_MS  how long a task takes
"""
import json
import os
import time

STARTS = os.environ.get("BENCH_STARTS")
SLEEP = float(os.environ.get("BENCH_SLEEP_MS", "0")) / 1000


def noop(body: str) -> None:
    now = time.time_ns()
    message = json.loads(body)
    json.loads(message["payload"])
    if STARTS and "stamp" in message:
        # One write, so that the lines of two workers never mix.
        os.write(starts, f"{message['stamp']} {now}\n".encode())
    if SLEEP:
        time.sleep(SLEEP)


def main() -> None:
    with open(3, "rb") as requests, open(4, "wb", buffering=0) as answers:
        answers.write(b'{"warrend":1}\n')
        for line in requests:
            request = json.loads(line)
            results = []
            for task in request["tasks"]:
                try:
                    noop(task["body"])
                    results.append({"status": "done"})
                except (KeyError, ValueError) as error:
                    results.append({"status": "dead", "error": str(error)})
            answers.write(json.dumps({"id": request["id"], "results": results}).encode() + b"\n")


if __name__ == "__main__":
    if STARTS:
        starts = os.open(STARTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    main()
