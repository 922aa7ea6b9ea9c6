//! What the tests of simulators share: bodies read in full, and the Python that holds the vendors' own clients.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fairlead_simulators::Simulator;
use fairlead_simulators::core::value::Value;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The interpreter of an environment that holds the clients of `tests/python/requirements.txt`; made if there is none.
pub(crate) fn python() -> PathBuf {
    let made = Command::new(root().join("tools/python")).output().expect("tools/python runs");
    assert!(made.status.success(), "tools/python: {}", String::from_utf8_lossy(&made.stderr));
    PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
}

/// Runs a check of `tests/clients` against a simulator, which it is told of in a line on its standard input; what it says on both outputs.
/// Fails with that if the check does.
pub(crate) async fn check(script: &'static str, environment: Vec<(&'static str, PathBuf)>, simulator: &Simulator) -> String {
    let line = format!("{}\n", simulator.announcement());
    let output = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(python())
            .arg(root().join("tests/clients").join(script))
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the interpreter runs");
        child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    told
}

/// The whole body of an answer.
pub(crate) async fn body(mut response: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.expect("the body comes whole") {
        body.extend_from_slice(&chunk);
    }
    body
}

/// The body as JSON with exact numbers; null where there is none.
pub(crate) async fn json(response: reqwest::Response) -> Value {
    let body = body(response).await;
    if body.is_empty() { Value::Null } else { Value::parse(&body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&body))) }
}
