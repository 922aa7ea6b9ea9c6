//! Writes what is generated from the types and tables of this room into the repository: `crds/`, the chart's copy of
//! it, `docs/reasons/` and `docs/reference/`. A file there that nothing generates any more is removed. Run it after a change here:
//! `cargo run -p fairlead-api --example generate`; tests compare.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use fairlead_api::{Reason, crds_yaml, reference};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    write(&root.join("crds"), crds_yaml())?;
    write(&root.join("charts/fairlead/files/crds"), crds_yaml())?;
    let metrics = ("metrics.md".to_owned(), fairlead_model::metric::page());
    write(&root.join("docs/reference"), reference::pages().into_iter().chain([metrics]))?;
    let pages = Reason::ALL.iter().map(|reason| (format!("{reason}.md"), reason.page()));
    write(&root.join("docs/reasons"), pages.chain([("README.md".to_owned(), Reason::index())]))
}

fn write(folder: &Path, files: impl IntoIterator<Item = (String, String)>) -> io::Result<()> {
    let files: BTreeMap<String, String> = files.into_iter().collect();
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !files.contains_key(entry.file_name().to_string_lossy().as_ref()) {
            fs::remove_file(entry.path())?;
        }
    }
    files.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))
}
