//! A namespace per test, so that tests run beside each other on one API server.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::ControlPlane;

/// A namespace that is deleted, without waiting, when the test ends.
#[derive(Debug)]
pub struct TestNamespace {
    plane: ControlPlane,
    name: String,
}

impl TestNamespace {
    /// Creates a namespace whose name begins with `name` and is unique.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn new(plane: &ControlPlane, name: &str) -> anyhow::Result<Self> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{name}-{}", &unique[..8]);
        let namespace = Namespace { metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() }, ..Namespace::default() };
        let namespaces: Api<Namespace> = Api::all(plane.admin().await?);
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(Self { plane: plane.clone(), name })
    }

    /// The unique name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        // Only courtesy to the tests that still run: the whole control plane goes with the run, so whether the
        // deletion was accepted matters to nobody.
        let _ = self
            .plane
            .kubectl_command(["delete", "namespace", &self.name, "--wait=false"])
            .into_std()
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
    }
}
