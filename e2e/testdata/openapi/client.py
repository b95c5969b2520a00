"""Reads a file, a listing and the changes of a workspace with the client that openapi-python-client generates."""

import os

from tidemark_client import AuthenticatedClient
from tidemark_client.api.files import diff_files, get_changes, get_file, list_files
from tidemark_client.models import Delete, DiffRequest, Problem, Upsert
from tidemark_client.types import UNSET

workspace, file = os.environ["WORKSPACE"], os.environ["FILE"]


def ok(answer):
    if answer is None or isinstance(answer, Problem):
        raise SystemExit(f"refused: {answer}")
    return answer


with AuthenticatedClient(base_url=os.environ["URL"], token=os.environ["TOKEN"]) as client:
    assert ok(get_file.sync(workspace, file, client=client)).file_id == file
    missing = get_file.sync(workspace, "nothing-here", client=client)
    assert isinstance(missing, Problem) and missing.code == "unknown_file", missing

    files, cursor = {}, UNSET
    while cursor is not None:
        page = ok(list_files.sync(workspace, client=client, limit=2, cursor=cursor))
        files.update({f.file_id: f for f in page.files})
        cursor = page.next_cursor
    assert file in files, files
    ok(get_changes.sync(workspace, client=client, cursor=page.changes_cursor))

    known, cursor, up_to_date = set(), UNSET, False
    while not up_to_date:
        page = ok(get_changes.sync(workspace, client=client, limit=3, cursor=cursor))
        for change in page.changes:
            if isinstance(change, Upsert):
                known.add(change.file.file_id)
            else:
                assert isinstance(change, Delete), change
                known.discard(change.file_id)
        cursor, up_to_date = page.cursor, page.up_to_date
    assert known == set(files), (known, set(files))
    assert ok(get_changes.sync(workspace, client=client, cursor=cursor, wait="100ms")).changes == []

    diff = ok(diff_files.sync(workspace, client=client, body=DiffRequest(files=[])))
    assert {f.file_id for f in diff.new} == known, diff
    print(f"{len(files)} files, {len(known)} of the changes")
