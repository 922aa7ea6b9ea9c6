//! `fairlead backfill`: records are read again by key, or compared again with a target, without touching a manifest.

use crate::screen;
use crate::state::StateArgs;
use clap::{ArgGroup, Args};
use fairlead_engine::backfill::{self, Asked, Which};
use fairlead_model::{Clock as _, ExternalId, SystemClock};
use std::process::ExitCode;

/// Read records again by key, or compare them again with a target. What runs takes it up by itself, behind what it has to do; to read everything
/// again from the beginning, set spec.sync.resync.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["ids", "from", "all"])))]
pub(crate) struct Backfill {
    #[command(flatten)]
    state: StateArgs,
    /// The Integration, as namespace/name.
    integration: String,
    /// Read records of this participant again [default: of each that is read; needed with --id and --from].
    #[arg(long, conflicts_with = "target")]
    participant: Option<String>,
    /// Compare records again with what this target is known to hold, and write where they differ.
    #[arg(long)]
    target: Option<String>,
    /// The record with this id in that participant or target; may be repeated.
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// Records from this id on. Where both ends are digits alone, ids are compared as numbers, and others are left out; else as text.
    #[arg(long, value_name = "ID", requires = "to")]
    from: Option<String>,
    /// Up to and with this id.
    #[arg(long, value_name = "ID", requires = "from")]
    to: Option<String>,
    /// All records; with --target also those that it does not hold.
    #[arg(long)]
    all: bool,
    /// Only tell how many there are.
    #[arg(long)]
    dry_run: bool,
}

impl Backfill {
    /// Asks for it.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let which = match (self.from, self.to) {
            (Some(from), Some(to)) => Which::Range(ExternalId(from), ExternalId(to)),
            _ if self.all => Which::All,
            _ => Which::Ids(self.ids.into_iter().map(ExternalId).collect()),
        };
        let one = self.participant.is_some() || self.target.is_some();
        anyhow::ensure!(one || which == Which::All, "say whose ids these are, with --participant or --target");
        let store = self.state.open_existing(".fairlead").await?;
        let (integration, now) = (self.integration.as_str(), SystemClock.now());
        if let Some(target) = self.target {
            let asked = backfill::compare_again(store.as_ref(), integration, &target, &which, self.dry_run, now).await?;
            screen::print(told(asked, self.dry_run, &format!("compared with {target} again")));
            return Ok(ExitCode::SUCCESS);
        }
        let participants = match self.participant {
            Some(participant) => vec![participant],
            None => backfill::readers(store.as_ref(), integration).await?,
        };
        for participant in participants {
            let asked = backfill::read_again(store.as_ref(), integration, &participant, &which, self.dry_run, now).await?;
            screen::print(told(asked, self.dry_run, &format!("read again from {participant}")));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn told(Asked { records, unknown }: Asked, dry: bool, what: &str) -> String {
    let records = if dry { format!("{records} records would be {what}") } else { format!("{records} records are {what}") };
    if unknown == 0 { records } else { format!("{records}; {unknown} ids stand for no record yet") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::open_folder;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        backfill: Backfill,
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_not_there_is_named_with_what_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = open_folder(folder.path()).unwrap();
        store.put_note("sales/customers", "participants", &json!(["crm", "erp"])).await.unwrap();
        let folder = folder.path().display().to_string();
        let refusal = async |words: &str| {
            let words: Vec<&str> = ["fairlead"].into_iter().chain(words.split_whitespace()).chain(["--state", &folder]).collect();
            match Line::try_parse_from(words) {
                Ok(line) => format!("{:#}", line.backfill.run().await.unwrap_err()),
                Err(error) => error.to_string(),
            }
        };
        for (words, said) in [
            ("sales/customer --all", "the state holds nothing of an Integration \"sales/customer\"; there is sales/customers"),
            ("sales/customers --participant crn --all", "sales/customers has no participant \"crn\"; there is crm, erp"),
            ("sales/customers --target erp --all", "nothing was ever to be written to erp; there is none"),
            ("sales/customers --participant crm --id 1", "crm was never read; there is none"),
            ("sales/customers --id 1", "say whose ids these are"),
            ("sales/customers --participant crm", "required"),
            ("sales/customers --participant crm --from a", "--to"),
            ("sales/customers --participant crm --from 10 --to 9", "nothing lies from 10 to 9"),
            ("sales/customers --participant crm --target erp --all", "cannot be used with"),
        ] {
            let refused = refusal(words).await;
            assert!(refused.contains(said), "{words}: {refused}");
        }
    }
}
