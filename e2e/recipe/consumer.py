"""The recipe's consumer: kafka-python, a group id, JSON values.

usage: consumer.py BROKERS TOPIC GROUP

Prints one JSON line an event, with what the recipe reads of each, and ends when nothing has come for five seconds.
"""
import json
import sys

from kafka import KafkaConsumer

brokers, topic, group = sys.argv[1:4]
consumer = KafkaConsumer(
    topic,
    bootstrap_servers=brokers.split(","),
    group_id=group,
    auto_offset_reset="earliest",
    enable_auto_commit=True,
    value_deserializer=lambda m: json.loads(m.decode("utf-8")),
    consumer_timeout_ms=5000,
)
for message in consumer:
    event = message.value
    print(json.dumps({
        "partition": message.partition,
        "offset": message.offset,
        "key": message.key.decode("utf-8"),
        "event": event["event"],
        "workspace_id": event["workspace_id"],
        "event_id": event["event_id"],
        "received_at": event["received_at"],
        "partition_key": event["partition_key"],
    }), flush=True)
consumer.close()
