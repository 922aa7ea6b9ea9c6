//! `fairlead test FILES`: the cases that stand beside the manifests.

mod format;
mod judge;
mod report;
#[cfg(test)]
mod tests;

pub(crate) use format::GROUP;

use crate::files::{self, Loaded};
use crate::screen;
use clap::{Args, ValueEnum};
use fairlead_contract::Contract;
use fairlead_engine::trial::{Other, Trial};
use fairlead_model::unit::ObjectKey;
use fairlead_model::{Clock, ObjectRef, SystemClock};
use fairlead_plan::{Config, Planned, Severity, Verdict, nearest};
use fairlead_systems::Catalog;
use format::{Subject, Test as Cases};
use judge::Problem;
use report::Outcome;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run the tests that stand beside the manifests: what a record becomes, and what a contract refuses.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Files or folders with the tests, and with all the manifests that they speak of.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How the results are printed.
    #[arg(short, long, default_value = "human")]
    output: Output,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Human,
    /// For scripts.
    Json,
    /// JUnit XML, for CI.
    Junit,
}

impl Test {
    /// Prints the results; fails if a case fails, a file cannot be read, or there is no test at all.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = files::load(&files::find(&self.files)?, false);
        for problem in &loaded.problems {
            tracing::error!(%problem, "something is wrong with the files");
        }
        if loaded.tests.is_empty() {
            anyhow::bail!("there is no test in these files; a test has apiVersion: {GROUP}v1alpha1 and kind: Test");
        }
        let outcomes = judge_all(&loaded);
        match self.output {
            Output::Human => screen::print(report::human(&outcomes)),
            Output::Json => screen::print(serde_json::to_string_pretty(&report::json(&outcomes))?),
            Output::Junit => screen::print(report::junit(&outcomes)?),
        }
        let (_, failed) = report::counts(&outcomes);
        Ok(if failed == 0 && loaded.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn judge_all(loaded: &Loaded) -> Vec<Outcome> {
    let planned = fairlead_plan::plan(&loaded.world, Catalog::builtin(), &Config::default(), SystemClock.now());
    let judged = loaded.tests.iter().map(|(file, document)| {
        let file = file.display().to_string();
        match format::read(document) {
            Ok(test) => Outcome { file, test: test.object.to_string(), cases: judge(&test, loaded, &planned) },
            Err(faults) => {
                let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("a test without a name");
                let problems = faults.into_iter().map(|fault| Problem::new("", fault)).collect();
                Outcome { file, test: name.to_owned(), cases: vec![(String::new(), problems)] }
            }
        }
    });
    judged.collect()
}

fn judge(test: &Cases, loaded: &Loaded, planned: &Planned) -> Vec<(String, Vec<Problem>)> {
    let judged = match &test.subject {
        Subject::Integration(object, others) => trial(object, others, planned)
            .map(|trial| test.cases.iter().map(|case| (case.name.clone(), judge::integration(&trial, case))).collect()),
        Subject::Contract(object) => contract(object, loaded, planned)
            .map(|contract| test.cases.iter().map(|case| (case.name.clone(), judge::contract(&contract, case))).collect()),
    };
    judged.unwrap_or_else(|problems| vec![(String::new(), problems)])
}

fn trial(
    object: &ObjectRef,
    others: &[(fairlead_model::RecordId, BTreeMap<String, fairlead_model::ExternalId>)],
    planned: &Planned,
) -> Result<Trial, Vec<Problem>> {
    let Some(verdict) = planned.integrations.get(object) else { return Err(unknown("Integration", object, planned.integrations.keys())) };
    let Some(unit) = planned.units.integrations.get(&ObjectKey::from(object)) else { return Err(faults(verdict)) };
    for (number, (_, ids)) in others.iter().enumerate() {
        let names: Vec<&str> = unit.participants.iter().map(|participant| participant.name.as_str()).collect();
        if let Some(name) = ids.keys().find(|name| !names.contains(&name.as_str())) {
            let hint = nearest::hint(name, names, "name one of the Integration");
            return Err(vec![Problem::new(format!("spec.records[{number}].ids"), format!("there is no participant {name:?} ({hint})"))]);
        }
    }
    let others = others.iter().map(|(id, ids)| Other { id: *id, ids: ids.clone() }).collect();
    Trial::new(unit, others).map_err(|error| vec![Problem::new("", error)])
}

fn contract(object: &ObjectRef, loaded: &Loaded, planned: &Planned) -> Result<Contract, Vec<Problem>> {
    let found = loaded.world.contracts.iter().find(|contract| fairlead_plan::object_ref(&contract.metadata) == *object);
    let (Some(resource), Some(verdict)) = (found, planned.contracts.get(object)) else {
        return Err(unknown("ApiContract", object, planned.contracts.keys()));
    };
    let units = resource.spec.extensions.iter().map(|unit| (unit.namespace.as_str(), &unit.schema));
    Contract::compile(&fairlead_contract::extended(&resource.spec.schema, units)).map_err(|_| faults(verdict))
}

fn unknown<'a>(kind: &str, object: &ObjectRef, known: impl Iterator<Item = &'a ObjectRef>) -> Vec<Problem> {
    let names: Vec<String> = known.map(ToString::to_string).collect();
    let hint = nearest::hint(&object.to_string(), names.iter().map(String::as_str), "give its file too");
    vec![Problem::new("", format!("there is no {kind} {object} in these files ({hint})"))]
}

/// Why a resource cannot be tried, in the words of `check`.
fn faults(verdict: &Verdict) -> Vec<Problem> {
    let findings = verdict.findings.iter().filter(|finding| finding.severity != Severity::Warning);
    findings.map(|finding| Problem::new(format!("{} {}", verdict.kind, verdict.object), finding.to_string())).collect()
}
