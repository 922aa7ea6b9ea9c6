"""Orders from standard input, mapped and sent to TARGET in batches of 200, as a destination of the Airbyte CDK."""

import os
import sys

import requests
from airbyte_cdk import AirbyteConnectionStatus, ConfiguredAirbyteCatalog, ConnectorSpecification, Destination, Status, Type

BATCH = 200
STATES = {"A": "draft", "B": "confirmed"}


def canonical(order):
    customer = order["customer"]
    return {
        "externalRef": order["id"],
        "orderNo": order["number"],
        "state": STATES.get(order["status"], "shipped"),
        "currency": order["currency"],
        "amount": order["total"],
        "customerName": customer["name"],
        "customerEmail": customer["email"],
        "country": customer["address"]["country"].upper(),
        "comment": order["notes"],
        "lines": [
            {"lineId": item["lineId"], "sku": item["sku"], "qty": item["quantity"], "price": item["unitPrice"]} for item in order["items"]
        ],
    }


class Orders(Destination):
    def spec(self, logger):
        return ConnectorSpecification(connectionSpecification={"type": "object", "properties": {}})

    def check(self, logger, config):
        return AirbyteConnectionStatus(status=Status.SUCCEEDED)

    def write(self, config, configured_catalog: ConfiguredAirbyteCatalog, input_messages):
        session = requests.Session()
        batch = []

        def send():
            session.post(os.environ["TARGET"] + "/orders/batch", json={"records": batch}).raise_for_status()
            batch.clear()

        for message in input_messages:
            if message.type == Type.RECORD:
                batch.append(canonical(message.record.data))
                if len(batch) == BATCH:
                    send()
            elif message.type == Type.STATE:
                yield message
        if batch:
            send()


if __name__ == "__main__":
    Orders().run(sys.argv[1:])
