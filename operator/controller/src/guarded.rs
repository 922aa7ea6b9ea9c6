//! Objects of our kinds as they come from the API server, decoded in two steps so that one bad object is one bad object.
//!
//! The watch takes any JSON object with metadata ([`Guarded`]); decoding it into a resource happens here and gives either the resource or the
//! list of its faults. A stream never fails because of what somebody stored.

use std::borrow::Cow;

use fairlead_api::manifest::Resource as Typed;
use fairlead_api::{ApiContractStatus, ConnectorStatus, GROUP, IntegrationStatus, Kind, VERSION, Violation};
use fairlead_model::ObjectRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DynamicResourceScope;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::judge::Status;

/// An object of any shape.
#[derive(Clone, Debug)]
pub(crate) struct Guarded {
    metadata: ObjectMeta,
    value: Value,
}

impl<'de> Deserialize<'de> for Guarded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let metadata = value.get_mut("metadata").map(|metadata| {
            if let Some(fields) = metadata.as_object_mut() {
                // Who wrote which field takes as much room as the object itself, and nobody here asks.
                fields.remove("managedFields");
            }
            ObjectMeta::deserialize(&*metadata).unwrap_or_else(|_| bare(metadata))
        });
        Ok(Self { metadata: metadata.unwrap_or_default(), value })
    }
}

/// What can be told of metadata that does not fit its own schema.
fn bare(metadata: &Value) -> ObjectMeta {
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).map(str::to_owned);
    ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        generation: metadata.get("generation").and_then(Value::as_i64),
        ..ObjectMeta::default()
    }
}

impl Resource for Guarded {
    type DynamicType = Kind;
    type Scope = DynamicResourceScope;

    fn kind(kind: &Kind) -> Cow<'_, str> {
        kind.name().into()
    }

    fn group(_: &Kind) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version(_: &Kind) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural(kind: &Kind) -> Cow<'_, str> {
        kind.plural().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// An object after decoding.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// Its name.
    pub(crate) object: ObjectRef,
    /// Tells it from an earlier object of the same name.
    pub(crate) uid: String,
    /// Its version.
    pub(crate) resource_version: String,
    /// The generation of its spec.
    pub(crate) generation: i64,
    /// The status that stands in it, if it can be read.
    pub(crate) status: Option<Status>,
    /// The resource without its status, or everything that is wrong with it.
    pub(crate) body: Result<Typed, Vec<Violation>>,
}

impl Guarded {
    /// The object's name.
    pub(crate) fn object(&self) -> ObjectRef {
        fairlead_plan::object_ref(&self.metadata)
    }

    /// The object's version.
    pub(crate) fn version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }

    /// Decodes it as an object of `kind`.
    pub(crate) fn decode(mut self, kind: Kind) -> Decoded {
        let status = self.value.as_object_mut().and_then(|fields| fields.remove("status")).and_then(|status| read_status(kind, &status));
        if let Some(fields) = self.value.as_object_mut() {
            // Items of a list may come without these.
            fields.entry("apiVersion").or_insert_with(|| fairlead_api::API_VERSION.into());
            fields.entry("kind").or_insert_with(|| kind.name().into());
        }
        let mut body = Typed::read(&self.value);
        if let Ok(resource) = &mut body {
            // Versions change with every status that is written; what is declared does not.
            metadata_mut(resource).resource_version = None;
        }
        Decoded {
            object: self.object(),
            uid: self.metadata.uid.unwrap_or_default(),
            resource_version: self.metadata.resource_version.unwrap_or_default(),
            generation: self.metadata.generation.unwrap_or_default(),
            status,
            body,
        }
    }
}

fn metadata_mut(resource: &mut Typed) -> &mut ObjectMeta {
    match resource {
        Typed::ApiContract(object) => &mut object.metadata,
        Typed::Connector(object) => &mut object.metadata,
        Typed::Integration(object) => &mut object.metadata,
    }
}

/// A status that cannot be read was written by a hand or by another release, and counts as none.
fn read_status(kind: Kind, status: &Value) -> Option<Status> {
    match kind {
        Kind::ApiContract => ApiContractStatus::deserialize(status).ok().map(Status::ApiContract),
        Kind::Connector => ConnectorStatus::deserialize(status).ok().map(Status::Connector),
        Kind::Integration => IntegrationStatus::deserialize(status).ok().map(|status| Status::Integration(Box::new(status))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn connector(spec: Value) -> Value {
        json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "Connector",
            "metadata": {"name": "crm", "namespace": "sales", "uid": "u", "resourceVersion": "5", "generation": 2, "managedFields": [{"manager": "kubectl"}]},
            "spec": spec,
            "status": {"observedGeneration": 2, "conditions": []},
        })
    }

    #[test]
    fn anything_with_a_name_comes_through_and_what_does_not_fit_is_told_by_field() {
        let good = json!({"system": "salesforce", "endpoint": "https://acme.my.salesforce.com", "auth": {"method": "ClientCredentials", "secretRef": {"name": "s"}}});
        let decoded = serde_json::from_value::<Guarded>(connector(good)).unwrap().decode(Kind::Connector);
        assert_eq!(decoded.body.unwrap().name(), "crm");
        assert!(matches!(decoded.status, Some(Status::Connector(_))));

        for (bad, field) in [(json!({"endpoint": 7}), "spec.endpoint"), (json!("nonsense"), "spec"), (Value::Null, "spec")] {
            let decoded = serde_json::from_value::<Guarded>(connector(bad.clone())).unwrap().decode(Kind::Connector);
            let faults = decoded.body.unwrap_err();
            assert!(faults.iter().any(|fault| fault.field.starts_with(field)), "{bad}: {faults:?}");
            assert_eq!((decoded.object, decoded.generation), (ObjectRef::new("sales", "crm"), 2));
        }
    }

    #[test]
    fn metadata_that_does_not_fit_still_names_the_object() {
        let odd = json!({"metadata": {"name": "crm", "namespace": "sales", "labels": {"a": 1}, "resourceVersion": "5"}});
        let decoded = serde_json::from_value::<Guarded>(odd).unwrap().decode(Kind::Connector);
        assert_eq!(decoded.object, ObjectRef::new("sales", "crm"));
        assert!(decoded.body.is_err());
    }
}
