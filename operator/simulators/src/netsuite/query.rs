//! The SuiteQL endpoint and the tables behind it.

use super::errors::{Place, Problem};
use super::paging::Paging;
use super::schema::{Entity, Kind, Target};
use super::suiteql::{self, Catalog, Cell, Table};
use super::tables::{self, Tables};
use super::{CONTENT_TYPE, auth};
use crate::core::value::{Fields, Value};
use crate::core::vendor::{Reply, Request};
use chrono::{DateTime, SubsecRound, Utc};
use rand::RngCore;
use std::sync::Arc;

/// The tables as a query sees them.
struct Account<'a> {
    tables: &'a Tables,
    /// The time that a lagging reader has reached.
    moment: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

fn names(names: &[&str]) -> Arc<[String]> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Account<'_> {
    fn list(&self, target: Target, columns: &[&str]) -> Table {
        let rows = target.entries().into_iter().map(|(id, name)| [Cell::number(&id), Cell::text(name)].into_iter().collect());
        Table { columns: names(columns), rows: rows.collect() }
    }

    fn deleted(&self) -> Table {
        let row = |line: &tables::Deleted| {
            [
                Cell::text(line.entity.name()),
                Cell::number(&line.id.to_string()),
                Cell::optional(line.name.as_deref()),
                Cell::Time(line.at.trunc_subsecs(0)),
            ]
            .into_iter()
            .collect()
        };
        Table { columns: names(&["type", "recordid", "name", "deleteddate"]), rows: self.tables.deleted(self.moment).map(row).collect() }
    }

    /// Lines of all address books: `(customer, line)`.
    fn lines(&self) -> impl Iterator<Item = (u64, &Fields)> {
        self.tables.all(Entity::Customer, self.moment).flat_map(|record| {
            let lines = record.fields.get("addressBook").and_then(Value::as_list).unwrap_or_default();
            lines.iter().filter_map(Value::as_object).map(|line| (record.id, line))
        })
    }

    fn address_book(&self) -> Table {
        let flag = |line: &Fields, name: &str| Cell::boolean(line.get(name).and_then(Value::as_bool) == Some(true));
        let row = |(customer, line): (u64, &Fields)| {
            let id = Cell::number(line.get("id").and_then(Value::as_str).unwrap_or_default());
            let label = Cell::optional(line.get("label").and_then(Value::as_str));
            [Cell::number(&customer.to_string()), id.clone(), id, label, flag(line, "defaultBilling"), flag(line, "defaultShipping")]
                .into_iter()
                .collect()
        };
        let columns = names(&["entity", "internalid", "addressbookaddress", "label", "defaultbilling", "defaultshipping"]);
        Table { columns, rows: self.lines().map(row).collect() }
    }

    fn addresses(&self) -> Table {
        let rows = self.tables.all(Entity::Customer, self.moment).flat_map(|record| record.addresses.iter().cloned());
        let columns = ["nkey"].into_iter().chain(tables::ADDRESS_COLUMNS).map(str::to_owned).collect();
        Table { columns, rows: rows.collect() }
    }
}

impl Catalog for Account<'_> {
    fn table(&self, name: &str) -> Option<Table> {
        if let Some(entity) = Entity::named(name) {
            let rows = self.tables.all(entity, self.moment).map(|record| record.row.clone()).collect();
            return Some(Table { columns: tables::columns(entity), rows });
        }
        match name {
            "deletedrecord" => Some(self.deleted()),
            "subsidiary" => Some(self.list(Target::Subsidiary, &["id", "name"])),
            "currency" => Some(self.list(Target::Currency, &["id", "symbol"])),
            "customercategory" => Some(self.list(Target::Category, &["id", "name"])),
            "customeraddressbook" => Some(self.address_book()),
            "customeraddressbookentityaddress" | "entityaddress" => Some(self.addresses()),
            _ => None,
        }
    }

    fn display(&self, table: &str, column: &str, value: &Cell) -> Option<String> {
        let field = Entity::named(table)?.fields().iter().find(|field| field.name.eq_ignore_ascii_case(column))?;
        match field.kind {
            Kind::Reference(target) => self.tables.reference_name(target, &value.print()?),
            _ => None,
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.now
    }
}

/// The table that a query reads first, for counters and faults.
pub(super) fn first_table(body: &[u8]) -> Option<String> {
    let body = Value::parse(body).ok()?;
    let sql = body.get("q")?.as_str()?.to_ascii_lowercase();
    let mut words = sql.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    words.find(|word| *word == "from")?;
    words.next().map(str::to_owned)
}

/// Answers `POST query/v1/suiteql`. Ties in the query's order come in an order drawn from `shuffle`.
pub(super) fn answer(
    request: &Request,
    tables: &Tables,
    moment: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    shuffle: &mut dyn RngCore,
) -> Result<Reply, Problem> {
    if !super::prefers(request, "transient") {
        return Err(Problem::header("Prefer", "The required request header 'Prefer' is missing or invalid. Provide 'Prefer: transient'."));
    }
    let paging = Paging::of(request)?;
    let body = Value::parse(&request.body)
        .map_err(|error| Problem::new(400, "INVALID_CONTENT", format!("The request body is not JSON: {error}.")))?;
    let sql =
        body.get("q").and_then(Value::as_str).ok_or_else(|| Problem::content("q", "The property 'q' with a SuiteQL query is required."))?;
    let account = Account { tables, moment, now };
    let page = suiteql::run(&account, sql, paging.range(), shuffle).map_err(|error| {
        let text = format!("Invalid search query. Detailed unprocessed description follows. Search error occurred: {error}");
        Problem::new(400, "INVALID_PARAMETER", text).at(Place::Parameter("q"))
    })?;
    let item = |row: Vec<Cell>| {
        let mut fields = Fields::from_iter([("links".to_owned(), Value::List(Vec::new()))]);
        let present = page.columns.iter().zip(row).filter_map(|(name, cell)| Some((name.clone(), Value::Text(cell.print()?))));
        fields.extend(present);
        Value::Object(fields)
    };
    let path = format!("{}{}", auth::address(request), request.path);
    let items: Vec<Value> = page.rows.into_iter().map(item).collect();
    Ok(Reply::json(200, CONTENT_TYPE, &paging.envelope(&path, items, page.total)))
}
