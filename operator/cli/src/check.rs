//! `fairlead check FILES`: what the operator would say, before anything is applied.

use crate::files;
use crate::screen;
use clap::{Args, ValueEnum};
use fairlead_model::{Clock, SystemClock};
use fairlead_plan::{Config, Severity};
use fairlead_systems::Catalog;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Judge manifests as the operator would.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Files or folders. What they refer to and do not hold is reported as not checked.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How the findings are printed.
    #[arg(short, long, default_value = "human")]
    output: Output,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Human,
    /// For scripts.
    Json,
    /// SARIF 2.1.0, for code review tools.
    Sarif,
}

/// One finding with its place.
struct Line {
    file: String,
    resource: String,
    severity: Severity,
    reason: String,
    field: String,
    text: String,
}

impl Check {
    /// Prints the findings; fails if one is an error.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let found = files::find(&self.files)?;
        let loaded = files::load(&found, false);
        let planned = fairlead_plan::plan(&loaded.world, Catalog::builtin(), &Config::default(), SystemClock.now());
        let mut lines: Vec<Line> = loaded
            .problems
            .iter()
            .map(|problem| Line {
                file: problem.file.display().to_string(),
                resource: problem.object.as_ref().map(|(kind, object)| format!("{kind} {object}")).unwrap_or_default(),
                severity: Severity::Error,
                reason: "InvalidSpec".into(),
                field: problem.violation.field.clone(),
                text: problem.violation.to_string(),
            })
            .collect();
        for verdict in planned.verdicts() {
            let Some(file) = loaded.places.get(&(verdict.kind, verdict.object.clone())) else { continue };
            lines.extend(verdict.findings.iter().map(|finding| Line {
                file: file.display().to_string(),
                resource: format!("{} {}", verdict.kind, verdict.object),
                severity: finding.severity,
                reason: finding.reason.to_string(),
                field: finding.field.clone(),
                text: finding.to_string(),
            }));
        }
        let errors = lines.iter().filter(|line| line.severity == Severity::Error).count();
        match self.output {
            Output::Human => {
                for line in &lines {
                    let mark = if line.severity == Severity::Error { String::new() } else { format!("{}: ", line.severity) };
                    let of = if line.resource.is_empty() { String::new() } else { format!("{}: ", line.resource) };
                    screen::print(format_args!("{}: {of}{mark}{} [{}]", line.file, line.text, line.reason));
                }
                screen::print(format_args!(
                    "{} resources in {} files: {errors} errors, {} other findings",
                    loaded.places.len(),
                    found.len(),
                    lines.len() - errors
                ));
            }
            Output::Json => screen::print(serde_json::to_string_pretty(
                &json!({"errors": errors, "findings": lines.iter().map(json_line).collect::<Vec<_>>()}),
            )?),
            Output::Sarif => screen::print(serde_json::to_string_pretty(&sarif(&lines))?),
        }
        Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn json_line(line: &Line) -> Value {
    json!({"file": line.file, "resource": line.resource, "severity": line.severity.to_string(), "reason": line.reason, "field": line.field, "message": line.text})
}

fn sarif(lines: &[Line]) -> Value {
    let results: Vec<Value> = lines
        .iter()
        .map(|line| {
            let level = match line.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Unknown => "note",
            };
            json!({
                "ruleId": line.reason,
                "level": level,
                "message": {"text": format!("{}: {}", line.resource, line.text)},
                "locations": [{"physicalLocation": {"artifactLocation": {"uri": line.file}}, "logicalLocations": [{"fullyQualifiedName": line.field}]}],
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": {"name": "fairlead check", "version": env!("CARGO_PKG_VERSION")}}, "results": results}],
    })
}
