"""A no-op actor for Dramatiq, and what fills its queue.

  dramatiq dramatiq_app ...              the contestant
  dramatiq_app.py COUNT                  publishes COUNT messages in Dramatiq's own protocol

Environment: BENCH_URL, BENCH_QUEUE; dramatiq_queue_prefetch is Dramatiq's own.
"""
import json
import os
import sys

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

broker = RabbitmqBroker(url=os.environ["BENCH_URL"])
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=os.environ["BENCH_QUEUE"])
def noop(payload: str) -> None:
    """The same work as the other Python contestants do: parse the JSON in the argument."""
    json.loads(payload)


def publish(count: int) -> None:
    payload = json.dumps("x" * 200)
    for _ in range(count):
        noop.send(payload)
    # Without it the last messages stay in the connection's buffer.
    broker.close()


if __name__ == "__main__":
    publish(int(sys.argv[1]))
