//! NetSuite's signatures as an independent implementation makes them: PyPI `oauthlib` against the simulator.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use fairlead_simulators::{Options, Simulator, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_signed_by_oauthlib_are_accepted_and_wrong_ones_refused() {
    let simulator = Simulator::start(Options { records: 20, ..Options::new(System::Netsuite) }).await.unwrap();
    let told = common::check("netsuite_tba_check.py", Vec::new(), &simulator).await;
    assert_eq!(told.trim(), "11");
    simulator.stop().await;
}
