"""What people write by hand: pika, prefetch 100, acks collected in tens, an in-memory set of the ids seen.

  pika_consumer.py URL QUEUE COUNT

The set is forgotten at exit, and each ack of a "batch" is a frame of its own.
"""
import json
import sys

import pika

BATCH_ACK_SIZE = 10
PREFETCH = 100


def main() -> None:
    url, queue, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    seen: set[str] = set()
    unacked: list[int] = []
    for done, (method, _, body) in enumerate(channel.consume(queue), start=1):
        message = json.loads(body)
        if message["message_id"] not in seen:
            json.loads(message["payload"])
            seen.add(message["message_id"])
        unacked.append(method.delivery_tag)
        if len(unacked) >= BATCH_ACK_SIZE or done == count:
            for tag in unacked:
                channel.basic_ack(tag)
            unacked.clear()
        if done == count:
            break
    connection.close()


if __name__ == "__main__":
    main()
