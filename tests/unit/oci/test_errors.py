from __future__ import annotations

import json

from p2pdist.oci.errors import ErrorCode, error_body


def test_a_body_as_the_specification_has_it() -> None:
    body = json.loads(error_body(ErrorCode.BLOB_UNKNOWN, "no such blob", {"digest": "sha256:x"}))
    assert body == {
        "errors": [{"code": "BLOB_UNKNOWN", "message": "no such blob", "detail": {"digest": "sha256:x"}}]
    }


def test_no_detail_and_a_bounded_message() -> None:
    (error,) = json.loads(error_body(ErrorCode.DENIED, "x" * 10_000))["errors"]
    assert error.keys() == {"code", "message"}
    assert len(error["message"]) == 2048
