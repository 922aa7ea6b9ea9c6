//! `fairlead split`: a record that was made one of two by mistake becomes two again, from the state beside a running process.

use crate::screen;
use crate::state::StateArgs;
use anyhow::bail;
use clap::Args;
use fairlead_engine::records::Name;
use fairlead_engine::split::{self, Leaves, Told, Wanted};
use fairlead_model::{Clock, ExternalId, RecordId, SystemClock, SystemRandom};
use std::process::ExitCode;

/// Make two records of one that the match rules, a vendor's merge or a person made of two by mistake. Those that leave become a record of their
/// own; the rest keeps the id. Everybody is read again, and what is missing in a system is made there as ever. Values that were overwritten
/// before cannot be restored: look with --dry-run which ones came from what leaves.
#[derive(Debug, Args)]
pub(crate) struct Split {
    /// The record's canonical id; with --participant, that system's id of it.
    record: String,
    /// The Integration that keeps or feeds the record, as namespace/name.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    integration: Option<String>,
    /// The participant whose id is given; of golden records with its --integration, or in full.
    #[arg(long)]
    participant: Option<String>,
    /// A participant whose record leaves; with an id, the one that the system merged away and has again. May be repeated [default: what is
    /// given, where the system merged that away].
    #[arg(long = "leaves", value_name = "PARTICIPANT[=ID]")]
    leaves: Vec<String>,
    /// Only tell what would leave and what would stay, and which values came from what leaves.
    #[arg(long)]
    dry_run: bool,
    /// Who decides so; recorded.
    #[arg(long, env = "USER", default_value = "unknown")]
    author: String,
    #[command(flatten)]
    state: StateArgs,
}

impl Split {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let record = match (self.participant, RecordId::parse(&self.record)) {
            (Some(participant), _) => Name::External { participant, id: ExternalId(self.record) },
            (None, Some(id)) => Name::Canonical(id),
            (None, None) => bail!("{:?} is no canonical id; if it is a system's, name that with --participant", self.record),
        };
        let leaves: Vec<Leaves> = self.leaves.iter().map(|each| leaving(each)).collect();
        let store = self.state.open_existing(".fairlead").await?;
        let wanted = Wanted {
            integration: self.integration.as_deref(),
            record: &record,
            leaves: &leaves,
            author: &self.author,
            now: SystemClock.now(),
        };
        let told = split::split(store.as_ref(), &wanted, &SystemRandom, self.dry_run).await?;
        lines(&told, self.dry_run).iter().for_each(screen::print);
        Ok(ExitCode::SUCCESS)
    }
}

/// `PARTICIPANT[=ID]` as people type it.
fn leaving(text: &str) -> Leaves {
    match text.split_once('=') {
        Some((participant, id)) => Leaves { participant: participant.to_owned(), id: Some(ExternalId(id.to_owned())) },
        None => Leaves { participant: text.to_owned(), id: None },
    }
}

fn lines(told: &Told, dry: bool) -> Vec<String> {
    let named = |held: &[(String, ExternalId)]| -> String {
        let each: Vec<String> = held.iter().map(|(participant, id)| format!("{participant}={id}")).collect();
        each.join(", ")
    };
    let Told { realm, record, new, leaving, staying, came, referring } = told;
    let mut lines = vec![
        format!("{} {record} of {realm}: {}", if dry { "would stay with" } else { "stays with" }, named(staying)),
        if dry { format!("would leave for a new record: {}", named(leaving)) } else { format!("has left for {new}: {}", named(leaving)) },
    ];
    if !came.is_empty() {
        let fields: Vec<String> = came.iter().map(ToString::to_string).collect();
        lines.push(format!(
            "came from what leaves, and stays until one that holds {record} shows a value of its own: {}",
            fields.join(", ")
        ));
    }
    if *referring > 0 {
        lines.push(format!("records that refer to it where it leaves, {} read again: {referring}", if dry { "to be" } else { "being" }));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::open_folder;
    use clap::Parser;
    use serde_json::json;
    use uuid::Uuid;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        split: Split,
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_not_there_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let store = open_folder(folder.path()).unwrap();
        store.put_note("sales/customers", "participants", &json!(["crm", "erp"])).await.unwrap();
        let folder = folder.path().display().to_string();
        let refusal = async |words: &str| {
            let words: Vec<&str> = ["fairlead"].into_iter().chain(words.split_whitespace()).chain(["--state", &folder]).collect();
            match Line::try_parse_from(words) {
                Ok(line) => format!("{:#}", line.split.run().await.unwrap_err()),
                Err(error) => error.to_string(),
            }
        };
        for (words, said) in [
            ("", "<RECORD>"),
            ("001 --leaves erp", "\"001\" is no canonical id; if it is a system's, name that with --participant"),
            ("001 --participant crm --leaves erp", "no record 001 is known; see `fairlead trace`"),
            ("001 --participant crm --integration sales/orders", "the state holds nothing of an Integration \"sales/orders\""),
            ("01890c5e-7a1b-7000-8000-0123456789ab --leaves erp=4711", "no record 01890c5e-7a1b-7000-8000-0123456789ab is known"),
        ] {
            let refused = refusal(words).await;
            assert!(refused.contains(said), "{words}: {refused}");
        }
    }

    #[test]
    fn it_is_told_who_goes_where_and_what_came_from_whom() {
        assert_eq!(leaving("crm=a=b"), Leaves { participant: "crm".into(), id: Some(ExternalId("a=b".into())) });
        let (record, new) = (RecordId(Uuid::from_u128(1)), RecordId(Uuid::from_u128(2)));
        let told = Told {
            realm: "sales/customers".into(),
            record,
            new,
            leaving: vec![("erp".into(), "4711".into())],
            staying: vec![("crm".into(), "001".into()), ("shop".into(), "9".into())],
            came: vec!["name".parse().unwrap(), "phone".parse().unwrap()],
            referring: 3,
        };
        let done = lines(&told, false).join("\n");
        for said in [
            format!("stays with {record} of sales/customers: crm=001, shop=9"),
            format!("has left for {new}: erp=4711"),
            "shows a value of its own: name, phone".to_owned(),
            "being read again: 3".to_owned(),
        ] {
            assert!(done.contains(&said), "{done}");
        }
        let dry = lines(&told, true).join("\n");
        assert!(dry.contains("would leave for a new record: erp=4711") && !dry.contains(&new.to_string()), "{dry}");
        assert_eq!(lines(&Told { came: Vec::new(), referring: 0, ..told }, false).len(), 2);
    }
}
