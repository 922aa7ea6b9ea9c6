//! `fairlead status`: what stands where, live, from the admin address of `run` or of the operator's pod.

use crate::run::Output;
use crate::screen::{self, Block, columns};
use crate::signal;
use anyhow::{Context as _, bail};
use clap::Args;
use fairlead_admin::{ConnectorView, IntegrationView, Overview, Standing, Trouble};
use std::process::ExitCode;
use std::time::Duration;

/// How often a watched table is renewed.
const RENEW: Duration = Duration::from_secs(2);
/// The longest answer.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// Show lag, rates, quota and ledger, live. Exit code 0 if every resource is Ready, 1 otherwise.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The admin address of `run` or of the operator (for a pod: `kubectl port-forward deployment/fairlead 8080`).
    #[arg(long, env = "FAIRLEAD_SERVER", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// Only resources of this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Keep showing it until Ctrl-C.
    #[arg(short, long)]
    watch: bool,
    /// How it is printed; watched JSON is one line each.
    #[arg(short, long, default_value = "table")]
    output: Output,
}

impl Status {
    /// Shows it.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
        if !self.watch {
            let overview = self.ask(&client).await?;
            self.print(&overview)?;
            return Ok(if is_well(&overview) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let mut block = Block::default();
        let mut stop = std::pin::pin!(signal::terminated());
        loop {
            if screen::closed().is_some() {
                return Ok(ExitCode::SUCCESS);
            }
            match (self.ask(&client).await, self.output) {
                (Ok(overview), Output::Table) if screen::is_terminal() => block.draw(&table(&overview))?,
                (Ok(overview), _) => self.print(&overview)?,
                // It may be starting again; the next look may find it.
                (Err(error), Output::Table) if screen::is_terminal() => block.draw(&[format!("{error:#}")])?,
                (Err(error), _) => tracing::warn!(error = %format_args!("{error:#}"), "there is no answer"),
            }
            tokio::select! {
                () = &mut stop => return Ok(ExitCode::SUCCESS),
                () = tokio::time::sleep(RENEW) => {}
            }
        }
    }

    async fn ask(&self, client: &reqwest::Client) -> anyhow::Result<Overview> {
        let url = format!("{}/api/v1/overview", self.server.trim_end_matches('/'));
        let answer = client.get(&url).send().await;
        let mut answer = answer.with_context(|| {
            format!("{} does not answer; name the address that `run` or `operator` listens on with --server", self.server)
        })?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.context("the answer broke off")? {
            anyhow::ensure!(body.len() + piece.len() <= MAX_ANSWER, "the answer is longer than {MAX_ANSWER} bytes");
            body.extend_from_slice(&piece);
        }
        if !status.is_success() {
            bail!("{url} answers {status}; is it the address of a Fairlead of this version?");
        }
        let mut overview: Overview = serde_json::from_slice(&body).with_context(|| format!("{url} answers something else"))?;
        if let Some(namespace) = &self.namespace {
            overview.integrations.retain(|each| each.standing.namespace == *namespace);
            overview.connectors.retain(|each| each.standing.namespace == *namespace);
            overview.contracts.retain(|each| each.standing.namespace == *namespace);
        }
        Ok(overview)
    }

    fn print(&self, overview: &Overview) -> anyhow::Result<()> {
        match self.output {
            Output::Json if self.watch => screen::print(serde_json::to_string(overview)?),
            Output::Json => screen::print(serde_json::to_string_pretty(overview)?),
            Output::Table => table(overview).iter().for_each(|line| screen::print(screen::cut(line, usize::MAX))),
        }
        Ok(())
    }
}

fn is_well(overview: &Overview) -> bool {
    let standings = overview.integrations.iter().map(|each| &each.standing);
    let standings = standings.chain(overview.connectors.iter().map(|each| &each.standing));
    standings.chain(overview.contracts.iter().map(|each| &each.standing)).all(|standing| standing.ready == "True")
}

/// Everything as a table for people.
pub(crate) fn table(overview: &Overview) -> Vec<String> {
    let mut lines = integrations(&overview.integrations);
    for each in &overview.integrations {
        lines.extend(ledger(each));
    }
    lines.push(String::new());
    lines.extend(connectors(&overview.connectors));
    lines.push(String::new());
    let mut rows = vec![head(&["CONTRACT", "READY", "REASON", "ENTITY", "VERSION"])];
    rows.extend(overview.contracts.iter().map(|each| {
        vec![name(&each.standing), each.standing.ready.clone(), each.standing.reason.clone(), each.entity.clone(), each.version.clone()]
    }));
    lines.extend(columns(&rows, &[]));
    let troubles: Vec<String> = troubles(overview).collect();
    if !troubles.is_empty() {
        lines.push(String::new());
        lines.extend(troubles);
    }
    lines
}

/// The Integrations, one line each.
pub(crate) fn integrations(views: &[IntegrationView]) -> Vec<String> {
    let mut rows =
        vec![head(&["INTEGRATION", "READY", "REASON", "PHASE", "LAG", "PENDING", "DEAD", "RECORDS", "READ/MIN", "WRITTEN/MIN", "LEDGER"])];
    rows.extend(views.iter().map(|each| {
        vec![
            name(&each.standing),
            each.standing.ready.clone(),
            each.standing.reason.clone(),
            each.phase.clone(),
            each.lag_seconds.map_or("-".to_owned(), |lag| format!("{lag}s")),
            each.pending.to_string(),
            each.dead_letters.to_string(),
            each.records.to_string(),
            each.rate.read_per_minute.to_string(),
            each.rate.delivered_per_minute.to_string(),
            if each.balanced { "adds up" } else { "DOES NOT ADD UP" }.to_owned(),
        ]
    }));
    columns(&rows, &[4, 5, 6, 7, 8, 9])
}

/// The books of one Integration: what was read from each source, what became of what was put in each lane.
fn ledger(view: &IntegrationView) -> Vec<String> {
    let mut lines = Vec::new();
    if !view.sources.is_empty() {
        let mut rows = vec![head(&["  FROM", "STATE", "READ", "CHANGED", "UNCHANGED", "DEAD"])];
        rows.extend(view.sources.iter().map(|source| {
            let state = view.participants.iter().find(|participant| participant.name == source.participant);
            vec![
                format!("  {}", source.participant),
                state.map_or_else(String::new, |participant| participant.state.clone()),
                source.read.to_string(),
                source.changed.to_string(),
                source.unchanged.to_string(),
                source.dead_lettered.to_string(),
            ]
        }));
        lines.push(String::new());
        lines.push(format!("  ledger of {}", name(&view.standing)));
        lines.extend(columns(&rows, &[2, 3, 4, 5]));
    }
    if !view.lanes.is_empty() {
        let heads = ["  TO", "BECAUSE OF", "ENTERED", "WRITTEN", "UNCHANGED", "FILTERED", "SUPERSEDED", "DISCARDED", "DEAD", "PENDING"];
        let mut rows = vec![head(&heads)];
        rows.extend(view.lanes.iter().map(|lane| {
            let filtered: u64 = lane.filtered.values().sum();
            let counts =
                [lane.entered, lane.delivered, lane.unchanged, filtered, lane.superseded, lane.discarded, lane.dead_lettered, lane.pending];
            let mut row = vec![format!("  {}", lane.target), lane.origin.clone()];
            row.extend(counts.iter().map(u64::to_string));
            row
        }));
        lines.extend(columns(&rows, &[2, 3, 4, 5, 6, 7, 8, 9]));
    }
    lines
}

/// The Connectors, one line each.
pub(crate) fn connectors(views: &[ConnectorView]) -> Vec<String> {
    let mut rows = vec![head(&["CONNECTOR", "READY", "REASON", "SYSTEM", "CIRCUIT", "QUOTA", "THROTTLED UNTIL"])];
    rows.extend(views.iter().map(|each| {
        vec![
            name(&each.standing),
            each.standing.ready.clone(),
            each.standing.reason.clone(),
            each.system.clone(),
            each.circuit.clone(),
            each.quota.clone(),
            each.throttled_until.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    columns(&rows, &[])
}

/// What is wrong now: resources that are not Ready, with what they say, and the last errors of Integrations that have dead letters.
fn troubles(overview: &Overview) -> impl Iterator<Item = String> {
    let standings = overview.integrations.iter().map(|each| ("Integration", &each.standing));
    let standings = standings.chain(overview.connectors.iter().map(|each| ("Connector", &each.standing)));
    let standings = standings.chain(overview.contracts.iter().map(|each| ("ApiContract", &each.standing)));
    let not_ready = standings.filter(|(_, standing)| standing.ready != "True" && !standing.message.is_empty());
    let not_ready = not_ready.map(|(kind, standing)| format!("{kind} {}: {} ({})", name(standing), standing.message, standing.reason));
    let letters = overview.integrations.iter().filter(|each| each.dead_letters > 0);
    let letters = letters.filter_map(|each| Some((each, each.last_error.as_ref()?)));
    not_ready.chain(letters.map(|(each, Trouble { participant, reason, message, .. })| {
        format!(
            "Integration {}: open dead letters: {}; last trouble: {}: {message} ({reason})",
            name(&each.standing),
            each.dead_letters,
            participant.as_deref().unwrap_or_default()
        )
    }))
}

fn name(standing: &Standing) -> String {
    format!("{}/{}", standing.namespace, standing.name)
}

fn head(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
