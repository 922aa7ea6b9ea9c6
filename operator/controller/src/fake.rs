//! An API server of a few lines for unit tests: requests are recorded, a closure answers. The real one judges in `tests/`.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::Response;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// What a client asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

/// The recorded requests.
#[derive(Clone, Default)]
pub(crate) struct FakeApi {
    requests: Arc<Mutex<Vec<Request>>>,
}

impl FakeApi {
    /// A client whose requests `handle` answers.
    pub(crate) fn new(handle: impl Fn(&Request) -> Response<Body> + Send + Sync + 'static) -> (Self, Client) {
        let api = Self::default();
        let requests = Arc::clone(&api.requests);
        let handle = Arc::new(handle);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (requests, handle) = (Arc::clone(&requests), Arc::clone(&handle));
            async move {
                let (parts, body) = request.into_parts();
                let bytes = body.collect_bytes().await.unwrap_or_default();
                let request = Request {
                    method: parts.method.to_string(),
                    path: parts.uri.path().to_owned(),
                    query: parts.uri.query().unwrap_or_default().to_owned(),
                    body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
                };
                requests.lock().unwrap().push(request.clone());
                let answer = handle(&request);
                if answer.extensions().get::<Silence>().is_some() {
                    return std::future::pending().await;
                }
                Ok::<_, Infallible>(answer)
            }
        });
        (api, Client::new(service, "default"))
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// Marks an answer that never comes.
#[derive(Clone)]
struct Silence;

/// No answer, ever.
pub(crate) fn silence() -> Response<Body> {
    Response::builder().extension(Silence).body(Body::empty()).unwrap()
}

/// An answer with this code and body.
pub(crate) fn answer(code: u16, body: &Value) -> Response<Body> {
    Response::builder().status(code).header("content-type", "application/json").body(Body::from(body.to_string().into_bytes())).unwrap()
}

/// The answer of an API server that refuses, in its words.
pub(crate) fn failure(code: u16) -> Response<Body> {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let details = json!({"retryAfterSeconds": 20});
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no", "reason": reason, "details": details});
    answer(code, &status)
}
