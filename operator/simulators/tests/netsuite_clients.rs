//! NetSuite's signatures as an independent implementation makes them: PyPI `oauthlib` against the simulator.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use fairlead_simulators::{Options, Simulator, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_signed_by_oauthlib_are_accepted_and_wrong_ones_refused() {
    let simulator = Simulator::start(Options { records: 20, ..Options::new(System::Netsuite) }).await.unwrap();
    let line = format!("{}\n", simulator.announcement());
    let output = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(common::python())
            .arg(common::root().join("tests/clients/netsuite_tba_check.py"))
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
    assert_eq!(told.trim(), "11");
    simulator.stop().await;
}
