//! What the resources promise: generated files are current, schemas are sound, rules speak with one voice, statuses obey the
//! invariants. No cluster and no clock.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod conditions;
mod generated;
mod lint;
mod manifests;
mod rules;
mod status;
mod strategies;

use std::path::{Path, PathBuf};

/// A folder of the repository.
fn repository(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder)
}

/// The samples: file name and the one manifest in it.
fn samples() -> Vec<(String, serde_json::Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1alpha1");
    let mut samples: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let manifest = fairlead_api::manifest::from_yaml(&text).unwrap().remove(0);
            (entry.file_name().into_string().unwrap(), manifest)
        })
        .collect();
    samples.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!samples.is_empty(), "there are no samples");
    samples
}
