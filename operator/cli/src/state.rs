//! The state folder: where the SQLite file of `run`, `operator` and `dead-letters` lies.

use anyhow::Context as _;
use fairlead_store::Store;
use fairlead_store::sqlite::SqliteStore;
use std::path::Path;
use std::sync::Arc;

/// The file within a state folder.
pub(crate) const FILE: &str = "fairlead.sqlite";

/// Opens the store in `folder`, making both if need be.
pub(crate) fn open(folder: &Path) -> anyhow::Result<Arc<dyn Store>> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the state folder {}; choose another with --state", folder.display()))?;
    let store = SqliteStore::open(&folder.join(FILE)).with_context(|| format!("cannot open the store in {}", folder.display()))?;
    Ok(Arc::new(store))
}

/// Opens the store in `folder`, which must hold one.
pub(crate) fn open_existing(folder: &Path) -> anyhow::Result<Arc<dyn Store>> {
    anyhow::ensure!(
        folder.join(FILE).is_file(),
        "{} holds no state of Fairlead; name the folder that `run` or `operator` was given",
        folder.display()
    );
    open(folder)
}
