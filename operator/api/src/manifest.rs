//! Manifests: YAML or JSON in, typed resources or a list of everything that is wrong out.
//!
//! This is the one function between what a person wrote and what the planner is given. It refuses unknown fields, which the API
//! server would prune without a word, so that nothing is accepted and ignored. It reads no files and asks no server.

use std::fmt;
use std::str::FromStr;

use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rules::{Validate, Violation};
use crate::{API_VERSION, ApiContract, Connector, Integration, schema};

/// The three kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// What an entity is.
    ApiContract,
    /// One business system.
    Connector,
    /// What is kept in step.
    Integration,
}

impl Kind {
    /// All kinds, in the order of their names.
    pub const ALL: [Self; 3] = [Self::ApiContract, Self::Connector, Self::Integration];

    /// The word in a manifest's `kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiContract => "ApiContract",
            Self::Connector => "Connector",
            Self::Integration => "Integration",
        }
    }

    /// The short name for kubectl.
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::ApiContract => "fcontract",
            Self::Connector => "fconn",
            Self::Integration => "fint",
        }
    }

    /// The plural in URLs.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::ApiContract => "apicontracts",
            Self::Connector => "connectors",
            Self::Integration => "integrations",
        }
    }

    /// What the kind is for, in one sentence.
    pub const fn description(self) -> &'static str {
        match self {
            Self::ApiContract => "What an entity is in this company: its fields, its key, its version, and who may build on it.",
            Self::Connector => {
                "One business system as this namespace reaches it: where it is, with which credentials, within which limits."
            }
            Self::Integration => "Keeps the records of one contract in step between systems.",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("`{text}` is none of Fairlead's kinds; use ApiContract, Connector or Integration"))
    }
}

/// One resource of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// A contract.
    ApiContract(Box<ApiContract>),
    /// A connector.
    Connector(Box<Connector>),
    /// An integration.
    Integration(Box<Integration>),
}

/// Whether a manifest speaks of our group at all; others in the same folder (ConfigMaps, Secrets) are somebody else's.
pub fn is_ours(manifest: &Value) -> bool {
    manifest
        .get("apiVersion")
        .and_then(Value::as_str)
        .is_some_and(|version| version == crate::GROUP || version.starts_with("fairlead.dev/"))
}

/// The documents of a YAML stream (JSON is YAML). Empty documents are left out; integers and text stay as they are.
pub fn from_yaml(text: &str) -> Result<Vec<Value>, Violation> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| Violation {
        field: String::new(),
        message: format!("is not YAML ({error})"),
        hint: "correct the text at the place named".into(),
    })?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Decodes a manifest whose spec the schema has accepted. A status that cannot be read (a later version wrote it, or a hand) is
/// nobody's intent and is left out.
fn decode<T: DeserializeOwned>(manifest: &Value) -> Result<T, Vec<Violation>> {
    T::deserialize(manifest)
        .or_else(|_| {
            let mut bare = manifest.clone();
            if let Some(fields) = bare.as_object_mut() {
                fields.remove("status");
            }
            T::deserialize(bare)
        })
        .map_err(|error| {
            vec![Violation {
                field: "spec".into(),
                message: format!("cannot be read ({error})"),
                hint: "correct the value that the message names".into(),
            }]
        })
}

impl Resource {
    /// Reads one manifest. All faults are listed, not only the first; rules are judged once the form is right.
    pub fn read(manifest: &Value) -> Result<Self, Vec<Violation>> {
        let one = |field: &str, message: String, hint: &str| vec![Violation { field: field.into(), message, hint: hint.into() }];
        let version = manifest.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        if version != API_VERSION {
            return Err(one("apiVersion", format!("is `{version}`"), "write fairlead.dev/v1alpha1"));
        }
        let kind: Kind = manifest
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .parse()
            .map_err(|message| one("kind", message, "correct the kind"))?;
        let found = schema::check_manifest(kind, manifest);
        if !found.is_empty() {
            return Err(found);
        }
        let (resource, found) = match kind {
            Kind::ApiContract => {
                let object: ApiContract = decode(manifest)?;
                let found = object.spec.rules();
                (Self::ApiContract(Box::new(object)), found)
            }
            Kind::Connector => {
                let object: Connector = decode(manifest)?;
                let found = object.spec.rules();
                (Self::Connector(Box::new(object)), found)
            }
            Kind::Integration => {
                let object: Integration = decode(manifest)?;
                let found = object.spec.rules();
                (Self::Integration(Box::new(object)), found)
            }
        };
        if found.is_empty() { Ok(resource) } else { Err(found) }
    }

    /// The resource's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::ApiContract(_) => Kind::ApiContract,
            Self::Connector(_) => Kind::Connector,
            Self::Integration(_) => Kind::Integration,
        }
    }

    /// The resource's name.
    pub fn name(&self) -> String {
        match self {
            Self::ApiContract(object) => object.name_any(),
            Self::Connector(object) => object.name_any(),
            Self::Integration(object) => object.name_any(),
        }
    }

    /// The resource's namespace, `default` where the manifest names none.
    pub fn namespace(&self) -> String {
        match self {
            Self::ApiContract(object) => object.namespace(),
            Self::Connector(object) => object.namespace(),
            Self::Integration(object) => object.namespace(),
        }
        .unwrap_or_else(|| "default".to_owned())
    }

    /// The resource as JSON.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        match self {
            Self::ApiContract(object) => serde_json::to_value(object),
            Self::Connector(object) => serde_json::to_value(object),
            Self::Integration(object) => serde_json::to_value(object),
        }
    }
}
