//! `fairlead rollback`: the manifest of an Integration as an earlier revision declared it, from the cluster's history.

use crate::screen;
use anyhow::{Context as _, bail};
use clap::Args;
use fairlead_api::{API_VERSION, Integration, Kind};
use fairlead_controller::Revision;
use fairlead_model::ObjectRef;
use fairlead_model::unit::ObjectKey;
use kube::Api;
use serde_json::{Map, Value, json};
use std::process::ExitCode;

/// kubectl's note of what it applied last, which it makes anew.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Print the manifest of an Integration as an earlier revision declared it, for `kubectl apply -f -` or a commit. Nothing is written to the
/// cluster: applied, it is the next revision, and takes over as spec.rollout says; at once, if the revision in force maps the same.
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The Integration, as namespace/name.
    integration: String,
    /// The number of the revision [default: the one before what is declared now]. `kubectl get controllerrevisions -n NAMESPACE` lists them.
    #[arg(long, value_name = "N")]
    to_revision: Option<i64>,
    /// Leave spec.rollout out, so that it takes over at once in any case.
    #[arg(long)]
    at_once: bool,
}

impl Rollback {
    /// Prints it.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let Some(object) = ObjectKey(self.integration.clone()).object() else {
            bail!("`{}` names no Integration; write NAMESPACE/NAME", self.integration);
        };
        let client = fairlead_controller::connect().await?;
        let api: Api<Integration> = Api::namespaced(client.clone(), &object.namespace);
        let declared = api.get(&object.name).await.with_context(|| format!("cannot read Integration {object}"))?;
        let revisions = fairlead_controller::revisions(client, &object).await;
        let revisions = revisions.with_context(|| format!("cannot read the ControllerRevisions of {object}"))?;
        let revision = choose(&object, &revisions, &serde_json::to_value(&declared.spec)?, self.to_revision)?;
        tracing::info!(integration = %object, revision = revision.number, "this is its manifest; apply it, or commit it where your manifests are kept");
        screen::print(serde_saphyr::to_string(&manifest(&declared, &object, revision.spec.clone(), self.at_once))?.trim_end());
        Ok(ExitCode::SUCCESS)
    }
}

/// The revision that is asked for; without a number, the newest that declares something else than now.
fn choose<'a>(object: &ObjectRef, revisions: &'a [Revision], declared: &Value, number: Option<i64>) -> anyhow::Result<&'a Revision> {
    let numbers = || revisions.iter().map(|revision| revision.number.to_string()).collect::<Vec<_>>().join(", ");
    match number {
        Some(number) => revisions
            .iter()
            .find(|revision| revision.number == number)
            .with_context(|| format!("Integration {object} has no revision {number}; there are: {}", numbers())),
        None => revisions.iter().rfind(|revision| revision.spec != *declared).with_context(|| {
            format!("Integration {object} has no revision that declares anything else than now; there are: {}", numbers())
        }),
    }
}

/// The manifest of an Integration that declares `spec`.
fn manifest(declared: &Integration, object: &ObjectRef, mut spec: Value, at_once: bool) -> Value {
    if let Some(fields) = spec.as_object_mut().filter(|_| at_once) {
        fields.remove("rollout");
    }
    let mut metadata = Map::from_iter([("name".to_owned(), json!(object.name)), ("namespace".to_owned(), json!(object.namespace))]);
    let mut annotations = declared.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    let labels = declared.metadata.labels.clone().unwrap_or_default();
    for (name, values) in [("labels", labels), ("annotations", annotations)] {
        if !values.is_empty() {
            metadata.insert(name.to_owned(), json!(values));
        }
    }
    json!({"apiVersion": API_VERSION, "kind": Kind::Integration.name(), "metadata": metadata, "spec": spec})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revisions() -> Vec<Revision> {
        [(1, "a"), (2, "b"), (4, "a"), (5, "c")].map(|(number, team)| Revision { number, spec: json!({"owner": {"team": team}}) }).to_vec()
    }

    fn chosen(declared: &str, number: Option<i64>) -> anyhow::Result<i64> {
        let declared = json!({"owner": {"team": declared}});
        choose(&ObjectRef::new("sales", "customers"), &revisions(), &declared, number).map(|revision| revision.number)
    }

    #[test]
    fn without_a_number_it_is_the_newest_that_declares_something_else() {
        assert_eq!(chosen("c", None).unwrap(), 4);
        assert_eq!(chosen("a", None).unwrap(), 5, "what was rolled back already");
        assert_eq!(chosen("c", Some(2)).unwrap(), 2);
        let missing = chosen("c", Some(3)).unwrap_err().to_string();
        assert_eq!(missing, "Integration sales/customers has no revision 3; there are: 1, 2, 4, 5");
    }

    #[test]
    fn the_manifest_keeps_labels_and_what_others_annotated() {
        let declared = json!({
            "apiVersion": API_VERSION, "kind": "Integration",
            "metadata": {
                "name": "customers", "namespace": "sales", "resourceVersion": "7", "uid": "u",
                "labels": {"fairlead.dev/criticality": "high"},
                "annotations": {LAST_APPLIED: "{}"},
            },
            "spec": {"contract": {"name": "customer-v1"}, "sync": {"participants": []}},
        });
        let declared: Integration = serde_json::from_value(declared).unwrap();
        let spec = json!({"sync": {}, "rollout": {"shadow": "10m"}});
        let object = ObjectRef::new("sales", "customers");
        let printed = manifest(&declared, &object, spec.clone(), false);
        assert_eq!(printed["metadata"], json!({"name": "customers", "namespace": "sales", "labels": {"fairlead.dev/criticality": "high"}}));
        assert_eq!(printed["spec"], spec);
        assert_eq!(manifest(&declared, &object, spec, true)["spec"], json!({"sync": {}}));
    }
}
