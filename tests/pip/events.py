# Sends the events of a file by clients as they are published: the CloudEvents SDK and the OpenMeter client.
"""events.py URL FILE: one JSON object a line, with its way; exits with 0 where every call is answered as it must be."""

import json
import sys
from datetime import datetime

import requests
from cloudevents.conversion import to_binary, to_json, to_structured
from cloudevents.http import CloudEvent
from openmeter import Client
from openmeter.models import Event

SOURCE = "/events.py"
BATCH = 25


def cloud_event(event):
    attributes = {name: event[name] for name in ("id", "type", "subject", "time")}
    return CloudEvent({"source": SOURCE, **attributes}, {"quantity": event["quantity"]})


def openmeter_event(event):
    return Event(
        id=event["id"],
        source=SOURCE,
        specversion="1.0",
        type=event["type"],
        subject=event["subject"],
        time=datetime.fromisoformat(event["time"]),
        data={"quantity": event["quantity"]},
    )


def batches(events):
    return [events[at : at + BATCH] for at in range(0, len(events), BATCH)]


def post(session, url, headers, body, status=204):
    answer = session.post(f"{url}/v1/events", headers=headers, data=body, timeout=30)
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    return answer


def post_batch(session, url, events, status=204):
    body = b"[" + b",".join(to_json(event) for event in events) + b"]"
    return post(session, url, {"content-type": "application/cloudevents-batch+json"}, body, status)


def send(session, client, url, events):
    by_way = {}
    for event in events:
        by_way.setdefault(event["way"], []).append(event)
    for event in by_way["binary"]:
        post(session, url, *to_binary(cloud_event(event)))
    for event in by_way["structured"]:
        post(session, url, *to_structured(cloud_event(event)))
    for some in batches(by_way["batch"]):
        post_batch(session, url, [cloud_event(event) for event in some])
    for event in by_way["openmeter"]:
        client.events.ingest_event(openmeter_event(event))
    for some in batches(by_way["openmeter-batch"]):
        client.events.ingest_events([openmeter_event(event) for event in some])


def refuse(session, url, known, client_id):
    """What is wrong is named by its place; what is right beside it was recorded before, and stays."""
    other = cloud_event({**known, "quantity": known["quantity"] + 1})
    attributes = {"source": SOURCE, "id": "float", "type": known["type"], "subject": client_id}
    half = CloudEvent(attributes, {"quantity": 0.5})
    answer = post_batch(session, url, [cloud_event(known), other, half], 400)
    assert answer.headers["content-type"] == "application/problem+json", answer.headers
    told = [(event["index"], event["outcome"], event["reason"]) for event in answer.json()["events"]]
    assert told == [(1, "conflict", "EVENT_ID_CONFLICT"), (2, "refused", "EVENT_INVALID")], told
    assert answer.json()["recorded"] == 1, answer.text
    post(session, url, *to_binary(other), status=409)


def main(url, path):
    with open(path, encoding="utf-8") as lines:
        events = [json.loads(line) for line in lines]
    session = requests.Session()
    client = Client(endpoint=url)
    # What came by one way is known by every other: the second time all go another one.
    send(session, client, url, events)
    ways = ["binary", "structured", "batch", "openmeter", "openmeter-batch"]
    turned = [{**event, "way": ways[(ways.index(event["way"]) + 1) % len(ways)]} for event in events]
    send(session, client, url, turned)
    refuse(session, url, events[0], events[0]["subject"])
    print(f"{len(events)} events, each sent twice")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
