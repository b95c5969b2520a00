"""Creates a topic with settings, as kafka-python does, and prints its cleanup.policy as the broker then tells it.

    create_topic.py BROKERS TOPIC
"""
import sys

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic

brokers, topic = sys.argv[1:]
admin = KafkaAdminClient(bootstrap_servers=brokers)
admin.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1, topic_configs={"cleanup.policy": "compact"})])
told = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
print(told["topic"][topic]["cleanup.policy"]["value"])
