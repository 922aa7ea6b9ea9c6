//! The SQLite store keeps the contract in each of its three ways to run, and its books hold under random commands.

use fairlead_store::contract_tests::{all, books, run_all};
use fairlead_store::{SqliteStore, Store};
use proptest::prelude::*;
use std::sync::Arc;

#[tokio::test]
async fn in_memory() {
    run_all(async || Arc::new(SqliteStore::open_in_memory().unwrap()) as Arc<dyn Store>).await;
}

#[tokio::test]
async fn in_a_file_with_a_writer_and_readers() {
    let folder = tempfile::tempdir().unwrap();
    for (place, case) in all().into_iter().enumerate() {
        println!("contract: {}", case.name);
        case.run(Arc::new(SqliteStore::open(&folder.path().join(format!("{place}.db"))).unwrap())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_file_inline_under_paused_time() {
    let folder = tempfile::tempdir().unwrap();
    for (place, case) in all().into_iter().enumerate() {
        println!("contract: {}", case.name);
        case.run(Arc::new(SqliteStore::open_inline(&folder.path().join(format!("{place}.db"))).unwrap())).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Proptest prints the steps of the shortest failing walk.
    #[test]
    fn the_books_balance_after_every_command(steps in proptest::collection::vec(any::<u64>().prop_map(books::step_from), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { books::walk(Arc::new(SqliteStore::open_in_memory().unwrap()), &steps).await });
    }
}
