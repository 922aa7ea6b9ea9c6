//! `fairlead state`: what the store holds, carried from one place to another.

use crate::state::StateArgs;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use fairlead_model::{Clock as _, SystemClock};
use fairlead_store::archive::{self, Options, Summary};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Export the state to a file and import it elsewhere: a backup, or the way from SQLite to PostgreSQL.
#[derive(Debug, Args)]
pub(crate) struct Stored {
    #[command(flatten)]
    state: StateArgs,
    #[command(subcommand)]
    action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Action {
    /// Write everything that is known to a file, as of one moment; the process that works on the state may go on. The file holds personal data.
    Export {
        /// Only of this Integration, as namespace/name.
        #[arg(long)]
        integration: Option<String>,
        /// The file; made readable for its owner alone, and complete or not there. `-` is standard output.
        file: PathBuf,
    },
    /// Read a file that `export` wrote into this state: all of it or nothing. What works on these Integrations must be stopped first.
    Import {
        /// It takes the place of what the state holds of these Integrations; without it that must be nothing.
        #[arg(long)]
        replace: bool,
        /// The file. `-` is standard input.
        file: PathBuf,
    },
}

impl Stored {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Export { integration, file } => export(self.state, integration.as_deref(), &file).await?,
            Action::Import { replace, file } => import(self.state, replace, &file).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

#[allow(clippy::print_stdout, reason = "what the command was asked to print")]
async fn export(state: StateArgs, only: Option<&str>, file: &Path) -> anyhow::Result<()> {
    let store = state.open_existing(".fairlead").await?;
    let now = SystemClock.now();
    if is_standard(file) {
        let summary = archive::export(store.as_ref(), only, now, BufWriter::new(io::stdout())).await?;
        tracing::info!(rows = %told(&summary), "exported");
        return Ok(());
    }
    // Under another name until it is whole, so that nobody takes a part for a backup.
    let partial = file.with_file_name(format!("{}.partial", file.file_name().unwrap_or_default().display()));
    let written = async {
        let out = private(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
        let synced = out.try_clone().with_context(|| format!("cannot write {}", partial.display()))?;
        let summary = archive::export(store.as_ref(), only, now, BufWriter::new(out)).await?;
        synced.sync_all().and_then(|()| std::fs::rename(&partial, file)).with_context(|| format!("cannot write {}", file.display()))?;
        anyhow::Ok(summary)
    };
    match written.await {
        Ok(summary) => {
            println!("exported {}", told(&summary));
            Ok(())
        }
        Err(error) => {
            let _ = std::fs::remove_file(&partial);
            Err(error)
        }
    }
}

#[allow(clippy::print_stdout, reason = "what the command was asked to print")]
async fn import(state: StateArgs, replace: bool, file: &Path) -> anyhow::Result<()> {
    let input: Box<dyn BufRead + Send> = if is_standard(file) {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::with_capacity(1 << 16, File::open(file).with_context(|| format!("cannot read {}", file.display()))?))
    };
    let store = state.open(".fairlead").await?;
    let read = archive::import(store.as_ref(), input, Options { replace, behind: true, now: SystemClock.now() }).await;
    let (head, summary) = read.with_context(|| format!("nothing was imported from {}", file.display()))?;
    println!("imported {} of {}, as of {}", told(&summary), head.realms.join(", "), head.at);
    Ok(())
}

/// A file that only its owner may read, whoever made it before.
fn private(path: &Path) -> io::Result<File> {
    let _ = std::fs::remove_file(path);
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// What there was of what people know by name.
fn told(summary: &Summary) -> String {
    let count = |word: &str| summary.rows.get(word).copied().unwrap_or_default();
    format!(
        "{} records, {} external ids, {} lane entries, {} dead letters ({})",
        count("record"),
        count("identity"),
        count("lane"),
        count("letter"),
        summary.digest
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::open_folder;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        stored: Stored,
    }

    async fn run(words: &[&str]) -> anyhow::Result<ExitCode> {
        Line::try_parse_from([&["fairlead"], words].concat())?.stored.run().await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_state_is_carried_from_one_folder_to_another_in_a_file_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name).display().to_string();
        let (from, to, file) = (place("from"), place("to"), place("state.jsonl"));
        let store = open_folder(Path::new(&from)).unwrap();
        store.put_note("sales/customers", "resync", &serde_json::json!("now")).await.unwrap();
        std::fs::write(&file, "an older one, readable for all").unwrap();
        run(&["export", "--state", &from, &file]).await.unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        run(&["import", "--state", &to, &file]).await.unwrap();
        let there = open_folder(Path::new(&to)).unwrap();
        assert_eq!(there.note("sales/customers", "resync").await.unwrap(), Some(serde_json::json!("now")));
        let refused = format!("{:#}", run(&["import", "--state", &to, &file]).await.unwrap_err());
        assert!(refused.contains("nothing was imported") && refused.contains("--replace"), "{refused}");
        run(&["import", "--state", &to, "--replace", &file]).await.unwrap();
        let refused = format!("{:#}", run(&["export", "--state", &to, "--integration", "no/where", &file]).await.unwrap_err());
        assert!(refused.contains("the store holds nothing of no/where; it holds sales/customers"), "{refused}");
        // A failure leaves the earlier file, and no part of a new one.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
