//! Salesforce as an independent client sees it: PyPI `simple-salesforce` passes its own calls against the simulator.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;

use fairlead_simulators::{Options, Simulator, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simple_salesforce_passes_its_own_calls() {
    let simulator = Simulator::start(Options { tls: true, ..Options::new(System::Salesforce) }).await.unwrap();
    let authority = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("salesforce-{}.pem", simulator.addr().port()));
    std::fs::write(&authority, simulator.authority().unwrap()).unwrap();
    // The client always speaks TLS and takes its authority from here alone.
    let environment = vec![("REQUESTS_CA_BUNDLE", authority.clone())];
    let told = common::check("simple_salesforce_check.py", environment, &simulator).await;
    std::fs::remove_file(&authority).unwrap();
    assert_eq!(told.trim(), "41");
    simulator.stop().await;
}
