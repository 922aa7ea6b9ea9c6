//! What a consumer of the served contract sees: a customer with a good token, and nothing without.

use anyhow::Context as _;
use fairlead_gateway::issuer::{DevelopmentIssuer, Grant, LIFETIME};
use serde_json::Value;

/// Whom the demo's tokens are for.
pub(super) const AUDIENCE: &str = "fairlead";

/// What the gateway answered.
pub(super) struct Shown {
    /// What was asked, and the status.
    pub(super) answers: Vec<(String, u16)>,
    /// How many answers were other than they should be.
    pub(super) wrong: u64,
}

/// Asks for a customer with and without a token that is good for it.
pub(super) async fn show(listing: &Value, issuer: &DevelopmentIssuer) -> anyhow::Result<Shown> {
    let items = listing["items"].as_array().context("the listing holds no resources")?;
    let contract = items.iter().find(|item| item["kind"] == "ApiContract").context("there is no contract")?;
    let url = contract["status"]["url"].as_str().context("the contract is not served")?;
    let token = |scopes: &[&str]| {
        let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        issuer.token(&Grant { client_id: "web-shop".to_owned(), scopes, audience: AUDIENCE.to_owned(), lifetime: LIFETIME })
    };
    let http = reqwest::Client::builder().no_proxy().timeout(std::time::Duration::from_secs(10)).build()?;
    let page = http.get(format!("{url}?limit=1")).bearer_auth(token(&["customers.read"])).send().await?.error_for_status()?;
    let page: Value = body(page).await?;
    let id = page["items"][0]["id"].as_str().context("the list is empty")?;
    let mut shown = Shown { answers: Vec::new(), wrong: 0 };
    for (with, token, wanted) in [
        ("with a token", Some(token(&["customers.read"])), 200),
        ("without a token", None, 401),
        ("with a token for something else", Some(token(&["orders.read"])), 403),
    ] {
        let request = http.get(format!("{url}/{id}"));
        let request = token.iter().fold(request, |request, token| request.bearer_auth(token));
        let status = request.send().await?.status().as_u16();
        shown.wrong += u64::from(status != wanted);
        shown.answers.push((format!("GET {url}/{id} {with}"), status));
    }
    Ok(shown)
}

#[allow(clippy::disallowed_methods, reason = "the demo's own gateway, which bounds its answers")]
async fn body(answer: reqwest::Response) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&answer.bytes().await?)?)
}
