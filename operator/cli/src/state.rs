//! Where the state lies: a folder with a SQLite file, or a PostgreSQL database. `run`, `operator`, `state` and `dead-letters` take the same arguments.
//!
//! A database's URL carries a password, so it is never an argument that a process list shows: it comes from the environment or from a file.

use anyhow::{Context as _, bail};
use clap::Args;
use fairlead_store::Store;
use fairlead_store::postgres::PostgresStore;
use fairlead_store::sqlite::SqliteStore;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file within a state folder.
pub(crate) const FILE: &str = "fairlead.sqlite";

/// The environment variable with the URL of a database.
const URL: &str = "FAIRLEAD_DATABASE_URL";

/// The environment variable with the folder that is used when nothing else is said; the container image sets it.
const FOLDER: &str = "FAIRLEAD_STATE";

/// Where the state lies.
#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// The folder that the state lies in, in a SQLite file; made by `run` and `operator` if missing [default: FAIRLEAD_STATE, else .fairlead; of
    /// `operator`: /var/lib/fairlead].
    #[arg(long, value_name = "FOLDER", global = true)]
    state: Option<PathBuf>,
    /// A file with the URL of the PostgreSQL database that the state lies in instead, as postgres://ROLE:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full.
    /// The environment variable FAIRLEAD_DATABASE_URL may hold the URL itself.
    #[arg(long, env = "FAIRLEAD_DATABASE_URL_FILE", value_name = "FILE", global = true)]
    database_url_file: Option<PathBuf>,
}

/// Where the state lies, decided.
enum Place {
    Folder(PathBuf),
    /// The database of a URL, and what names it.
    Database(String, String),
}

/// What to look at when a database cannot be opened.
fn unopened(named_by: &str) -> String {
    format!("cannot open the store in the database that {named_by} names")
}

impl StateArgs {
    /// Opens the store, making it if need be.
    pub(crate) async fn open(self, default: &str) -> anyhow::Result<Arc<dyn Store>> {
        match self.place(std::env::var(URL).ok(), &default_folder(default))? {
            Place::Folder(folder) => open_folder(&folder),
            Place::Database(url, named_by) => {
                let store = PostgresStore::open(&url).await.with_context(|| unopened(&named_by))?;
                tracing::info!(database = store.place(), "the state lies in PostgreSQL");
                Ok(Arc::new(store))
            }
        }
    }

    /// Opens the store, which must be there.
    pub(crate) async fn open_existing(self, default: &str) -> anyhow::Result<Arc<dyn Store>> {
        match self.place(std::env::var(URL).ok(), &default_folder(default))? {
            Place::Folder(folder) => {
                anyhow::ensure!(
                    folder.join(FILE).is_file(),
                    "{} holds no state of Fairlead; name the folder that `run` or `operator` was given",
                    folder.display()
                );
                open_folder(&folder)
            }
            Place::Database(url, named_by) => Ok(Arc::new(PostgresStore::open_existing(&url).await.with_context(|| unopened(&named_by))?)),
        }
    }

    fn place(self, url: Option<String>, default: &Path) -> anyhow::Result<Place> {
        let url = url.filter(|url| !url.trim().is_empty());
        match (self.state, self.database_url_file, url) {
            (None, None, None) => Ok(Place::Folder(default.into())),
            (Some(folder), None, None) => Ok(Place::Folder(folder)),
            (None, Some(file), None) => {
                let url = std::fs::read_to_string(&file).with_context(|| format!("--database-url-file: cannot read {}", file.display()))?;
                anyhow::ensure!(!url.trim().is_empty(), "--database-url-file: {} is empty; it holds the database's URL", file.display());
                Ok(Place::Database(url, format!("--database-url-file {}", file.display())))
            }
            (None, None, Some(url)) => Ok(Place::Database(url, URL.into())),
            _ => bail!(
                "the state lies in one place: name a folder (--state), or a database by a file (--database-url-file, \
                 FAIRLEAD_DATABASE_URL_FILE), or a database by its URL ({URL}), and only one of them"
            ),
        }
    }
}

fn default_folder(default: &str) -> PathBuf {
    std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()).map_or_else(|| default.into(), PathBuf::from)
}

/// Opens the store in `folder`, making both if need be.
pub(crate) fn open_folder(folder: &Path) -> anyhow::Result<Arc<dyn Store>> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the state folder {}; choose another with --state", folder.display()))?;
    let store = SqliteStore::open(&folder.join(FILE)).with_context(|| format!("cannot open the store in {}", folder.display()))?;
    Ok(Arc::new(store))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(state: Option<&str>, file: Option<&Path>, url: Option<&str>) -> Result<String, String> {
        let args = StateArgs { state: state.map(PathBuf::from), database_url_file: file.map(Path::to_owned) };
        match args.place(url.map(str::to_owned), Path::new("here")) {
            Ok(Place::Folder(folder)) => Ok(folder.display().to_string()),
            Ok(Place::Database(url, _)) => Ok(url),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    #[test]
    fn the_state_lies_in_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let (file, empty) = (folder.path().join("url"), folder.path().join("empty"));
        std::fs::write(&file, "postgres://u:p@h/d\n").unwrap();
        std::fs::write(&empty, " \n").unwrap();
        assert_eq!(place(None, None, None), Ok("here".into()));
        assert_eq!(place(Some("there"), None, Some("")), Ok("there".into()));
        assert_eq!(place(None, Some(&file), None), Ok("postgres://u:p@h/d\n".into()));
        assert_eq!(place(None, None, Some("postgres://h/d")), Ok("postgres://h/d".into()));
        for (state, file, url) in [(Some("there"), Some(&file), None), (Some("there"), None, Some("x")), (None, Some(&file), Some("x"))] {
            let refused = place(state, file.map(PathBuf::as_path), url).unwrap_err();
            assert!(refused.contains("the state lies in one place") && !refused.contains(":p@"), "{refused}");
        }
        assert!(place(None, Some(&empty), None).unwrap_err().contains("is empty"));
        assert!(place(None, Some(Path::new("/nowhere/url")), None).unwrap_err().contains("cannot read /nowhere/url"));
    }
}
