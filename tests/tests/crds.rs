//! The CustomResourceDefinitions: checked in, printed and served are the same thing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use fairlead_tests::{ControlPlane, TestNamespace, fairlead};

#[tokio::test]
async fn fairlead_crds_prints_what_is_checked_in() -> anyhow::Result<()> {
    let mut checked_in = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
    for entry in fs::read_dir(&folder).context("read crds/")? {
        let text = fs::read_to_string(entry?.path())?;
        checked_in.insert(text.trim_start_matches("---\n").trim_end().to_owned());
    }
    let output = fairlead()?.arg("crds").output().await?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout)?;
    let printed: BTreeSet<String> =
        printed.split("---\n").map(|document| document.trim_end().to_owned()).filter(|document| !document.is_empty()).collect();
    assert!(printed == checked_in, "crds/ is behind the types: run `make crds`");
    Ok(())
}

#[tokio::test]
async fn the_api_server_serves_each_kind_by_its_short_name() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let namespace = TestNamespace::new(&plane, "short-names").await?;
    for short in ["fconn", "fcontract", "fint"] {
        let answer = plane.kubectl(["get", short, "-n", namespace.name()]).await?;
        assert_eq!(answer.code, Some(0), "{answer}");
        assert!(answer.stderr.starts_with("No resources found"), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn who_reads_only_the_beginning_of_what_is_printed_makes_no_command_fail() -> anyhow::Result<()> {
    let mut printing = fairlead()?.arg("crds").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    drop(printing.stdout.take());
    let output = printing.wait_with_output().await?;
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let full = || fs::OpenOptions::new().write(true).open("/dev/full");
    let output = fairlead()?.arg("crds").stdout(full()?).stderr(Stdio::piped()).spawn()?.wait_with_output().await?;
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("standard output cannot be written") && told.contains("No space left"), "{told}");
    // Nor is there a panic where nothing can be told at all.
    let status = fairlead()?.arg("crds").stdout(full()?).stderr(full()?).status().await?;
    assert_eq!(status.code(), Some(1));
    Ok(())
}
