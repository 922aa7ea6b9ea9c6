//! `fairlead state`: what the store holds, carried from one place to another; and where reading stands.

use crate::run::Output;
use crate::screen;
use crate::state::StateArgs;
use anyhow::Context as _;
use clap::{ArgGroup, Args, Subcommand};
use fairlead_engine::checkpoints::{self, Changed, Listed};
use fairlead_engine::decide::cursor::Wanted;
use fairlead_engine::names;
use fairlead_model::{Clock as _, SystemClock, Timestamp, realm};
use fairlead_store::archive::{self, Options, Summary};
use fairlead_store::{Standing, Store};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Export the state to a file and import it elsewhere (a backup, or the way from SQLite to PostgreSQL); look at checkpoints, and set them.
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
        /// Only of this Integration, as namespace/name; golden records that several of them feed, as contract:namespace/name.
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
    /// List where reading stands: per participant, entity and slice the cursor, whether the first full read is complete, how many records were read
    /// so far, and when it was committed.
    Checkpoints {
        /// Only of this Integration, as namespace/name.
        integration: Option<String>,
        /// How they are printed.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Set where reading begins next. A reader that runs takes it up by itself. Setting it back reads again and delivers nothing that did not
    /// change.
    #[command(group(ArgGroup::new("where").required(true).args(["cursor", "at", "reset"])))]
    SetCheckpoint {
        /// The Integration, as namespace/name.
        integration: String,
        /// The participant.
        #[arg(long)]
        participant: String,
        /// The slice of its stream.
        #[arg(long, default_value = "main")]
        slice: String,
        /// Begin with this place, as cursors of this participant spell it, or with a whole cursor as `checkpoints -o json` prints it.
        #[arg(long, value_name = "TEXT")]
        cursor: Option<String>,
        /// Begin with what changed since this moment, as 2026-01-31T10:00:00Z.
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// Begin with everything.
        #[arg(long)]
        reset: bool,
        /// Set it although something would never be read.
        #[arg(long)]
        skip: bool,
        /// Who decides so; noted.
        #[arg(long, env = "USER", default_value = "unknown")]
        author: String,
    },
}

impl Stored {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Export { integration, file } => export(self.state, integration.as_deref(), &file).await?,
            Action::Import { replace, file } => import(self.state, replace, &file).await?,
            Action::Checkpoints { integration, output } => list(self.state, integration, output).await?,
            Action::SetCheckpoint { integration, participant, slice, cursor, at, reset: _, skip, author } => {
                let wanted = wanted(cursor, at)?;
                let store = self.state.open_existing(".fairlead").await?;
                let (integration, now) = (integration.as_str(), SystemClock.now());
                let set =
                    checkpoints::Set { integration, participant: &participant, slice: &slice, wanted: &wanted, skip, author: &author, now };
                tell_set(&set, &checkpoints::set(store.as_ref(), &set).await?);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

async fn export(state: StateArgs, only: Option<&str>, file: &Path) -> anyhow::Result<()> {
    let store = state.open_existing(".fairlead").await?;
    let now = SystemClock.now();
    if let Some(only) = only {
        whole(store.as_ref(), only).await?;
    }
    if is_standard(file) {
        let summary = archive::export(store.as_ref(), only, now, BufWriter::new(io::stdout())).await?;
        tracing::info!(rows = %told(&summary), "exported");
        return Ok(());
    }
    // Under another name until it is whole, so that nobody takes a part for a backup.
    let partial = partial(file, std::process::id(), now);
    let written = async {
        let out = private(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
        let synced = out.try_clone().with_context(|| format!("cannot write {}", partial.display()))?;
        let summary = archive::export(store.as_ref(), only, now, BufWriter::new(out)).await?;
        synced.sync_all().and_then(|()| std::fs::rename(&partial, file)).with_context(|| format!("cannot write {}", file.display()))?;
        anyhow::Ok(summary)
    };
    match written.await {
        Ok(summary) => {
            screen::print(format_args!("exported {}", told(&summary)));
            Ok(())
        }
        Err(error) => {
            let _ = std::fs::remove_file(&partial);
            Err(error)
        }
    }
}

/// The name of a file until it is whole: no two exports share one, also where they began in two pods.
fn partial(file: &Path, process: u32, now: Timestamp) -> PathBuf {
    file.with_file_name(format!("{}.{process}-{}.partial", file.file_name().unwrap_or_default().display(), now.0))
}

/// Sees to it that what is to be exported can be told alone.
async fn whole(store: &dyn Store, only: &str) -> anyhow::Result<()> {
    if store.realms().await?.iter().any(|realm| realm == only) {
        return Ok(());
    }
    let shared = names::integration(store, only).await.ok().filter(names::Place::is_shared);
    match shared {
        Some(place) => anyhow::bail!(
            "{only} feeds golden records together with others, and they are exported as a whole: say --integration {}",
            place.realm
        ),
        None => Ok(()),
    }
}

async fn import(state: StateArgs, replace: bool, file: &Path) -> anyhow::Result<()> {
    let input: Box<dyn BufRead + Send> = if is_standard(file) {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::with_capacity(1 << 16, File::open(file).with_context(|| format!("cannot read {}", file.display()))?))
    };
    let store = state.open(".fairlead").await?;
    let read = archive::import(store.as_ref(), input, Options { replace, behind: true, now: SystemClock.now() }).await;
    let (head, summary) = read.with_context(|| format!("nothing was imported from {}", file.display()))?;
    let realms: Vec<&str> = head.realms.iter().map(String::as_str).filter(|realm| !realm::is_connector(realm)).collect();
    screen::print(format_args!("imported {} of {}, as of {}", told(&summary), realms.join(", "), head.at));
    Ok(())
}

fn wanted(cursor: Option<String>, at: Option<String>) -> anyhow::Result<Wanted> {
    match (cursor, at) {
        (Some(text), _) => Ok(Wanted::Text(text)),
        (None, Some(at)) => {
            let moment = Timestamp::parse(&at).with_context(|| format!("--at: {at:?} is no moment; write it as 2026-01-31T10:00:00Z"))?;
            Ok(Wanted::At(moment))
        }
        (None, None) => Ok(Wanted::Beginning),
    }
}

async fn list(state: StateArgs, integration: Option<String>, output: Output) -> anyhow::Result<()> {
    let store = state.open_existing(".fairlead").await?;
    let found = checkpoints::list(store.as_ref(), integration.as_deref(), SystemClock.now()).await?;
    match output {
        Output::Json => {
            let items: Vec<Value> = found
                .iter()
                .map(|Listed { realm, standing: Standing { participant, checkpoint, at }, entity, read }| {
                    json!({
                        "integration": realm::integration(realm, participant),
                        "participant": realm::called(participant),
                        "entity": entity,
                        "slice": checkpoint.slice,
                        "cursor": checkpoint.cursor,
                        "complete": checkpoint.complete,
                        "read": read,
                        "at": at.map(Timestamp::to_rfc3339),
                    })
                })
                .collect();
            screen::print(serde_json::to_string_pretty(&items)?);
        }
        Output::Table => {
            let head =
                ["INTEGRATION", "PARTICIPANT", "ENTITY", "SLICE", "BACKFILL", "READ", "COMMITTED", "CURSOR"].map(str::to_owned).to_vec();
            let rows = found.into_iter().map(|Listed { realm, standing: Standing { participant, checkpoint, at }, entity, read }| {
                let backfill = if checkpoint.complete { "complete" } else { "under way" };
                let at = at.map_or_else(|| "-".to_owned(), Timestamp::to_rfc3339);
                let entity = entity.unwrap_or_else(|| "-".to_owned());
                let (integration, participant) = (realm::integration(&realm, &participant).0, realm::called(&participant).to_owned());
                vec![
                    integration,
                    participant,
                    entity,
                    checkpoint.slice,
                    backfill.to_owned(),
                    read.to_string(),
                    at,
                    checkpoint.cursor.to_string(),
                ]
            });
            let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
            screen::columns(&rows, &[5]).iter().for_each(|line| screen::print(screen::cut(line, usize::MAX)));
        }
    }
    Ok(())
}

fn tell_set(set: &checkpoints::Set<'_>, changed: &Changed) {
    let checkpoints::Set { integration, participant, slice, author, .. } = set;
    screen::print(format_args!(
        "{participant} of {integration} is read from {} on; before, {slice} stood at {}",
        changed.after, changed.before
    ));
    if let Some(skips) = &changed.skips {
        screen::print(format_args!("this skips {skips}"));
    }
    tracing::info!(integration, participant, slice, author, before = %changed.before, after = %changed.after, "checkpoint was set");
}

/// A new file that only its owner may read.
fn private(path: &Path) -> io::Result<File> {
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
        // Another export to the same file is no part of this one, whoever ends first.
        let theirs = partial(Path::new(&file), 1, Timestamp(5));
        std::fs::write(&theirs, "half of theirs").unwrap();
        run(&["export", "--state", &to, &file]).await.unwrap();
        assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "half of theirs");
        let names = [(1, 5), (2, 5), (1, 6)].map(|(process, at)| partial(Path::new("/d/f"), process, Timestamp(at)));
        assert!(names[0] == Path::new("/d/f.1-5.partial") && names[0] != names[1] && names[0] != names[2], "{names:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_checkpoint_is_listed_and_set_in_one_way() {
        let folder = tempfile::tempdir().unwrap();
        let store = open_folder(folder.path()).unwrap();
        let now = SystemClock.now();
        let ttl = std::time::Duration::from_secs(60);
        let request = fairlead_store::LeaseRequest { keys: vec!["reader/sales/customers/crm".into()], holder: "t".into(), ttl, now };
        let fence = store.lease(&request).await.unwrap().pop().flatten().unwrap();
        let checkpoint = fairlead_store::Checkpoint { slice: "main".into(), cursor: json!({"from": "41"}), complete: true };
        let batch = fairlead_store::Absorb::empty("sales/customers", "crm", fence, now);
        store.absorb(&fairlead_store::Absorb { checkpoint: Some(checkpoint), ..batch }).await.unwrap();
        let place = folder.path().display().to_string();
        let run = async |words: &str| {
            let words: Vec<&str> = words.split_whitespace().chain(["--state", &place]).collect();
            run(&words).await.map(|_| ()).map_err(|error| format!("{error:#}"))
        };
        run("checkpoints").await.unwrap();
        run("checkpoints sales/customers -o json").await.unwrap();
        for (words, said) in [
            ("set-checkpoint sales/customers --participant crm", "required"),
            ("set-checkpoint sales/customers --participant crm --reset --cursor 40", "cannot be used with"),
            ("set-checkpoint sales/customers --participant crm --at yesterday", "--at: \"yesterday\" is no moment"),
            ("set-checkpoint sales/customers --participant crm --at 2026-01-31T10:00:00Z", "its cursors are no moments"),
            ("set-checkpoint sales/customers --participant crm --cursor 42", "say --skip"),
            (
                "set-checkpoint sales/customers --participant crm --slice deletes --reset",
                "crm has no checkpoint \"deletes\"; there is main",
            ),
            ("checkpoints sales/orders", "there is sales/customers"),
        ] {
            let refused = run(words).await.unwrap_err();
            assert!(refused.contains(said), "{words}: {refused}");
        }
        run("set-checkpoint sales/customers --participant crm --cursor 40 --author mia").await.unwrap();
        let set = store.checkpoint("sales/customers", "crm", "main").await.unwrap().unwrap();
        assert_eq!(set.cursor, json!({"from": "40"}));
    }
}
