//! Manifests in files: what `run`, `check`, `preview` and `demo` read in place of a cluster.
//!
//! A folder holds the same YAML that one would apply: our three kinds, the ConfigMaps with definitions, the Secrets; and tests, which only
//! `test` looks at. Kinds of others are passed over. Nothing here decides; a file that cannot be read becomes a named problem and the rest goes on.

use async_trait::async_trait;
use fairlead_api::manifest::{self, Resource};
use fairlead_api::{Kind, Violation};
use fairlead_model::ObjectRef;
use fairlead_plan::{ConfigMapView, Undecodable, World};
use fairlead_systems::{SecretData, SecretError, SecretSource, SecretString};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What some files hold.
#[derive(Default)]
pub(crate) struct Loaded {
    /// Everything that the planner sees.
    pub world: World,
    /// The Secrets.
    pub secrets: BTreeMap<ObjectRef, SecretData>,
    /// What could not be read, with the file.
    pub problems: Vec<Problem>,
    /// Documents for `fairlead test`, with their files.
    pub tests: Vec<(PathBuf, Value)>,
    /// Where each of our resources stands.
    pub places: BTreeMap<(Kind, ObjectRef), PathBuf>,
}

/// Something in a file that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The object in it, if it has a name.
    pub object: Option<(String, ObjectRef)>,
    /// What is wrong.
    pub violation: Violation,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if let Some((kind, object)) = &self.object {
            write!(f, "{kind} {object}: ")?;
        }
        if !self.violation.field.is_empty() {
            write!(f, "{}: ", self.violation.field)?;
        }
        write!(f, "{}", self.violation.message)?;
        if !self.violation.hint.is_empty() {
            write!(f, " ({})", self.violation.hint)?;
        }
        Ok(())
    }
}

/// The YAML and JSON files among `paths`; folders are walked, hidden files and `*.example` left out.
///
/// # Errors
/// A path that does not exist or cannot be listed.
pub(crate) fn find(paths: &[PathBuf]) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let metadata =
            std::fs::metadata(path).map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        if metadata.is_dir() {
            let mut entries: Vec<_> = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
            entries.retain(|entry| !entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
            entries.sort();
            for entry in entries {
                if entry.is_dir() {
                    files.extend(find(&[entry])?);
                } else if entry.extension().is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json") {
                    files.push(entry);
                }
            }
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// Reads files. `complete` tells whether they are all there is (`run`) or some of it (`check`).
pub(crate) fn load(files: &[PathBuf], complete: bool) -> Loaded {
    let mut loaded = Loaded { world: World { complete, ..World::default() }, ..Loaded::default() };
    for file in files {
        let problem = |object, violation| Problem { file: file.clone(), object, violation };
        let plain = |message: String, hint: &str| Violation { field: String::new(), message, hint: hint.into() };
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                loaded.problems.push(problem(None, plain(format!("cannot be read: {error}"), "check the path and its permissions")));
                continue;
            }
        };
        match manifest::from_yaml(&text) {
            Err(violation) => loaded.problems.push(problem(None, violation)),
            Ok(documents) => documents.iter().for_each(|document| take(document, file, &mut loaded)),
        }
    }
    loaded
}

fn take(document: &Value, file: &Path, loaded: &mut Loaded) {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let namespace = match text("/metadata/namespace") {
        namespace if namespace.is_empty() => "default".to_owned(),
        namespace => namespace,
    };
    let object = ObjectRef::new(namespace, text("/metadata/name"));
    let kind = text("/kind");
    if text("/apiVersion").starts_with(crate::test::GROUP) {
        loaded.tests.push((file.to_owned(), document.clone()));
        return;
    }
    if manifest::is_ours(document) {
        match Resource::read(document) {
            Ok(resource) => {
                loaded.places.insert((resource.kind(), object), file.to_owned());
                match resource {
                    Resource::Connector(object) => loaded.world.connectors.push(*object),
                    Resource::ApiContract(object) => loaded.world.contracts.push(*object),
                    Resource::Integration(object) => loaded.world.integrations.push(*object),
                }
            }
            Err(violations) => {
                if let Ok(kind) = kind.parse::<Kind>() {
                    loaded.world.undecodable.push(Undecodable { kind, object: object.clone(), generation: 1, faults: violations.clone() });
                }
                for violation in violations {
                    let object = Some((kind.clone(), object.clone()));
                    loaded.problems.push(Problem { file: file.to_owned(), object, violation });
                }
            }
        }
        return;
    }
    match kind.as_str() {
        "ConfigMap" => {
            let data = strings(document.get("data"));
            loaded.world.config_maps.push(ConfigMapView { object, data });
        }
        "Secret" => {
            let mut values: BTreeMap<_, _> = BTreeMap::new();
            for (key, value) in strings(document.get("data")) {
                use base64::Engine as _;
                match base64::engine::general_purpose::STANDARD.decode(value.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
                    Some(decoded) => {
                        values.insert(key, SecretString::new(decoded));
                    }
                    None => loaded.problems.push(Problem {
                        file: file.to_owned(),
                        object: Some(("Secret".into(), object.clone())),
                        violation: Violation {
                            field: format!("data.{key}"),
                            message: "is not base64 of text".into(),
                            hint: "encode it, or write it under stringData".into(),
                        },
                    }),
                }
            }
            values.extend(strings(document.get("stringData")).into_iter().map(|(key, value)| (key, SecretString::new(value))));
            let annotation =
                document.pointer("/metadata/annotations/fairlead.dev~1allowed-hosts").and_then(Value::as_str).unwrap_or_default();
            let version = fairlead_model::hash::Digest::of(document).0;
            loaded.secrets.insert(object, SecretData { values, allowed_hosts: SecretData::hosts(annotation), version });
        }
        _ => {}
    }
}

fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    value
        .and_then(Value::as_object)
        .map(|fields| fields.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect())
        .unwrap_or_default()
}

/// Secrets from files, exchanged as a whole when the files change.
#[derive(Default)]
pub(crate) struct FileSecrets(Mutex<BTreeMap<ObjectRef, SecretData>>);

impl FileSecrets {
    /// Puts new content in place.
    pub(crate) fn replace(&self, secrets: BTreeMap<ObjectRef, SecretData>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = secrets;
    }
}

#[async_trait]
impl SecretSource for FileSecrets {
    async fn get(&self, secret: &ObjectRef) -> Result<SecretData, SecretError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(secret).cloned().ok_or(SecretError::NotFound)
    }
}
