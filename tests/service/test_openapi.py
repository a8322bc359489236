"""The OpenAPI document: complete, and kept by the server under requests that it allows and others."""

from __future__ import annotations

import os
from typing import Any
from unittest import SkipTest

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from service.conftest import Running

EXAMPLES = int(os.environ.get("HEPIPE_EXAMPLES", "12"))
"""Requests an operation and mode; an occasional run takes 500."""
CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
]
OPERATIONS = 17


@pytest.fixture(scope="module")
def document(running: Running) -> Any:
    with running.http(None) as http:
        return http.get("/openapi.json").json()


def test_every_operation_says_what_it_takes_answers_and_refuses(document: dict[str, Any]) -> None:
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert len(operations) == OPERATIONS
    for one in operations:
        assert one["description"]
        assert any(status.startswith("2") for status in one["responses"])
        for status, answer in one["responses"].items():
            assert answer["description"], (one["operationId"], status)
            if status >= "400":
                kinds = ["application/problem+json", *["text/plain"] * (status == "400")]
                assert list(answer["content"]) == kinds
        if "security" in one:
            assert "401" in one["responses"]
    assert sum("security" not in one for one in operations) == 3  # metadata and health
    assert "HTTPValidationError" not in str(document)
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


def test_names_of_operations_are_unique(document: dict[str, Any]) -> None:
    names = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "others"])
def test_requests_made_from_the_document_get_documented_answers(running: Running, mode: GenerationMode) -> None:
    headers = {"Authorization": f"Bearer {running.tokens['bob']}"}
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    seen = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def ask(case: Any) -> None:
            case.call_and_validate(headers=headers, checks=CHECKS)

        try:
            ask()
        except (Unsatisfiable, SkipTest):
            continue  # the document forbids nothing here
        seen += 1
    assert seen == OPERATIONS if mode is GenerationMode.POSITIVE else seen >= 5
