"""Writes one record for each line of its input, with the line as key, as any kafka-python producer would.

usage: keys.py BROKERS TOPIC < KEYS
"""
import sys

from kafka import KafkaProducer

brokers, topic = sys.argv[1:3]
producer = KafkaProducer(bootstrap_servers=brokers.split(","), linger_ms=20)
for line in sys.stdin.buffer:
    producer.send(topic, key=line.rstrip(b"\n"), value=b"kafka-python")
producer.flush()
producer.close()
