//! `fairlead preview FILE --participant P`: a few real records, and what would become of them. Reads, never writes.

use crate::files::{self, FileSecrets};
use crate::run::endpoint_policy;
use anyhow::{Context as _, bail};
use clap::Args;
use fairlead_engine::program::Program;
use fairlead_model::unit::ObjectKey;
use fairlead_model::{Clock, Document, SystemClock, document};
use fairlead_plan::Config;
use fairlead_systems::{Catalog, Client, Definition, ReadRequest};
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
    #[allow(clippy::print_stdout, reason = "what the command was asked to print")]
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
        let program = Program::compile(unit.clone()).map_err(anyhow::Error::msg)?;
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
            secrets,
            &endpoint_policy(&self.allow_endpoints)?,
            Arc::new(SystemClock),
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
            let line = match source.table.to_canonical(&record.body) {
                Err(error) => json!({"id": record.id, "native": record.body, "error": format!("row {}: {}", error.row, error.message)}),
                Ok(inbound) => {
                    let mut canonical = Document::new();
                    for (unit, value) in inbound.fields.iter().filter(|(_, value)| !value.is_null()) {
                        document::set(&mut canonical, unit, value.clone());
                    }
                    let invalid = program.contract.validate_fields(&canonical, source.table.readable_units()).err();
                    let targets: serde_json::Map<String, Value> = program
                        .participants
                        .iter()
                        .filter(|target| target.writable() && target.unit.name != source.unit.name)
                        .map(|target| (target.unit.name.clone(), payload(target, &canonical)))
                        .collect();
                    let violations: Vec<String> = invalid.into_iter().flatten().map(|violation| violation.to_string()).collect();
                    json!({"id": record.id, "native": record.body, "canonical": canonical, "violations": violations, "targets": targets})
                }
            };
            println!("{line}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn payload(target: &fairlead_engine::program::Participant, canonical: &Document) -> Value {
    match target.table.accepts(canonical) {
        Ok(false) => return json!({"skipped": "write.when is false"}),
        Err(error) => return json!({"error": format!("write.when: {}", error.message)}),
        Ok(true) => {}
    }
    // References are resolved only where records are known; a preview leaves them out.
    match target.table.to_native(canonical, &|_, _| None) {
        Err(error) => json!({"error": format!("row {}: {}", error.row, error.message)}),
        Ok(outbound) => {
            let mut body = Document::new();
            for row in outbound.rows.into_iter().filter(|row| !row.value.is_null()) {
                document::set(&mut body, &row.native, row.value);
            }
            Value::Object(body)
        }
    }
}
