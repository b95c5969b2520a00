"""The recipe's webhook endpoint: Flask and kafka-python in the place of tidemark's ingress.

usage: producer.py BROKERS TOPIC PORT     (the secret is in WEBHOOK_SECRET)

It writes what the recipe writes: the workspace id as key, the event as JSON, received_at without a zone, no headers.
"""
import hashlib
import hmac
import json
import os
import sys
import warnings
from datetime import datetime

from flask import Flask, jsonify, request
from kafka import KafkaProducer

warnings.filterwarnings("ignore", category=DeprecationWarning)  # utcnow is what the recipe calls

brokers, topic, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
secret = os.environ["WEBHOOK_SECRET"].encode()
app = Flask(__name__)
producer = KafkaProducer(
    bootstrap_servers=brokers.split(","),
    acks="all",
    key_serializer=lambda k: k.encode("utf-8"),
    value_serializer=lambda v: json.dumps(v).encode("utf-8"),
)


@app.route("/webhook/fastio", methods=["POST"])
def webhook():
    body = request.get_data()
    expected = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers.get("Fastio-Signature", "")):
        return jsonify({"error": "invalid signature"}), 401
    event = json.loads(body)
    event["received_at"] = datetime.utcnow().isoformat()
    event["partition_key"] = event["workspace_id"]
    written = producer.send(topic, key=event["workspace_id"], value=event).get(timeout=10)
    return jsonify({"event_id": event["event_id"], "position": f"{written.partition}:{written.offset}"})


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=port, threaded=True)
