//! `fairlead dead-letters`: look at what could not be delivered, try it again, or give it up.
//!
//! Works on the state beside a running process (both may have it open): a replay is picked up by the process that runs.

use crate::state::StateArgs;
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use fairlead_engine::letters;
use fairlead_model::{Clock, FieldPath, SystemClock};
use fairlead_store::{DeadLetter, DeadLetterFilter, Store};
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
        /// Only of this Integration, as namespace/name.
        #[arg(long)]
        integration: Option<String>,
        /// Only of this participant.
        #[arg(long)]
        participant: Option<String>,
        /// Closed ones too.
        #[arg(long)]
        closed: bool,
    },
    /// Show one, with its original and payload.
    Show {
        /// Its number.
        id: i64,
    },
    /// Try some again: the source's record is read again, or the target's key put in its lane again.
    Replay {
        /// Their numbers.
        #[arg(required = true)]
        ids: Vec<i64>,
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
        /// Their numbers.
        #[arg(required = true)]
        ids: Vec<i64>,
        /// Who decides so; recorded.
        #[arg(long, env = "USER", default_value = "unknown")]
        author: String,
    },
}

impl DeadLetters {
    /// Does it.
    #[allow(clippy::print_stdout, reason = "what the command was asked to print")]
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let store = self.state.open_existing(".fairlead").await?;
        let now = SystemClock.now();
        match self.action {
            Action::List { integration, participant, closed } => {
                let filter = DeadLetterFilter { realm: integration, participant, closed, max: MAX, ..DeadLetterFilter::default() };
                let letters = store.dead_letters(&filter).await?;
                match self.output {
                    Output::Json => println!("{}", serde_json::to_string_pretty(&letters.iter().map(to_json).collect::<Vec<_>>())?),
                    Output::Table => {
                        println!(
                            "{:<6} {:<28} {:<12} {:<10} {:<22} {:<20} MESSAGE",
                            "ID", "INTEGRATION", "PARTICIPANT", "STAGE", "REASON", "EXTERNAL ID"
                        );
                        for each in &letters {
                            let letter = &each.letter;
                            println!(
                                "{:<6} {:<28} {:<12} {:<10} {:<22} {:<20} {}",
                                each.id,
                                each.realm,
                                letter.participant,
                                format!("{:?}", letter.stage),
                                letter.reason,
                                letter.external_id.as_ref().map(ToString::to_string).unwrap_or_default(),
                                letter.message
                            );
                        }
                    }
                }
            }
            Action::Show { id } => {
                let Some(letter) = letters::find(store.as_ref(), id).await? else {
                    bail!("there is no dead letter {id}; see `fairlead dead-letters list --closed`")
                };
                println!("{}", serde_json::to_string_pretty(&to_json(&letter))?);
            }
            Action::Replay { ids } => {
                for letter in open(store.as_ref(), &ids).await? {
                    letters::replay(store.as_ref(), &letter, "replay", now).await?;
                    println!("dead letter {} is tried again", letter.id);
                }
            }
            Action::Edit { id, set, author } => {
                let dead = letters::open(store.as_ref(), id).await?;
                letters::correct(store.as_ref(), &dead, assignments(&set)?, &author, now).await?;
                println!("dead letter {id} is tried again with {} corrected fields", set.len());
            }
            Action::Discard { ids, author } => {
                open(store.as_ref(), &ids).await?;
                println!("{} discarded", letters::discard(store.as_ref(), &ids, &author, now).await?);
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
        "integration": dead.realm,
        "at": dead.at.to_rfc3339(),
        "participant": letter.participant,
        "stage": letter.stage,
        "externalId": letter.external_id,
        "record": letter.record,
        "class": letter.class,
        "reason": letter.reason,
        "field": letter.field,
        "message": letter.message,
        "detail": letter.detail,
        "attempts": letter.attempts,
        "original": parse(&letter.original),
        "payload": letter.payload.as_deref().map(parse),
        "closed": dead.closed.as_ref().map(|(reason, at, author)| json!({"reason": reason, "at": at.to_rfc3339(), "author": author})),
    })
}
