"""Judges an OpenAPI document, and answers by it.

Reads one line of JSON from standard input: `{"document": {...}, "answers": [{"method", "path", "status", "body"}]}`, where a path is
one of the document's. Ends with 1 and what is wrong, or prints how many answers it judged. It is an independent judge: it shares no
code with Fairlead.
"""

import json
import sys

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

told = json.loads(sys.stdin.readline())
document = told["document"]
wrong = [f"the document, at {'/'.join(map(str, error.path))}: {error.message}" for error in OpenAPIV31SpecValidator(document).iter_errors()]

registry = Registry().with_resource("urn:openapi", Resource(contents=document, specification=DRAFT202012))
for answer in told["answers"]:
    at = f"{answer['method']} {answer['path']} answered {answer['status']}"
    response = document["paths"][answer["path"]][answer["method"].lower()]["responses"].get(str(answer["status"]))
    if response is None:
        wrong.append(f"{at}, which the document does not name")
        continue
    place = f"/paths/{answer['path'].replace('~', '~0').replace('/', '~1')}/{answer['method'].lower()}/responses/{answer['status']}"
    while "$ref" in response:
        place = response["$ref"].removeprefix("#")
        response = document
        for step in place.split("/")[1:]:
            response = response[step.replace("~1", "/").replace("~0", "~")]
    contents = response.get("content", {})
    if answer["body"] is None:
        continue
    for media in contents:
        schema = {"$ref": f"urn:openapi#{place}/content/{media.replace('/', '~1')}/schema".replace("{", "%7B").replace("}", "%7D")}
        for error in Draft202012Validator(schema, registry=registry).iter_errors(answer["body"]):
            wrong.append(f"{at}, at {'/'.join(map(str, error.path))}: {error.message}")
    if not contents:
        wrong.append(f"{at} with a body that the document does not name")

if wrong:
    sys.exit("\n".join(wrong))
print(len(told["answers"]))
