"""A no-op task for Celery, and what fills its queue.

  celery -A celery_app worker ...        the contestant
  celery_app.py COUNT                    publishes COUNT tasks in Celery's own protocol

Environment: BENCH_URL, BENCH_QUEUE, BENCH_PREFETCH (Celery's prefetch multiplier).
"""
import json
import os
import sys

from celery import Celery
from kombu import Queue

app = Celery("bench", broker=os.environ["BENCH_URL"])
app.conf.update(
    # A queue by this name stands on the broker: durable, direct by the default exchange.
    task_queues=[Queue(os.environ["BENCH_QUEUE"], exchange="", routing_key=os.environ["BENCH_QUEUE"], durable=True)],
    task_default_queue=os.environ["BENCH_QUEUE"],
    task_default_exchange="",
    task_default_routing_key=os.environ["BENCH_QUEUE"],
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "4")),
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop(payload: str) -> None:
    """The same work as the other Python contestants do: parse the JSON in the argument."""
    json.loads(payload)


def publish(count: int) -> None:
    payload = json.dumps("x" * 200)
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(count):
            noop.apply_async((payload,), producer=producer)
    app.close()


if __name__ == "__main__":
    publish(int(sys.argv[1]))
