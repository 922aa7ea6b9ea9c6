//! A real Chromium, driven through chromedriver by the W3C WebDriver protocol.
//!
//! The few calls that are needed go out as plain HTTP: the client crates bring segmenters' data and a second generation of `http` with them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::process::{Process, free_port};
use crate::wait::{Seen, wait_until};

/// The tabulator key.
pub const TAB: &str = "\u{e004}";
/// The enter key.
pub const ENTER: &str = "\u{e007}";

/// How an element is named in answers (W3C WebDriver, section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Longer than a browser takes to start on a busy machine.
const START: Duration = Duration::from_secs(90);
/// An element that a page will have is looked for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with an empty profile.
#[derive(Debug)]
pub struct Browser {
    session: String,
    http: reqwest::Client,
    _driver: Process,
}

impl Browser {
    /// Starts chromedriver and a browser whose profile lies in `folder`.
    ///
    /// # Errors
    /// When they are not installed, or do not start.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}"));
        let driver = Process::start("chromedriver", command, folder).context("tools/setup test installs chromium and chromedriver")?;
        let profile = folder.join("profile");
        fs::create_dir_all(&profile).context("make a profile")?;
        let fixed = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
                     --disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1280,1000";
        let mut arguments: Vec<String> = fixed.split_whitespace().map(str::to_owned).collect();
        arguments.push(format!("--user-data-dir={}", profile.display()));
        let wanted = json!({"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}});
        let http = reqwest::Client::builder().no_proxy().timeout(START).build()?;
        let base = format!("http://127.0.0.1:{port}");
        wait_until("chromedriver", START, async || {
            let ready = call(http.get(format!("{base}/status"))).await;
            Ok(Seen::when(ready.as_ref().is_ok_and(|status| status["ready"] == true), format_args!("{ready:?}")))
        })
        .await
        .with_context(|| driver.tail())?;
        let asked = json!({"capabilities": {"alwaysMatch": wanted}});
        let session = call(http.post(format!("{base}/session")).body(asked.to_string())).await.with_context(|| driver.tail())?;
        let id = session["sessionId"].as_str().ok_or_else(|| anyhow!("no session in {session}"))?;
        Ok(Self { session: format!("{base}/session/{id}"), http, _driver: driver })
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        call(self.http.get(format!("{}/{path}", self.session))).await
    }

    async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        call(self.http.post(format!("{}/{path}", self.session)).body(body.to_string())).await.with_context(|| format!("{path} {body}"))
    }

    async fn elements(&self, using: &str, value: &str) -> anyhow::Result<Vec<String>> {
        let found = self.post("elements", json!({"using": using, "value": value})).await?;
        Ok(found.as_array().into_iter().flatten().filter_map(|each| each[ELEMENT].as_str().map(str::to_owned)).collect())
    }

    /// The first such element, once there is one.
    async fn element(&self, using: &str, value: &str) -> anyhow::Result<String> {
        wait_until(&format!("an element {value}"), PATIENCE, async || {
            Ok(match self.elements(using, value).await?.into_iter().next() {
                Some(element) => Seen::Yes(element),
                None => Seen::NotYet(self.text().await?),
            })
        })
        .await
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// When the browser cannot.
    pub async fn go(&self, url: &str) -> anyhow::Result<()> {
        self.post("url", json!({"url": url})).await.map(drop)
    }

    /// The page's title.
    ///
    /// # Errors
    /// When the browser does not tell.
    pub async fn title(&self) -> anyhow::Result<String> {
        Ok(self.get("title").await?.as_str().unwrap_or_default().to_owned())
    }

    /// The page's text, as a reader sees it.
    ///
    /// # Errors
    /// When there is no page.
    pub async fn text(&self) -> anyhow::Result<String> {
        let body = self.elements("css selector", "body").await?.into_iter().next().context("a page")?;
        Ok(self.get(&format!("element/{body}/text")).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the page's text holds all of these.
    ///
    /// # Errors
    /// When it does not by the deadline; the message is the page's text.
    pub async fn shows(&self, deadline: Duration, wanted: &[&str]) -> anyhow::Result<String> {
        wait_until(&format!("{wanted:?} on the page"), deadline, async || {
            let page = self.text().await?;
            Ok(if wanted.iter().all(|text| page.contains(text)) { Seen::Yes(page) } else { Seen::NotYet(page) })
        })
        .await
    }

    /// How many elements a selector finds.
    ///
    /// # Errors
    /// When the browser does not tell.
    pub async fn count(&self, css: &str) -> anyhow::Result<usize> {
        Ok(self.elements("css selector", css).await?.len())
    }

    /// What a field holds.
    ///
    /// # Errors
    /// When there is none.
    pub async fn value(&self, css: &str) -> anyhow::Result<String> {
        let field = self.element("css selector", css).await?;
        Ok(self.get(&format!("element/{field}/property/value")).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Clicks on the element that a selector finds.
    ///
    /// # Errors
    /// When there is none, or it cannot be clicked.
    pub async fn click(&self, css: &str) -> anyhow::Result<()> {
        let element = self.element("css selector", css).await?;
        self.post(&format!("element/{element}/click"), json!({})).await.map(drop)
    }

    /// Clicks on the button with this text.
    ///
    /// # Errors
    /// When there is none, or it cannot be clicked.
    pub async fn click_button(&self, text: &str) -> anyhow::Result<()> {
        let element = self.element("xpath", &format!("//button[text()='{text}']")).await?;
        self.post(&format!("element/{element}/click"), json!({})).await.map(drop)
    }

    /// Types into a field in place of what it holds.
    ///
    /// # Errors
    /// When there is none.
    pub async fn fill(&self, css: &str, text: &str) -> anyhow::Result<()> {
        let field = self.element("css selector", css).await?;
        self.post(&format!("element/{field}/clear"), json!({})).await?;
        self.post(&format!("element/{field}/value"), json!({"text": text})).await.map(drop)
    }

    /// Presses a key wherever the focus is.
    ///
    /// # Errors
    /// When the browser cannot.
    pub async fn press(&self, key: &str) -> anyhow::Result<()> {
        let strokes = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        self.post("actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})).await.map(drop)
    }

    /// What the browser's own log holds against the page: refusals by its policy, scripts that failed.
    ///
    /// # Errors
    /// When the browser does not tell.
    pub async fn complaints(&self) -> anyhow::Result<Vec<String>> {
        let log = self.post("se/log", json!({"type": "browser"})).await?;
        let severe = log.as_array().into_iter().flatten().filter(|entry| entry["level"] == "SEVERE");
        Ok(severe.filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect())
    }

    /// Keeps a picture of the page in the folder that FAIRLEAD_SCREENSHOTS names, for a person's eyes.
    ///
    /// # Errors
    /// When it cannot be taken or kept.
    pub async fn picture(&self, name: &str) -> anyhow::Result<()> {
        let Some(folder) = std::env::var_os("FAIRLEAD_SCREENSHOTS") else { return Ok(()) };
        let picture = self.get("screenshot").await?;
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, picture.as_str().unwrap_or_default())?;
        fs::create_dir_all(&folder)?;
        fs::write(Path::new(&folder).join(format!("{name}.png")), bytes).context("keep the picture")
    }

    /// Ends the browser.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn close(self) -> anyhow::Result<()> {
        call(self.http.delete(&self.session)).await.map(drop)
    }
}

#[allow(clippy::disallowed_methods, reason = "our own browser's answers")]
async fn call(request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
    let answer = request.send().await?;
    let status = answer.status();
    let body: Value = serde_json::from_slice(&answer.bytes().await?).context("an answer of chromedriver")?;
    ensure!(status.is_success(), "chromedriver answers {status}: {}", body["value"]["message"]);
    Ok(body["value"].clone())
}
