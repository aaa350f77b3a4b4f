# Judges contract and answers of the reads over HTTP, for `cargo xtask door-check`.
"""Has the contracts of the reads over HTTP judged by a validator of OpenAPI, and each real answer by its schema: door_openapi.py CALLS DIR

An answer may have no member that its schema does not name: for the check, objects are closed.
"""

import importlib.metadata
import json
import pathlib
import sys

from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

CALLS, DIR = map(pathlib.Path, sys.argv[1:])


def closed(schema):
    """The same schema with objects that have nothing but their properties."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: closed(value) for name, value in schema.items()}
    # Details of refusals are of whatever type.
    if schema.get("type") == "object" and "properties" in schema and "@type" not in schema["properties"]:
        schema["additionalProperties"] = False
    return schema


def validator(document, schema):
    whole = {**closed(schema), "components": closed(document["components"])}
    return Draft202012Validator(whole, format_checker=FormatChecker())


def main():
    documents = sorted(DIR.glob("*.openapi.json"))
    for path in documents:
        validate(json.loads(path.read_text(encoding="utf-8")), cls=OpenAPIV31SpecValidator)
    document = json.loads((DIR / "all.openapi.json").read_text(encoding="utf-8"))
    calls = json.loads(CALLS.read_text(encoding="utf-8"))
    judged = 0
    for call in calls:
        operation = document["paths"][call["path"]][call["http_method"]]
        (kind, content), = operation["responses"]["200"]["content"].items()
        text = (DIR / call["answer"]).read_text(encoding="utf-8")
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")] if "ndjson" in kind else [text]
        judge = validator(document, content["schema"])
        for line in lines:
            errors = [f"{error.json_path}: {error.message}" for error in judge.iter_errors(json.loads(line))]
            assert not errors, f"{call['operation']}: {errors[:3]}"
            judged += 1
    refused = validator(document, {"$ref": "#/components/schemas/google.rpc.Status"})
    assert list(refused.iter_errors({"code": 5})), "a schema that takes everything"
    version = importlib.metadata.version("openapi-spec-validator")
    print(f"openapi-spec-validator {version}: {len(documents)} documents hold, {judged} answers conform")


if __name__ == "__main__":
    main()
