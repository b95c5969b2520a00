"""What a schema cannot say: which cursors, positions, workspaces and dead letters there are."""

import os
import re
import time

import requests
import schemathesis

POSITION = os.environ["POSITION"]
WORKSPACE = os.environ["WORKSPACE"]
FILE = os.environ["FILE"]
ENTRY = os.environ["ENTRY"]
JOB = os.environ["JOB"]
WAIT = r"([0-9]|[1-5][0-9]|60)s?|([0-9]{1,4}|[1-5][0-9]{4}|60000)ms"


@schemathesis.hook
def before_call(context, case, kwargs):
    """Replaces values that are well formed by values that exist. What is malformed stays, and must be refused."""
    query = case.query
    if isinstance(query.get("at_least"), str) and re.fullmatch(r"[0-9]+:[0-9]+", query["at_least"]):
        query["at_least"] = POSITION
    as_of = query.get("as_of")
    if isinstance(as_of, str) and re.fullmatch(r"[0-9]+:[0-9]+|[0-9]{4}-.*T.*", as_of):
        query["as_of"] = POSITION
        query.pop("at_least", None)  # not together
    if isinstance(query.get("cursor"), str):
        query["cursor"] = ""
    if isinstance(query.get("wait"), str) and re.fullmatch(WAIT, query["wait"]):
        query["wait"] = "20ms" if query["wait"].endswith("ms") else "0"
        if "as_of" in query or case.operation.definition.raw["operationId"].endswith("Usage"):
            query["wait"] = "5"  # the history is asked how far it has read, which is never known at once
    # TestOpenAPI sends events of one workspace: only its notices are not silent, and POSITION is one of its partition.
    only = case.operation.definition.raw["operationId"] == "getNotices" or query.get("as_of") == POSITION
    # Half of the requests are for what there is, the others for ids of any form.
    path = case.path_parameters
    if isinstance(path.get("workspace"), str) and (only or len(path["workspace"]) % 2 == 0):
        path["workspace"] = WORKSPACE
        if "file" in path:
            path["file"] = FILE
    if isinstance(path.get("position"), str) and re.fullmatch(r"[0-9]+(:|%3A)[0-9]+", path["position"]):
        path["position"] = POSITION
    # Only a page has a limit and a cursor.
    if case.operation.path == "/v1/dlq" and {"limit", "cursor"} & query.keys():
        query["each"] = "true"
    for name, value in {"entry": ENTRY, "job": JOB}.items():
        if isinstance(path.get(name), str) and len(path[name]) % 2 == 0:
            path[name] = value
    if case.operation.path == "/v1/dlq/jobs" and isinstance(case.body, dict):
        body = case.body
        if type(body.get("rate")) in (int, float) and body["rate"] > 0:
            # A job that writes one dead letter a day would keep all others from writing. A drop has no rate.
            body["rate"] = 0 if body.get("action") == "drop" else 1000
        if body.get("action") == "drop" and body.get("force") is True:
            body["force"] = False


@schemathesis.hook
def after_call(context, case, response):
    """Asks again after a 503 with Retry-After, as clients must: on a busy machine the server may be late."""
    for _ in range(3):
        if response.status_code != 503 or "retry-after" not in response.headers:
            return
        print(f"asked again: {response.request.method} {response.request.url}: {response.content[:300]!r}", flush=True)
        time.sleep(float(response.headers["retry-after"][0]))
        with requests.Session() as session:
            answer = session.send(response.request, timeout=10)
        again = schemathesis.Response.from_requests(answer, verify=response.verify)
        for name in ("status_code", "headers", "content", "content_size", "elapsed", "message", "encoding"):
            setattr(response, name, getattr(again, name))
