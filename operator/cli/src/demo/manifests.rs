//! The quickstart's manifests with the simulators' addresses and credentials filled in.
//!
//! The very files of `examples/quickstart/` are used, and of `examples/gateway/` for the contract, so that what the demo shows is what a user
//! copies.

use anyhow::Context as _;
use fairlead_gateway::issuer::DevelopmentIssuer;
use fairlead_simulators::Simulator;
use serde_json::{Value, json};
use std::path::Path;

/// The files that are applied, as they are but for addresses.
const FILES: [(&str, &str); 5] = [
    ("00-namespace.yaml", include_str!("../../../../examples/quickstart/00-namespace.yaml")),
    ("10-definitions.yaml", include_str!("../../../../examples/quickstart/10-definitions.yaml")),
    ("20-connectors.yaml", include_str!("../../../../examples/quickstart/20-connectors.yaml")),
    ("30-contract.yaml", include_str!("../../../../examples/gateway/customer-v1.yaml")),
    ("40-integration.yaml", include_str!("../../../../examples/quickstart/40-integration.yaml")),
];

/// Writes the manifests to `folder`, replacing what is there.
pub(super) fn write(folder: &Path, salesforce: &Simulator, netsuite: &Simulator, issuer: &DevelopmentIssuer) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, text) in FILES {
        let text = match name {
            "20-connectors.yaml" => connectors(text, salesforce, netsuite)?,
            "30-contract.yaml" => text.replace("http://127.0.0.1:8090", issuer.issuer()),
            _ => text.to_owned(),
        };
        put(folder, name, &text)?;
    }
    for (name, simulator) in [("salesforce", salesforce), ("netsuite", netsuite)] {
        let host = simulator.addr().ip().to_string();
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": format!("{name}-credentials"),
                "namespace": "north-america",
                "annotations": {"fairlead.dev/allowed-hosts": host},
            },
            "stringData": simulator.credentials(),
        });
        put(folder, &format!("21-secret-{name}.yaml"), &serde_json::to_string_pretty(&secret)?)?;
    }
    Ok(())
}

fn put(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The connectors with other endpoints, faster polls being the Integration's matter.
fn connectors(text: &str, salesforce: &Simulator, netsuite: &Simulator) -> anyhow::Result<String> {
    let mut documents: Vec<Value> = fairlead_api::manifest::from_yaml(text).map_err(|violation| anyhow::anyhow!("{violation}"))?;
    for document in &mut documents {
        let simulator = if document["metadata"]["name"] == "salesforce" { salesforce } else { netsuite };
        document["spec"]["endpoint"] = json!(simulator.endpoint());
        document["spec"]["probe"] = json!({"every": "5s"});
        if let Some(account) = simulator.credentials().get("account") {
            document["spec"]["parameters"]["account"] = json!(account);
        }
    }
    Ok(documents.iter().map(|document| format!("---\n{document}\n")).collect())
}
