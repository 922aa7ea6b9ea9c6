"""Signs requests with oauthlib, as NetSuite's own users do, and sends them to a simulator.

Reads one line of JSON from standard input, the announcement of `fairlead simulate netsuite`; prints what went wrong and
ends with 1, or prints the number of checks and ends with 0. It is an independent judge: it shares no code with Fairlead.
"""

import json
import sys
import urllib.error
import urllib.request

from oauthlib import oauth1

announcement = json.loads(sys.stdin.readline())
endpoint = announcement["endpoint"]
keys = announcement["credentials"]


def client(**changes):
    arguments = {
        "client_key": keys["consumerKey"],
        "client_secret": keys["consumerSecret"],
        "resource_owner_key": keys["tokenId"],
        "resource_owner_secret": keys["tokenSecret"],
        "realm": keys["account"],
        "signature_method": oauth1.SIGNATURE_HMAC_SHA256,
    }
    return oauth1.Client(**{**arguments, **changes})


def send(path, signer, method="GET", body=None, headers=None, sign_body=False, replay=None):
    url = endpoint + path
    headers = dict(headers or {})
    if replay is None:
        extra = {"body": json.dumps(body), "headers": {"Content-Type": "application/json"}} if sign_body else {}
        _, signed, _ = signer.sign(url, http_method=method, **extra)
        replay = signed["Authorization"]
    headers["Authorization"] = replay
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read() or b"null"), replay
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null"), replay


def code(body):
    return body["o:errorDetails"][0]["o:errorCode"]


checks = 0


def expect(what, actual, wanted):
    global checks
    checks += 1
    if actual != wanted:
        print(f"{what}: got {actual!r}, wanted {wanted!r}")
        sys.exit(1)


LIST = "/services/rest/record/v1/customer?limit=2&offset=0"
QUERY = "/services/rest/query/v1/suiteql?limit=3&offset=0"
SELECT = {"q": "SELECT id, companyname FROM customer WHERE companyname IS NOT NULL ORDER BY id"}
TRANSIENT = {"Prefer": "transient"}

status, body, used = send(LIST, client())
expect("a signed GET", (status, body["count"]), (200, 2))
status, body, _ = send(QUERY, client(), "POST", SELECT, TRANSIENT)
expect("a signed POST", (status, body["count"], len(body["items"])), (200, 3, 3))
awkward = "/services/rest/record/v1/customer/eid:A%20b%2Fc%25?fields=companyName%2Cphone&expandSubResources=true"
status, body, _ = send(awkward, client())
expect("a signed path and query with encoded characters", (status, code(body)), (404, "NONEXISTENT_ID"))

for what, signer in {
    "SHA-1": client(signature_method=oauth1.SIGNATURE_HMAC_SHA1),
    "a wrong consumer secret": client(client_secret="x"),
    "a wrong token secret": client(resource_owner_secret="x"),
    "a wrong account": client(realm="1"),
    "a stale timestamp": client(timestamp="1700000000"),
}.items():
    status, body, _ = send(LIST, signer)
    expect(what, (status, code(body)), (401, "INVALID_LOGIN"))

status, body, _ = send(LIST, client(client_key="unknown"))
expect("an unknown consumer key", (status, code(body)), (401, "consumer_key_unknown"))
status, body, _ = send(LIST, client(), replay=used)
expect("a nonce used twice", (status, code(body)), (401, "INVALID_LOGIN"))
status, body, _ = send(QUERY, client(), "POST", SELECT, TRANSIENT, sign_body=True)
expect("a signature that covers the body", (status, code(body)), (401, "INVALID_LOGIN"))

print(checks)
