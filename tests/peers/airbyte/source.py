"""Pages of orders from FEED, as a low-code source of the Airbyte CDK."""

import os
import sys

from airbyte_cdk.entrypoint import launch
from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource

SCHEMA = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": True, "properties": {}}
MANIFEST = {
    "version": "6.0.0",
    "type": "DeclarativeSource",
    "check": {"type": "CheckStream", "stream_names": ["orders"]},
    "streams": [
        {
            "type": "DeclarativeStream",
            "name": "orders",
            "primary_key": ["id"],
            "schema_loader": {"type": "InlineSchemaLoader", "schema": SCHEMA},
            "retriever": {
                "type": "SimpleRetriever",
                "requester": {"type": "HttpRequester", "url_base": os.environ["FEED"], "path": "/orders", "http_method": "GET"},
                "record_selector": {"type": "RecordSelector", "extractor": {"type": "DpathExtractor", "field_path": ["data"]}},
                "paginator": {
                    "type": "DefaultPaginator",
                    "pagination_strategy": {"type": "PageIncrement", "start_from_page": 0, "inject_on_first_request": True, "page_size": 200},
                    "page_token_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "page"},
                },
            },
        }
    ],
    "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": {}}},
}

if __name__ == "__main__":
    launch(ConcurrentDeclarativeSource(catalog=None, config={}, state=None, source_config=MANIFEST), sys.argv[1:])
