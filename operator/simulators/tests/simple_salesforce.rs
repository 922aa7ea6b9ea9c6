//! Salesforce as an independent client sees it: PyPI `simple-salesforce` passes its own calls against the simulator.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use fairlead_simulators::{Options, Simulator, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simple_salesforce_passes_its_own_calls() {
    let simulator = Simulator::start(Options { tls: true, ..Options::new(System::Salesforce) }).await.unwrap();
    let authority = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("salesforce-{}.pem", simulator.addr().port()));
    std::fs::write(&authority, simulator.authority().unwrap()).unwrap();
    let line = format!("{}\n", simulator.announcement());
    let bundle = authority.clone();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(common::python())
            .arg(common::root().join("tests/clients/simple_salesforce_check.py"))
            // The client always speaks TLS and takes its authority from here alone.
            .env("REQUESTS_CA_BUNDLE", bundle)
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
    std::fs::remove_file(&authority).unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    assert_eq!(told.trim(), "41");
    simulator.stop().await;
}
