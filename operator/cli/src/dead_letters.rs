//! `fairlead dead-letters`: look at what could not be delivered, try it again, or give it up.
//!
//! Works on the state beside a running process (both may have it open): a replay is picked up by the process that runs.

use crate::screen;
use crate::state::StateArgs;
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use fairlead_engine::{letters, names};
use fairlead_model::{Clock, ErrorClass, FieldPath, SystemClock, Timestamp, realm};
use fairlead_store::{DeadLetter, DeadLetterFilter, Stage, Store};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// The most letters listed at once.
const MAX: usize = 1000;

/// Look at dead letters, replay them, or give them up.
#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    #[command(flatten)]
    state: StateArgs,
    /// How they are printed.
    #[arg(short, long, default_value = "table", global = true)]
    output: Output,
    #[command(subcommand)]
    action: Action,
}

/// How letters are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Action {
    /// List them, newest first.
    List {
        #[command(flatten)]
        which: Which,
        /// Closed ones too.
        #[arg(long)]
        closed: bool,
    },
    /// Show one, with its original and payload, the letter whose correction led to it, and what was corrected of it.
    Show {
        /// Its number.
        id: i64,
    },
    /// Try some again: the source's record is read again, or the target's key put in its lane again.
    Replay {
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Correct some fields of one and try it again. The edit enters where the letter failed: the source's record before it is mapped, or the
    /// payload before it is sent.
    Edit {
        /// Its number.
        id: i64,
        /// A native field and its new value, as JSON (`Tax_Number__c="DE123"`) or else as text; may be repeated.
        #[arg(long = "set", required = true, value_name = "FIELD=VALUE")]
        set: Vec<String>,
        /// Who decides so; recorded.
        #[arg(long, env = "USER", default_value = "unknown")]
        author: String,
    },
    /// Give some up.
    Discard {
        #[command(flatten)]
        chosen: Chosen,
    },
}

/// Which letters; what is said twice must both hold.
#[derive(Debug, Clone, Default, Args)]
struct Which {
    /// Only of this Integration, as namespace/name.
    #[arg(long)]
    integration: Option<String>,
    /// Only of this participant: the one it was read from, or the target.
    #[arg(long, visible_alias = "target")]
    participant: Option<String>,
    /// Only of this stage: Inbound, Identity, Outbound or Delivery.
    #[arg(long, value_parser = word::<Stage>)]
    stage: Option<Stage>,
    /// Only of this class of errors, such as Data, NotFound or UnknownOutcome.
    #[arg(long, value_parser = word::<ErrorClass>)]
    class: Option<ErrorClass>,
    /// Only with this reason, such as ValidationFailed.
    #[arg(long)]
    reason: Option<String>,
    /// Only those that are older than this, such as 24h or 30m.
    #[arg(long, value_name = "TIME")]
    older_than: Option<fairlead_api::Duration>,
    /// Only those that hold this text in their field, message or external id.
    #[arg(long)]
    text: Option<String>,
}

/// Letters that something is to be done to.
#[derive(Debug, Args)]
struct Chosen {
    /// Their numbers.
    ids: Vec<i64>,
    #[command(flatten)]
    which: Which,
    /// All that are open: needed where neither numbers nor anything else says which.
    #[arg(long)]
    all: bool,
    /// Only tell how many there are.
    #[arg(long)]
    dry_run: bool,
    /// Who decides so; recorded.
    #[arg(long, env = "USER", default_value = "unknown")]
    author: String,
}

impl Which {
    fn filter(&self, now: Timestamp) -> DeadLetterFilter {
        let Self { integration, participant, stage, class, reason, older_than, text } = self.clone();
        let before = older_than.map(|age| now.before(age.0));
        DeadLetterFilter { realm: integration, participant, stage, class, reason, before, text, ..DeadLetterFilter::default() }
    }

    /// Sees to it that there is what it names: a name that nothing has would only find nothing.
    async fn check(&self, store: &dyn Store, now: Timestamp) -> Result<(), names::NameError> {
        names::check_letters(store, self.integration.as_deref(), self.participant.as_deref(), now).await
    }

    fn says_something(&self) -> bool {
        let Self { integration, participant, stage, class, reason, older_than, text } = self;
        let texts = [integration, participant, reason, text];
        texts.iter().any(|text| text.is_some()) || stage.is_some() || class.is_some() || older_than.is_some()
    }
}

impl Chosen {
    /// The letters, unless it is an accident: nothing says which, or two things do that do not go together.
    async fn filter(&self, store: &dyn Store, now: Timestamp) -> anyhow::Result<DeadLetterFilter> {
        self.which.check(store, now).await?;
        match (self.ids.is_empty(), self.which.says_something(), self.all) {
            (false, false, false) => Ok(DeadLetterFilter { ids: self.ids.clone(), ..DeadLetterFilter::default() }),
            (true, true, false) | (true, false, true) => Ok(self.which.filter(now)),
            (true, false, false) => {
                bail!("say which letters: by their numbers, by what they have in common (--reason, --participant, ...), or --all")
            }
            _ => bail!("say which letters in one way: by their numbers, by what they have in common, or --all"),
        }
    }
}

/// A word from a list, in small letters or not.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    let word: String = first.into_iter().chain(letters).collect();
    serde_json::from_value(Value::String(word)).map_err(|error| error.to_string())
}

impl DeadLetters {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.state.open_existing(".fairlead").await?;
        let now = SystemClock.now();
        match self.action {
            Action::List { which, closed } => {
                which.check(store.as_ref(), now).await?;
                let filter = DeadLetterFilter { closed, max: MAX, ..which.filter(now) };
                let letters = letters::list(store.as_ref(), &filter).await?;
                match self.output {
                    Output::Json => screen::print(serde_json::to_string_pretty(&letters.iter().map(to_json).collect::<Vec<_>>())?),
                    Output::Table => {
                        screen::print(format_args!(
                            "{:<6} {:<28} {:<12} {:<10} {:<22} {:<20} MESSAGE",
                            "ID", "INTEGRATION", "PARTICIPANT", "STAGE", "REASON", "EXTERNAL ID"
                        ));
                        for each in &letters {
                            let letter = &each.letter;
                            screen::print(format_args!(
                                "{:<6} {:<28} {:<12} {:<10} {:<22} {:<20} {}",
                                each.id,
                                realm::integration(&each.realm, &letter.participant),
                                realm::called(&letter.participant),
                                format!("{:?}", letter.stage),
                                letter.reason,
                                letter.external_id.as_ref().map(ToString::to_string).unwrap_or_default(),
                                letter.message
                            ));
                        }
                    }
                }
            }
            Action::Show { id } => {
                let Some(letter) = letters::find(store.as_ref(), id).await? else {
                    bail!("there is no dead letter {id}; see `fairlead dead-letters list --closed`")
                };
                let mut shown = to_json(&letter);
                if let Some(corrected) = letters::corrected(store.as_ref(), &letter).await? {
                    let changes =
                        corrected.changes.iter().map(|(field, before, after)| json!({"field": field, "from": before, "to": after}));
                    let changes: Vec<Value> = changes.collect();
                    shown["corrected"] = json!({"author": corrected.author, "at": corrected.at.to_rfc3339(), "changes": changes});
                }
                screen::print(serde_json::to_string_pretty(&shown)?);
            }
            Action::Replay { chosen } => {
                let filter = chosen.filter(store.as_ref(), now).await?;
                if chosen.dry_run {
                    screen::print(format_args!("{} would be tried again", letters::count(store.as_ref(), &filter).await?));
                } else if chosen.ids.is_empty() {
                    let bulk = letters::replay_all(store.as_ref(), &filter, &chosen.author, now).await?;
                    screen::print(format_args!(
                        "{} are tried again; {} were left, since they name no record or closed meanwhile",
                        bulk.done, bulk.left
                    ));
                } else {
                    for letter in open(store.as_ref(), &chosen.ids).await? {
                        letters::replay(store.as_ref(), &letter, &chosen.author, now).await?;
                        screen::print(format_args!("dead letter {} is tried again", letter.id));
                    }
                }
            }
            Action::Edit { id, set, author } => {
                let dead = letters::open(store.as_ref(), id).await?;
                letters::correct(store.as_ref(), &dead, assignments(&set)?, &author, now).await?;
                screen::print(format_args!("dead letter {id} is tried again with {} corrected fields", set.len()));
            }
            Action::Discard { chosen } => {
                let filter = chosen.filter(store.as_ref(), now).await?;
                if chosen.dry_run {
                    screen::print(format_args!("{} would be discarded", letters::count(store.as_ref(), &filter).await?));
                } else if chosen.ids.is_empty() {
                    screen::print(format_args!(
                        "{} discarded",
                        letters::discard_all(store.as_ref(), &filter, &chosen.author, now).await?.done
                    ));
                } else {
                    open(store.as_ref(), &chosen.ids).await?;
                    screen::print(format_args!("{} discarded", letters::discard(store.as_ref(), &chosen.ids, &chosen.author, now).await?));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The open letters with these numbers; all of them must be there.
async fn open(store: &dyn Store, ids: &[i64]) -> anyhow::Result<Vec<DeadLetter>> {
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.push(letters::open(store, *id).await?);
    }
    Ok(found)
}

/// `FIELD=VALUE` as people type them.
fn assignments(set: &[String]) -> anyhow::Result<BTreeMap<FieldPath, Value>> {
    let assignment = |each: &String| {
        let (field, text) = each.split_once('=').with_context(|| format!("{each:?} is no FIELD=VALUE"))?;
        let field: FieldPath = field.parse().with_context(|| format!("{field:?} is no field"))?;
        Ok((field, serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))))
    };
    set.iter().map(assignment).collect()
}

fn to_json(dead: &DeadLetter) -> Value {
    let letter = &dead.letter;
    let parse = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    json!({
        "id": dead.id,
        "integration": realm::integration(&dead.realm, &letter.participant),
        "at": dead.at.to_rfc3339(),
        "participant": realm::called(&letter.participant),
        "stage": letter.stage,
        "externalId": letter.external_id,
        "record": letter.record,
        "class": letter.class,
        "reason": letter.reason,
        "field": letter.field,
        "message": letter.message,
        "detail": letter.detail,
        "attempts": letter.attempts,
        "parent": letter.parent,
        "original": parse(&letter.original),
        "payload": letter.payload.as_deref().map(parse),
        "closed": dead.closed.as_ref().map(|(reason, at, author)| json!({"reason": reason, "at": at.to_rfc3339(), "author": author})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::open_folder;
    use clap::Parser;
    use fairlead_model::ExternalId;
    use fairlead_store::{Absorb, LeaseRequest, NewDeadLetter};
    use std::path::Path;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        letters: DeadLetters,
    }

    /// A folder with letters that were opened an hour, two hours, three hours ago.
    async fn folder() -> (tempfile::TempDir, std::sync::Arc<dyn Store>) {
        let folder = tempfile::tempdir().unwrap();
        let store = open_folder(folder.path()).unwrap();
        let now = SystemClock.now();
        let ttl = std::time::Duration::from_secs(1);
        let fence = store
            .lease(&LeaseRequest { keys: vec!["reader/a/b/crm".into()], holder: "t".into(), ttl, now })
            .await
            .unwrap()
            .pop()
            .flatten()
            .unwrap();
        for hours in [3_u64, 2, 1] {
            let at = now.before(std::time::Duration::from_secs(hours * 3600));
            let letter = NewDeadLetter {
                stage: Stage::Inbound,
                participant: "crm".into(),
                external_id: Some(ExternalId(format!("c{hours}"))),
                record: None,
                original: r#"{"Name": "wrong"}"#.into(),
                payload: None,
                class: ErrorClass::Data,
                reason: if hours == 2 { "MappingFailed" } else { "ValidationFailed" }.into(),
                message: "name: too long".into(),
                detail: None,
                field: Some("name".into()),
                attempts: 1,
                parent: None,
            };
            store.absorb(&Absorb { dead_letters: vec![letter], ..Absorb::empty("a/b", "crm", fence.clone(), at) }).await.unwrap();
        }
        (folder, store)
    }

    async fn run(folder: &Path, words: &str) -> anyhow::Result<ExitCode> {
        let folder = folder.display().to_string();
        let words: Vec<&str> = ["fairlead"].into_iter().chain(words.split_whitespace()).chain(["--state", &folder]).collect();
        Line::try_parse_from(words)?.letters.run().await
    }

    async fn open_ones(store: &dyn Store) -> Vec<i64> {
        store.dead_letters(&DeadLetterFilter::default()).await.unwrap().iter().map(|letter| letter.id).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn letters_are_replayed_and_discarded_by_what_they_have_in_common_and_never_by_accident() {
        let (folder, store) = folder().await;
        for (words, said) in [
            ("replay", "say which letters"),
            ("discard", "say which letters"),
            ("discard --all --reason MappingFailed", "in one way"),
            ("replay 1 --class data", "in one way"),
            ("replay --stage nowhere", "unknown variant `Nowhere`"),
            ("replay --older-than 2d", "is not a duration"),
            ("list --participant crn", "the state has no participant \"crn\"; there is crm"),
            ("list --integration a/c", "the state holds nothing of an Integration \"a/c\"; there is a/b"),
            ("replay --integration a/b --target erp", "a/b has no participant \"erp\"; there is crm"),
            ("discard --participant crn --dry-run", "the state has no participant \"crn\"; there is crm"),
            ("replay 4711", "there is no open dead letter 4711"),
        ] {
            let refused = format!("{:#}", run(folder.path(), words).await.unwrap_err());
            assert!(refused.contains(said), "{words}: {refused}");
        }
        run(folder.path(), "replay --all --dry-run").await.unwrap();
        assert_eq!(open_ones(store.as_ref()).await, [3, 2, 1]);

        run(folder.path(), "replay --older-than 90m --reason ValidationFailed --author mia").await.unwrap();
        assert_eq!(open_ones(store.as_ref()).await, [3, 2]);
        assert_eq!(store.pending_reads("a/b", "crm", 9).await.unwrap(), [ExternalId("c3".into())]);
        let closed = letters::find(store.as_ref(), 1).await.unwrap().unwrap().closed.unwrap();
        assert_eq!((closed.0, closed.2.as_str()), (fairlead_store::CloseReason::Replayed, "mia"));

        run(folder.path(), "edit 2 --set Name=right --author kim").await.unwrap();
        let letter = letters::find(store.as_ref(), 2).await.unwrap().unwrap();
        let corrected = letters::corrected(store.as_ref(), &letter).await.unwrap().unwrap();
        assert_eq!(corrected.author, "kim");
        assert_eq!(corrected.changes, [("Name".parse().unwrap(), json!("wrong"), json!("right"))]);
        run(folder.path(), "show 2").await.unwrap();

        run(folder.path(), "discard --text NAME --stage inbound --author mia").await.unwrap();
        assert!(open_ones(store.as_ref()).await.is_empty());
        // What was corrected stays told.
        assert!(letters::corrected(store.as_ref(), &letter).await.unwrap().is_some());
    }
}
