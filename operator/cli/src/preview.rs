//! `fairlead preview FILE --participant P`: a few real records, and what would become of them. Reads, never writes.

use crate::files::{self, FileSecrets};
use crate::run::endpoint_policy;
use crate::screen;
use anyhow::{Context as _, bail};
use clap::Args;
use fairlead_engine::trial::{Refusal, Sent, Trial};
use fairlead_model::unit::ObjectKey;
use fairlead_model::{Clock, SystemClock};
use fairlead_plan::Config;
use fairlead_systems::{Catalog, Client, Definition, Outside, ReadRequest};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Show what a few records of one participant would become: native, canonical, and each target's payload.
#[derive(Debug, Args)]
pub(crate) struct Preview {
    /// Files or folders with the Integration and everything it refers to, the Secret included.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The participant to read.
    #[arg(long)]
    participant: String,
    /// The Integration, as namespace/name; may be left out if there is only one.
    #[arg(long)]
    integration: Option<String>,
    /// How many records.
    #[arg(long, default_value_t = 5)]
    limit: usize,
    /// Networks that endpoints may lie in although they are private or loopback (CIDR,...).
    #[arg(long, value_delimiter = ',')]
    allow_endpoints: Vec<String>,
}

impl Preview {
    /// Prints one JSON object per record.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = files::load(&files::find(&self.files)?, true);
        for problem in &loaded.problems {
            tracing::error!(%problem, "something is wrong with the manifests");
        }
        let planned = fairlead_plan::plan(&loaded.world, Catalog::builtin(), &Config::default(), SystemClock.now());
        let units = &planned.units.integrations;
        let unit = match &self.integration {
            Some(name) => units.get(&ObjectKey(name.clone())),
            None if units.len() > 1 => bail!("there are {} Integrations; name one with --integration namespace/name", units.len()),
            None => units.values().next(),
        };
        let Some(unit) = unit else {
            for verdict in planned.verdicts() {
                for finding in &verdict.findings {
                    tracing::error!(kind = %verdict.kind, object = %verdict.object, %finding, "something is wrong with the manifests");
                }
            }
            bail!("no Integration here can run; see the findings above");
        };
        let trial = Trial::new(unit, Vec::new()).map_err(anyhow::Error::msg)?;
        let program = trial.program();
        let names: Vec<_> = program.participants.iter().map(|p| p.unit.name.clone()).collect();
        let Some(source) = program.participant(&self.participant) else {
            bail!("{} has no participant {:?}; it has {}", unit.object, self.participant, names.join(", "));
        };
        let connector = planned.units.connectors.get(&ObjectKey::from(&source.unit.connector)).context("its Connector cannot run")?;
        let secrets = Arc::new(FileSecrets::default());
        secrets.replace(loaded.secrets);
        let client = Client::connect(
            connector,
            Arc::new(Definition::of_unit(connector)?),
            &Outside::new(secrets, endpoint_policy(&self.allow_endpoints)?),
        )?;
        let request = ReadRequest {
            entity: source.unit.entity.clone(),
            slice: "main".into(),
            fields: source.native_paths.clone(),
            cursor: None,
            deadline: fairlead_engine::REQUEST_DEADLINE,
        };
        let page = client.read_page(&request).await?;
        for record in page.records.iter().filter(|record| !record.deleted).take(self.limit) {
            let line = match trial.canonical(source, &record.body) {
                Err(refusal) => json!({"id": record.id, "native": record.body, "deadLetter": dead_letter(&refusal)}),
                Ok(canonical) => {
                    let others = program.participants.iter().filter(|target| target.writable() && target.unit.name != source.unit.name);
                    let targets: Vec<Value> =
                        others.map(|target| landed(&target.unit.name, trial.sent(target, &canonical.document))).collect();
                    let waits: Vec<_> = canonical.waits.iter().map(|(field, _)| field.to_string()).collect();
                    json!({"id": record.id, "native": record.body, "canonical": canonical.document, "waitsFor": waits, "targets": targets})
                }
            };
            screen::print(line);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// In the words of a test (see `test`), so that what a preview shows can be pasted into one.
fn landed(name: &str, sent: Sent) -> Value {
    match sent {
        Sent::Payload(payload) => json!({"name": name, "payload": payload}),
        Sent::Filtered => json!({"name": name, "skipped": true}),
        Sent::Waits(_) => json!({"name": name, "waits": true}),
        Sent::Refused(refusal) => json!({"name": name, "deadLetter": dead_letter(&refusal)}),
    }
}

fn dead_letter(refusal: &Refusal) -> Value {
    json!({"stage": refusal.stage, "reason": refusal.reason, "field": refusal.field, "message": refusal.message})
}
