"""Uses simple-salesforce against a simulator, as Salesforce's own users do.

Reads one line of JSON from standard input, the announcement of `fairlead simulate salesforce --tls` (10,000 accounts);
REQUESTS_CA_BUNDLE must name its authority. Prints what went wrong and ends with 1, or prints the number of checks and ends
with 0. It is an independent judge: it shares no code with Fairlead.
"""

import datetime
import json
import sys
from decimal import Decimal

import requests
from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce, SFType
from simple_salesforce.exceptions import (
    SalesforceAuthenticationFailed,
    SalesforceExpiredSession,
    SalesforceMalformedRequest,
    SalesforceMoreThanOneRecord,
    SalesforceResourceNotFound,
)
from simple_salesforce.format import format_soql

announcement = json.loads(sys.stdin.readline())
endpoint = announcement["endpoint"]
keys = announcement["credentials"]
checks = 0


def check(condition, told):
    global checks
    checks += 1
    if not condition:
        sys.exit(f"check {checks}: {told}")


def refused(kind, call):
    """What the client makes of an answer that it does not like; counts as a check."""
    global checks
    checks += 1
    try:
        call()
    except kind as error:
        return error
    sys.exit(f"check {checks}: no {kind.__name__}")


class ToSimulator(HTTPAdapter):
    """Sends what is meant for Salesforce's login hosts to the simulator; the client knows no other way to name it."""

    def send(self, request, **kwargs):
        for host in ("https://acme.my.salesforce.com", "https://login.salesforce.com"):
            request.url = request.url.replace(host, endpoint, 1)
        return super().send(request, **kwargs)


def session():
    made = requests.Session()
    made.mount("https://acme.my.salesforce.com", ToSimulator())
    made.mount("https://login.salesforce.com", ToSimulator())
    return made


def connect(**arguments):
    return Salesforce(version="67.0", session=session(), parse_float=Decimal, **arguments)


# Sessions: client credentials, a signed assertion, and wrong ones.
sf = connect(consumer_key=keys["clientId"], consumer_secret=keys["clientSecret"], domain="acme.my")
check(sf.sf_instance == endpoint.removeprefix("https://"), sf.sf_instance)
signed = connect(username=keys["username"], consumer_key=keys["clientId"], privatekey=keys["privateKey"])
check(signed.query("SELECT COUNT() FROM Account")["totalSize"] == 10_000, "a signed assertion gives a session")
error = refused(
    SalesforceAuthenticationFailed,
    lambda: connect(consumer_key=keys["clientId"], consumer_secret="wrong", domain="acme.my"),
)
check("invalid" in str(error), error)
check(sf.is_sandbox() is True, "the organization tells that it is a sandbox")

# Reading all, page by page.
everything = sf.query_all(
    "SELECT Id, Name, Credit_Limit__c, Parent.Name, (SELECT LastName FROM Contacts) FROM Account ORDER BY SystemModstamp, Id"
)
check(everything["totalSize"] == 10_000, everything["totalSize"])
check(len({record["Id"] for record in everything["records"]}) == 10_000, "each account comes once")
limits = [record["Credit_Limit__c"] for record in everything["records"] if record["Credit_Limit__c"] is not None]
check(all(isinstance(limit, Decimal) for limit in limits), "money comes as a decimal number")
check(any(limit > 10**13 for limit in limits), "some of it is large")
check(any(record["Parent"] for record in everything["records"]), "some have a parent")
check(any(record["Contacts"] for record in everything["records"]), "some have contacts")
check(sum(1 for _ in sf.query_all_iter("SELECT Id FROM Contact")) > 10_000, "contacts come lazily")
check(sf.api_usage["api-usage"].used > 5, "usage is told with each answer")

# One record from its making to its end.
made = sf.Account.create({"Name": "Łódź \"Tools\" & O'Brien", "Credit_Limit__c": 1234.5, "Segment__c": "Enterprise"})
check(made["success"] and len(made["id"]) == 18, made)
read = sf.Account.get(made["id"])
check(read["Name"] == "Łódź \"Tools\" & O'Brien" and read["Credit_Limit__c"] == Decimal("1234.5"), read)
found = sf.query(format_soql("SELECT Id FROM Account WHERE Name = {}", read["Name"]))
check([record["Id"] for record in found["records"]] == [made["id"]], found)
check(sf.Account.update(made["id"], {"Phone": "+1 212 555 0100", "Segment__c": None}) == 204, "update")
check(sf.Account.get(made["id"])["Segment__c"] is None, "null clears")
check(sf.Account.upsert("Fairlead_Id__c/check-1", {"Name": "Upserted"}) == 201, "upsert creates")
check(sf.Account.upsert("Fairlead_Id__c/check-1", {"Name": "Upserted twice"}) == 200, "upsert updates")
check(sf.Account.get_by_custom_id("Fairlead_Id__c", "check-1")["Name"] == "Upserted twice", "read by external id")
for name in ("One", "Two"):
    sf.Account.create({"Name": name, "Tax_Number__c": "same"})
refused(SalesforceMoreThanOneRecord, lambda: sf.Account.get_by_custom_id("Tax_Number__c", "same"))
check(sf.Account.delete(made["id"]) == 204, "delete")
refused(SalesforceResourceNotFound, lambda: sf.Account.get(made["id"]))
gone = sf.query(f"SELECT IsDeleted FROM Account WHERE Id = '{made['id']}'", include_deleted=True)
check(gone["records"][0]["IsDeleted"] is True, gone)

# Feeds; their windows have whole minutes.
now = datetime.datetime.now(datetime.timezone.utc)
start, end = now - datetime.timedelta(minutes=10), now + datetime.timedelta(minutes=10)
feed = sf.Account.deleted(start, end)
check([record["id"] for record in feed["deletedRecords"]] == [made["id"]], feed)
check(len(sf.Account.updated(start, end)["ids"]) == 3, "three accounts were made and stayed")

# What the org tells about itself.
described = sf.Account.describe()
field = next(field for field in described["fields"] if field["name"] == "Fairlead_Id__c")
check(field["externalId"] and field["unique"], field)
check({"Account", "Contact"} <= {entity["name"] for entity in sf.describe()["sobjects"]}, "describe")
check(sf.limits()["DailyApiRequests"]["Max"] > 0, "limits")
check(sf.Account.metadata()["objectDescribe"]["keyPrefix"] == "001", "metadata")

# Errors, as the client understands them.
error = refused(SalesforceMalformedRequest, lambda: sf.query("SELECT Nope FROM Account"))
check(error.content[0]["errorCode"] == "INVALID_FIELD", error.content)
error = refused(SalesforceMalformedRequest, lambda: sf.Account.create({"Phone": "1"}))
check(error.content[0]["errorCode"] == "REQUIRED_FIELD_MISSING" and error.content[0]["fields"] == ["Name"], error.content)

# An ended session is renewed by a client that can, and reported by one that cannot.
borrowed = Salesforce(session_id=sf.session_id, instance_url=endpoint, version="67.0")
check(borrowed.query("SELECT Id FROM Account LIMIT 1")["totalSize"] == 1, "a borrowed session works")
requests.post(f"{endpoint}/__fairlead/expire-tokens", timeout=10).raise_for_status()
check(sf.query("SELECT Id FROM Account LIMIT 1")["totalSize"] == 1, "renewed in a query")
requests.post(f"{endpoint}/__fairlead/expire-tokens", timeout=10).raise_for_status()
refused(SalesforceExpiredSession, lambda: borrowed.query("SELECT Id FROM Account LIMIT 1"))
refused(
    SalesforceExpiredSession,
    lambda: SFType("Account", borrowed.session_id, borrowed.sf_instance, "67.0").describe(),
)

# Collections, for which the client has no words of its own but a way to call.
answer = sf.restful(
    "composite/sobjects/Account/Fairlead_Id__c",
    method="PATCH",
    data=json.dumps(
        {
            "allOrNone": False,
            "records": [
                {"attributes": {"type": "Account"}, "Fairlead_Id__c": "check-1", "Name": "Again"},
                {"attributes": {"type": "Account"}, "Fairlead_Id__c": "check-2"},
                {"attributes": {"type": "Account"}, "Fairlead_Id__c": "check-3", "Name": "New"},
            ],
        }
    ),
)
check([item["success"] for item in answer] == [True, False, True], answer)
check([item.get("created") for item in answer] == [False, None, True], answer)

print(checks)
