//! The snippets and links of README and docs/ are true.
//!
//! YAML snippets are judged by `fairlead check`: whole manifests as they stand; those marked `yaml row=PARTICIPANT` are rows, put into the
//! quickstart's Integration first; those marked `yaml spec` are a part of its spec; those marked `yaml test` are tests of the
//! quickstart, and pass; `yaml part=...` is a part that only has to be YAML. Shell snippets marked `sh run` are run in a folder that holds
//! the repository's examples; in all others
//! every `fairlead` line must name a command and flags that exist. Relative links must lead to a file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fairlead_tests::fairlead;
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use serde_json::{Value, json};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// README and the pages people wrote; docs/reasons and docs/reference are generated and compared elsewhere, and their links count too.
fn pages() -> Vec<PathBuf> {
    let root = repository();
    let mut pages = vec![root.join("README.md"), root.join("ARCHITECTURE.md"), root.join("examples/quickstart/README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// A fenced block: the page, its info words, its text.
struct Snippet {
    page: PathBuf,
    info: String,
    text: String,
}

fn snippets() -> Vec<Snippet> {
    let mut found = Vec::new();
    for page in pages() {
        let source = fs::read_to_string(&page).unwrap();
        let mut open: Option<Snippet> = None;
        for event in Parser::new(&source) {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                    open = Some(Snippet { page: page.clone(), info: info.to_string(), text: String::new() });
                }
                Event::Text(text) => {
                    if let Some(snippet) = &mut open {
                        snippet.text.push_str(&text);
                    }
                }
                Event::End(TagEnd::CodeBlock) => found.extend(open.take()),
                _ => {}
            }
        }
    }
    found
}

fn of(language: &str) -> Vec<Snippet> {
    snippets().into_iter().filter(|snippet| snippet.info.split_whitespace().next() == Some(language)).collect()
}

#[test]
fn every_link_leads_to_a_file() {
    let mut broken = Vec::new();
    for page in pages() {
        let source = fs::read_to_string(&page).unwrap();
        for event in Parser::new(&source) {
            let Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) = event else { continue };
            let target = dest_url.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !elsewhere && !page.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

async fn check(manifest: &str, told: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("snippet.yaml"), manifest)?;
    let output = fairlead()?.arg("check").arg(folder.path()).output().await?;
    anyhow::ensure!(output.status.success(), "{told}:\n{}\n{manifest}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

async fn passes(test: &str, told: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("snippet.yaml"), test)?;
    let mut command = fairlead()?;
    command.arg("test").arg(folder.path());
    for file in QUICKSTART {
        command.arg(repository().join("examples/quickstart").join(file));
    }
    let output = command.output().await?;
    anyhow::ensure!(output.status.success(), "{told}:\n{}\n{test}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// The quickstart's manifests.
const QUICKSTART: [&str; 4] = ["10-definitions.yaml", "20-connectors.yaml", "30-contract.yaml", "40-integration.yaml"];

#[tokio::test]
async fn every_yaml_snippet_is_what_the_operator_would_accept() -> anyhow::Result<()> {
    let found = of("yaml");
    assert!(found.len() >= 7, "the pages have YAML snippets: {}", found.len());
    for snippet in found {
        let page = snippet.page.display();
        let mark = snippet.info.split_whitespace().nth(1);
        if mark == Some("spec") {
            let mut documents = quickstart()?;
            let part: serde_json::Map<String, Value> = serde_saphyr::from_str(&snippet.text).context("a part of a spec")?;
            integration(&mut documents)?["spec"].as_object_mut().context("no spec")?.extend(part);
            check(&manifests(&documents), &format!("{page}: a part of an Integration's spec")).await?;
            continue;
        }
        if mark == Some("test") {
            passes(&snippet.text, &page.to_string()).await?;
            continue;
        }
        if mark.is_some_and(|mark| mark.starts_with("part=")) {
            serde_saphyr::from_str::<Value>(&snippet.text).with_context(|| format!("{page}: {}", snippet.text))?;
            continue;
        }
        match mark.and_then(|mark| mark.strip_prefix("row=")) {
            None => check(&snippet.text, &format!("{page}: a whole manifest (or say which part it is)")).await?,
            Some(participant) => {
                let manifest = with_rows(participant, &snippet.text).with_context(|| format!("{page}: {}", snippet.text))?;
                check(&manifest, &format!("{page}: rows of {participant}")).await?;
            }
        }
    }
    Ok(())
}

/// The quickstart with these rows in the participant's table, in place of its own for the same fields.
fn with_rows(participant: &str, rows: &str) -> anyhow::Result<String> {
    let rows: Vec<Value> = serde_saphyr::from_str(rows).context("rows are a list")?;
    let mut documents = quickstart()?;
    let participants = integration(&mut documents)?["spec"]["sync"]["participants"].as_array_mut().context("no participants")?;
    let wanted = participants.iter_mut().find(|each| each["name"] == participant).context("no such participant")?;
    let fields = wanted["fields"].as_array_mut().context("no fields")?;
    fields.retain(|field| !rows.iter().any(|row| row["canonical"] == field["canonical"] || row["native"] == field["native"]));
    fields.extend(rows);
    Ok(manifests(&documents))
}

fn quickstart() -> anyhow::Result<Vec<Value>> {
    let mut documents = Vec::new();
    for file in QUICKSTART {
        let text = fs::read_to_string(repository().join("examples/quickstart").join(file))?;
        documents.extend(serde_saphyr::from_multiple::<Value>(&text)?);
    }
    Ok(documents)
}

fn integration(documents: &mut [Value]) -> anyhow::Result<&mut Value> {
    documents.iter_mut().find(|document| document["kind"] == "Integration").context("no Integration")
}

fn manifests(documents: &[Value]) -> String {
    documents.iter().map(|document| format!("---\n{document}\n")).collect()
}

#[tokio::test]
async fn every_shell_snippet_that_is_marked_runs() -> anyhow::Result<()> {
    let mut pages: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for snippet in of("sh").into_iter().filter(|snippet| snippet.info.split_whitespace().nth(1) == Some("run")) {
        pages.entry(snippet.page).or_default().push(snippet.text);
    }
    assert!(pages.len() >= 2, "some pages have snippets that run");
    let binary = PathBuf::from(fairlead()?.as_std().get_program());
    let path = std::env::join_paths(
        [binary.parent().unwrap().to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )?;
    for (page, snippets) in pages {
        // A page's snippets follow each other in one folder, as its reader would run them.
        let folder = tempfile::tempdir()?;
        std::os::unix::fs::symlink(repository().join("examples"), folder.path().join("examples"))?;
        let script = format!("set -euo pipefail\n{}", snippets.join("\n"));
        let mut command = tokio::process::Command::new("bash");
        command.args(["-c", &script]).current_dir(folder.path()).env("PATH", &path).kill_on_drop(true);
        let output = command.output().await?;
        let told = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {script}\n{told}", page.display());
    }
    Ok(())
}

#[tokio::test]
async fn every_fairlead_command_in_the_pages_exists_with_its_flags() -> anyhow::Result<()> {
    let mut helps: BTreeMap<Vec<String>, String> = BTreeMap::new();
    let mut lines = 0;
    for snippet in of("sh") {
        for line in snippet.text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim()) {
            let Some(arguments) = line.strip_prefix("fairlead ") else { continue };
            lines += 1;
            let told = format!("{}: {line}", snippet.page.display());
            let words: Vec<&str> = arguments.split_whitespace().collect();
            let mut command = vec![words[0].to_owned()];
            if matches!(words[0], "dead-letters" | "state") {
                command.push(words[1].to_owned());
            }
            if !helps.contains_key(&command) {
                let output = fairlead()?.args(&command).arg("--help").output().await?;
                anyhow::ensure!(output.status.success(), "{told}: there is no such command");
                helps.insert(command.clone(), String::from_utf8(output.stdout)?);
            }
            for flag in words.iter().filter(|word| word.starts_with('-')) {
                let flag = flag.split('=').next().unwrap_or_default();
                let known = helps[&command].split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(|word| word == flag);
                assert!(known, "{told}: there is no {flag}");
            }
        }
    }
    assert!(lines > 15, "{lines}");
    Ok(())
}

#[test]
fn rows_take_the_place_of_the_quickstart_s_own() -> anyhow::Result<()> {
    let manifest = with_rows("crm", "- {canonical: website, native: Other__c}")?;
    assert!(manifest.contains("Other__c") && !manifest.contains(&json!({"canonical": "website", "native": "Website"}).to_string()));
    Ok(())
}
