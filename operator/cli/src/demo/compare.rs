//! The independent comparer: looks only at what the two systems hold and at their own logs.
//!
//! It pairs records as an auditor would: every account and every customer becomes the tuple of fields that the quickstart keeps in step,
//! and the two multisets of tuples must be equal. It knows nothing of Fairlead's identities, states or lanes.

use anyhow::{Context as _, bail};
use fairlead_model::Decimal;
use fairlead_simulators::Simulator;
use fairlead_simulators::core::value::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// One of the two systems, as an auditor reaches it.
pub(super) struct Side {
    http: reqwest::Client,
    base: String,
    entity: &'static str,
    /// Canonical name and place in the record.
    fields: &'static [(&'static str, &'static str)],
    id: &'static str,
    parent: &'static str,
    key: &'static str,
}

const SALESFORCE: [(&str, &str); 8] = [
    ("name", "Name"),
    ("taxId", "Tax_Number__c"),
    ("email", "Email__c"),
    ("phone", "Phone"),
    ("website", "Website"),
    ("description", "Description"),
    ("segment", "Segment__c"),
    ("creditLimit", "Credit_Limit__c"),
];

const NETSUITE: [(&str, &str); 8] = [
    ("name", "companyName"),
    ("taxId", "vatRegNumber"),
    ("email", "email"),
    ("phone", "phone"),
    ("website", "url"),
    ("description", "comments"),
    ("segment", "custentity_segment"),
    ("creditLimit", "creditLimit"),
];

/// What the comparer found.
pub(super) struct Facts {
    /// Records in Salesforce.
    pub left: u64,
    /// Records in NetSuite.
    pub right: u64,
    /// Tuples that one side holds and the other does not.
    pub differences: Vec<String>,
    /// Creations through the API, by the systems' own logs.
    pub created_left: u64,
    /// Creations through the API, by the systems' own logs.
    pub created_right: u64,
    /// Records beyond the first with the same tax number or correlation key within one system.
    pub duplicates: u64,
    /// Accepted writes that left the record as it was.
    pub idle_writes: u64,
    /// A few of them.
    pub idle_examples: Vec<String>,
}

/// An edit that should arrive on the other side.
pub(super) struct Edit {
    on_left: bool,
    field: &'static str,
    value: String,
}

/// An edit of a field that the other system owns.
pub(super) struct ForeignEdit {
    /// What was edited, for people.
    pub field: String,
    id: String,
    before: String,
}

impl Side {
    /// Salesforce.
    pub(super) fn salesforce(simulator: &Simulator) -> anyhow::Result<Self> {
        Self::new(simulator, "Account", &SALESFORCE, "Id", "ParentId", "Fairlead_Id__c")
    }

    /// NetSuite.
    pub(super) fn netsuite(simulator: &Simulator) -> anyhow::Result<Self> {
        Self::new(simulator, "customer", &NETSUITE, "id", "parent", "externalId")
    }

    fn new(
        simulator: &Simulator,
        entity: &'static str,
        fields: &'static [(&'static str, &'static str)],
        id: &'static str,
        parent: &'static str,
        key: &'static str,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { http, base: format!("{}/__fairlead", simulator.endpoint()), entity, fields, id, parent, key })
    }

    /// Sets a fault script.
    pub(super) async fn faults(&self, script: &serde_json::Value) -> anyhow::Result<()> {
        self.post("faults", script.to_string()).await.map(|_| ())
    }

    #[allow(clippy::disallowed_methods, reason = "our own simulator, whose size we chose")]
    async fn get(&self, page: &str) -> anyhow::Result<Vec<Value>> {
        let bytes = self.http.get(format!("{}/{page}", self.base)).send().await?.error_for_status()?.bytes().await?;
        match Value::parse(&bytes)? {
            Value::List(items) => Ok(items),
            _ => bail!("{page} is no list"),
        }
    }

    #[allow(clippy::disallowed_methods, reason = "our own simulator, whose size we chose")]
    async fn post(&self, page: &str, body: String) -> anyhow::Result<String> {
        let response = self.http.post(format!("{}/{page}", self.base)).body(body).send().await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("{page}: {status}: {text}");
        }
        Ok(text)
    }

    async fn records(&self) -> anyhow::Result<Vec<Value>> {
        self.get(&format!("records/{}", self.entity)).await
    }

    fn native(&self, field: &str) -> &'static str {
        self.fields.iter().find(|(name, _)| *name == field).map_or("", |(_, native)| native)
    }

    async fn edit(&self, id: &str, field: &str, value: &str) -> anyhow::Result<()> {
        // A number token for money, as a person's screen would store it.
        let value = if field == "creditLimit" { value.to_owned() } else { serde_json::Value::from(value).to_string() };
        let body = format!(r#"{{"entity":"{}","id":"{id}","values":{{"{}":{value}}}}}"#, self.entity, self.native(field));
        self.post("edit", body).await.map(|_| ())
    }

    async fn values(&self, field: &str) -> anyhow::Result<HashSet<String>> {
        let native = self.native(field);
        Ok(self.records().await?.iter().map(|record| text(record, native)).collect())
    }
}

/// A field as text; decimals in canonical form, absent and null as nothing, references by their id.
fn text(record: &Value, name: &str) -> String {
    match record.get(name) {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Number(number)) => number.parse::<Decimal>().map_or_else(|_| number.clone(), String::from),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(object @ Value::Object(_)) => text(object, "id"),
        Some(Value::Null | Value::List(_)) | None => String::new(),
    }
}

/// Every record as the tuple of fields that are kept in step; a parent by its own name and tax number.
fn tuples(side: &Side, records: &[Value]) -> HashMap<String, i64> {
    let label = |record: &Value| format!("{} [{}]", text(record, side.native("name")), text(record, side.native("taxId")));
    let by_id: HashMap<String, &Value> = records.iter().map(|record| (text(record, side.id), record)).collect();
    let mut tuples = HashMap::new();
    for record in records {
        let mut tuple: Vec<String> = side.fields.iter().map(|(name, native)| format!("{name}={:?}", text(record, native))).collect();
        let parent = by_id.get(&text(record, side.parent)).map(|parent| label(parent)).unwrap_or_default();
        tuple.push(format!("parent={parent:?}"));
        *tuples.entry(tuple.join(" ")).or_insert(0) += 1;
    }
    tuples
}

fn repeated(records: &[Value], field: &str) -> u64 {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for record in records {
        let value = text(record, field);
        if !value.is_empty() {
            *seen.entry(value).or_default() += 1;
        }
    }
    seen.values().map(|count| count - 1).sum()
}

/// How many records have a tax number that both systems hold: what the quickstart's match rule can find.
pub(super) async fn count_matching(left: &Side, right: &Side) -> anyhow::Result<u64> {
    let (a, b) = (left.values("taxId").await?, right.values("taxId").await?);
    Ok(a.intersection(&b).filter(|number| !number.is_empty()).count() as u64)
}

/// Compares the two systems.
pub(super) async fn compare(left: &Side, right: &Side) -> anyhow::Result<Facts> {
    let (lefts, rights) = (left.records().await?, right.records().await?);
    let (a, mut b) = (tuples(left, &lefts), tuples(right, &rights));
    let mut differences = Vec::new();
    for (tuple, count) in a {
        match count - b.remove(&tuple).unwrap_or(0) {
            0 => {}
            more if more > 0 => differences.push(format!("only in Salesforce: {tuple}")),
            _ => differences.push(format!("more often in NetSuite: {tuple}")),
        }
    }
    differences.extend(b.into_keys().map(|tuple| format!("only in NetSuite: {tuple}")));
    differences.sort();

    let (log_left, log_right) = (left.get("log").await?, right.get("log").await?);
    let is = |entry: &Value, outcome: &str| text(entry, "outcome") == outcome && text(entry, "origin") == "api";
    let count = |log: &[Value], entity: &str| log.iter().filter(|e| is(e, "created") && text(e, "entity") == entity).count() as u64;
    let idle: Vec<String> = log_left
        .iter()
        .chain(&log_right)
        .filter(|entry| is(entry, "unchanged"))
        .map(|entry| format!("unchanged by a write: {} {} {:?}", text(entry, "entity"), text(entry, "key"), entry.get("values")))
        .collect();
    Ok(Facts {
        left: lefts.len() as u64,
        right: rights.len() as u64,
        differences,
        created_left: count(&log_left, left.entity),
        created_right: count(&log_right, right.entity),
        duplicates: repeated(&lefts, left.native("taxId"))
            + repeated(&rights, right.native("taxId"))
            + repeated(&lefts, left.key)
            + repeated(&rights, right.key),
        idle_writes: idle.len() as u64,
        idle_examples: idle.into_iter().take(5).collect(),
    })
}

/// A person on each side edits `count` records, each in a field that their side owns, with values found nowhere else.
pub(super) async fn edit_both(left: &Side, right: &Side, count: u64) -> anyhow::Result<Vec<Edit>> {
    let mut edits = Vec::new();
    for (on_left, side, field) in [(true, left, "phone"), (false, right, "creditLimit")] {
        let records = side.records().await?;
        let step = (records.len() / usize::try_from(count).unwrap_or(1).max(1)).max(1);
        for (number, record) in records.iter().step_by(step).take(usize::try_from(count).unwrap_or(0)).enumerate() {
            let value = if on_left { format!("+1 555 {number:07}") } else { format!("{}.{:02}", 7_000_000 + number, number % 90 + 10) };
            let value = if on_left { value } else { value.parse::<Decimal>().map_err(|e| anyhow::anyhow!("{value}: {e}"))?.to_string() };
            side.edit(&text(record, side.id), field, &value).await?;
            edits.push(Edit { on_left, field, value });
        }
    }
    Ok(edits)
}

/// Whether every edit is on the other side by now.
pub(super) async fn all_arrived(left: &Side, right: &Side, edits: &[Edit]) -> anyhow::Result<bool> {
    let (on_right, on_left) = (right.values("phone").await?, left.values("creditLimit").await?);
    Ok(edits.iter().all(|edit| {
        let there = if edit.on_left { &on_right } else { &on_left };
        there.contains(&edit.value) && !edit.field.is_empty()
    }))
}

/// A person edits one account.
pub(super) async fn edit_one(left: &Side) -> anyhow::Result<Edit> {
    let records = left.records().await?;
    let record = records.get(records.len() / 3).context("Salesforce is empty")?;
    let edit = Edit { on_left: true, field: "phone", value: "+49 30 0000001".into() };
    left.edit(&text(record, left.id), edit.field, &edit.value).await?;
    Ok(edit)
}

/// Whether an edit made in Salesforce is in NetSuite.
pub(super) async fn has_arrived(right: &Side, edit: &Edit) -> anyhow::Result<bool> {
    Ok(right.values(edit.field).await?.contains(&edit.value))
}

/// A person in NetSuite edits a phone number, which Salesforce owns.
pub(super) async fn edit_foreign(right: &Side) -> anyhow::Result<ForeignEdit> {
    let records = right.records().await?;
    let record = records.iter().find(|record| !text(record, right.native("phone")).is_empty()).context("no customer has a phone number")?;
    let (id, before) = (text(record, right.id), text(record, right.native("phone")));
    right.edit(&id, "phone", "+0 000 000").await?;
    Ok(ForeignEdit { field: format!("phone of customer {id} (owned by Salesforce)"), id, before })
}

/// Whether the owner's value is there again.
pub(super) async fn is_put_back(right: &Side, edit: &ForeignEdit) -> anyhow::Result<bool> {
    let records = right.records().await?;
    Ok(records.iter().any(|record| text(record, right.id) == edit.id && text(record, right.native("phone")) == edit.before))
}
