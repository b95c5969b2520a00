"""Sends a record for each key on standard input, base64 a line, as the clients of Python do by themselves.

    produce.py kafka-python|confluent-kafka BROKERS TOPIC

kafka-python also prints for each key the partitions of topics with 1, 7, 12, 32 and 1009, as its hash gives them.
"""
import base64
import sys


def kafka_python(brokers, topic, keys):
    from kafka import KafkaProducer
    from kafka.partitioner.default import murmur2

    producer = KafkaProducer(bootstrap_servers=brokers)
    sent = [producer.send(topic, key=key, value=b"") for key in keys]
    producer.flush()
    for future in sent:
        future.get(timeout=0)
    producer.close()
    for key in keys:
        print(*((murmur2(key) & 0x7FFFFFFF) % n for n in (1, 7, 12, 32, 1009)))


def confluent_kafka(brokers, topic, keys):
    from confluent_kafka import Producer

    errors = []
    producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random"})
    for key in keys:
        producer.produce(topic, key=key, value=b"", on_delivery=lambda err, _: err and errors.append(err))
        producer.poll(0)
    left = producer.flush(60)
    if errors or left:
        sys.exit(f"{left} records not sent, errors: {errors[:3]}")


keys = [base64.b64decode(line.strip()) for line in sys.stdin]
{"kafka-python": kafka_python, "confluent-kafka": confluent_kafka}[sys.argv[1]](*sys.argv[2:4], keys)
