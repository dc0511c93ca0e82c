"""What /openapi.json says is true: whatever is asked, what comes is what stands there, and its examples answer."""

from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.openapi.checks import JsonSchemaError, UndefinedStatusCode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .api import bearer, open_api

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
EXAMPLES = 40  # of each kind, for each operation


@pytest.fixture
def described(client):
    return schemathesis.openapi.from_asgi("/openapi.json", client.app)


def assert_as_documented(described, ask, *, examples):
    """Of each operation: with what it says it takes, and with what it says it does not."""
    asked = set()
    for found in described.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            with suppress(Unsatisfiable):  # an operation without parameters can't be asked wrongly

                @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
                @given(operation.as_strategy(generation_mode=mode))
                def every(case):
                    asked.add((case.method, case.path))
                    ask(case)

                every()
    return asked


def test_whatever_is_asked_is_answered_as_documented(described):
    """With any dataset id, most of which there is none of, and with one that there is."""

    def ask(case):
        case.call_and_validate(headers=bearer(1), checks=CHECKS)
        if case.path_parameters:
            case.path_parameters["dataset_id"] = "fct_transactions"
            case.call_and_validate(headers=bearer(1), checks=CHECKS)

    assert len(assert_as_documented(described, ask, examples=EXAMPLES)) == 10


def test_without_a_token_the_answer_is_as_documented_too(described):
    assert_as_documented(described, lambda case: case.call_and_validate(checks=CHECKS), examples=3)


def test_the_examples_of_the_reference_answer(declared_client):
    paths = declared_client.get("/openapi.json").json()["paths"]
    query = paths["/api/analytics/datasets/{dataset_id}/query"]["get"]
    shown = {p["name"]: p["schema"].get("example", p["schema"].get("examples", [None])[0]) for p in query["parameters"]}
    assert shown["dataset_id"]
    assert shown["select"]
    url = f"/api/analytics/datasets/{shown['dataset_id']}/query"
    parameters = {name: shown[name] for name in ("select", "order")} | shown["filters"]
    answers = [declared_client.get(url, headers=bearer(1), params=parameters)]
    (body,) = declared_client.get("/openapi.json").json()["components"]["schemas"]["QueriesBody"]["examples"]
    answers.append(declared_client.post("/api/analytics/query", headers=bearer(1), json=body))
    for answer in answers:
        assert answer.status_code == 200, answer.text
    assert all(result["rows"] for result in answers[1].json()["results"])


def test_an_answer_that_is_not_as_documented_is_found(store):
    """The control: the checks above see a status, a shape and a failure that stand nowhere."""
    client, _ = open_api(parquet_dir=store.root)
    described = client.app.openapi()
    described["paths"]["/health/live"]["get"]["responses"] = {
        "200": {"description": "", "content": {"application/json": {"schema": {"type": "string"}}}}
    }
    del described["paths"]["/api/analytics/datasets"]["get"]["responses"]["401"]
    del described["paths"]["/api/analytics/datasets"]["get"]["responses"]["default"]
    found = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    for path, problem in (("/health/live", JsonSchemaError), ("/api/analytics/datasets", UndefinedStatusCode)):
        with pytest.raises(FailureGroup) as caught:
            found[path]["GET"].Case().call_and_validate(checks=CHECKS)
        assert [type(failure) for failure in caught.value.exceptions] == [problem]
