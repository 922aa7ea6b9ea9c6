//! The dialect, against a table of a few rows.

use super::*;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

struct World;

fn row(cells: impl IntoIterator<Item = Cell>) -> Row {
    cells.into_iter().collect()
}

fn time(text: &str) -> Cell {
    Cell::Time(parse_time(text, "YYYY-MM-DD HH24:MI:SS").unwrap())
}

impl Catalog for World {
    fn table(&self, name: &str) -> Option<Table> {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        match name {
            "customer" => {
                let line = |id: &str, name: &str, limit: Option<&str>, parent: Option<&str>, stamp: &str| {
                    let number = |text: Option<&str>| text.map_or(Cell::Null, Cell::number);
                    row([Cell::number(id), Cell::text(name), number(limit), number(parent), time(stamp)])
                };
                Some(Table {
                    columns: names(&["id", "companyname", "creditlimit", "parent", "lastmodifieddate"]),
                    rows: vec![
                        line("9", "Äpfel 100% GmbH", Some("120.50"), None, "2026-01-01 00:00:00"),
                        line("10", "acme", Some("9007199254740993.10"), Some("9"), "2026-01-02 03:04:05"),
                        line("101", "O'Brien_Co", None, Some("9"), "2026-01-02 03:04:05"),
                    ],
                })
            }
            "numbers" => Some(Table {
                columns: names(&["id", "tie"]),
                rows: (0..5_000).map(|n: u64| row([Cell::number(&n.to_string()), Cell::number(&(n % 7).to_string())])).collect(),
            }),
            _ => None,
        }
    }

    fn display(&self, _: &str, column: &str, value: &Cell) -> Option<String> {
        (column == "parent").then(|| format!("Parent {}", value.print().unwrap_or_default()))
    }

    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        parse_time("2026-01-02 03:05:05", "YYYY-MM-DD HH24:MI:SS").unwrap()
    }
}

fn page(sql: &str, range: std::ops::Range<usize>, seed: u64) -> Result<Page, QueryError> {
    run(&World, sql, range, &mut StdRng::seed_from_u64(seed))
}

/// All rows, cells joined by `|`, NULL as `-`.
fn rows(sql: &str) -> Vec<String> {
    let page = page(sql, 0..1_000, 1).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let print = |row: Vec<Cell>| row.iter().map(|cell| cell.print().unwrap_or_else(|| "-".into())).collect::<Vec<_>>().join("|");
    page.rows.into_iter().map(print).collect()
}

#[test]
fn queries_answer_as_the_dialect_tells() {
    let mask = r#"'YYYY-MM-DD"T"HH24:MI:SS'"#;
    let table: [(String, &[&str]); 24] = [
        ("SELECT id FROM customer ORDER BY id".into(), &["9", "10", "101"]),
        ("SELECT id FROM customer ORDER BY creditlimit, id".into(), &["9", "10", "101"]),
        ("SELECT id FROM customer ORDER BY creditlimit DESC NULLS LAST".into(), &["10", "9", "101"]),
        ("SELECT COUNT(*) FROM customer".into(), &["3"]),
        ("SELECT COUNT(creditlimit), MAX(id), SUM(creditlimit) FROM customer".into(), &["2|101|9007199254741113.60"]),
        ("SELECT parent, COUNT(*) AS n FROM customer GROUP BY parent ORDER BY n".into(), &["-|1", "9|2"]),
        ("SELECT id FROM customer WHERE id IN ('9', 10) ORDER BY id".into(), &["9", "10"]),
        ("SELECT id FROM customer WHERE id > '9' AND id < 101".into(), &["10"]),
        ("SELECT id FROM customer WHERE creditlimit = 9007199254740993.1".into(), &["10"]),
        ("SELECT id FROM customer WHERE creditlimit <> 1 OR creditlimit IS NULL ORDER BY id".into(), &["9", "10", "101"]),
        ("SELECT id FROM customer WHERE NOT (creditlimit > 200)".into(), &["9"]),
        ("SELECT id FROM customer WHERE companyname = ''".into(), &[]),
        ("SELECT id FROM customer WHERE UPPER(companyname) LIKE 'ÄPFEL 100\\%%' ESCAPE '\\'".into(), &["9"]),
        ("SELECT id FROM customer WHERE companyname LIKE 'O''B%_Co'".into(), &["101"]),
        (format!("SELECT TO_CHAR(lastmodifieddate, {mask}) AS Stamp FROM customer WHERE id = 10"), &["2026-01-02T03:04:05"]),
        ("SELECT lastmodifieddate FROM customer WHERE id = 10".into(), &["1/2/2026"]),
        (
            format!(
                "SELECT id FROM customer WHERE lastmodifieddate > TO_TIMESTAMP('2026-01-02T03:04:05', {mask}) OR \
                 (lastmodifieddate = TO_TIMESTAMP('2026-01-02T03:04:05', {mask}) AND id > 10) ORDER BY lastmodifieddate, id"
            ),
            &["101"],
        ),
        ("SELECT id FROM customer WHERE lastmodifieddate >= TO_DATE('01/02/2026', 'MM/DD/YYYY') ORDER BY id".into(), &["10", "101"]),
        ("SELECT id FROM customer WHERE lastmodifieddate > SYSDATE - 120/86400 ORDER BY id".into(), &["10", "101"]),
        ("SELECT id FROM customer ORDER BY id OFFSET 1 ROWS FETCH FIRST 1 ROWS ONLY".into(), &["10"]),
        ("SELECT id FROM (SELECT id FROM customer WHERE parent = 9) WHERE ROWNUM <= 5 ORDER BY 1".into(), &["10", "101"]),
        ("SELECT c.id, p.companyname FROM customer c LEFT JOIN customer p ON p.id = c.parent ORDER BY c.id".into(), &["9|-", "10|Äpfel 100% GmbH", "101|Äpfel 100% GmbH"]),
        ("SELECT BUILTIN.DF(parent) FROM customer WHERE id = 10".into(), &["Parent 9"]),
        ("SELECT NVL(creditlimit, 0), SUBSTR(companyname, 1, 3) || '!', CASE WHEN parent IS NULL THEN 'top' ELSE 'child' END FROM customer WHERE id = 101".into(), &["0|O'B!|child"]),
    ];
    for (sql, expected) in table {
        assert_eq!(rows(&sql), expected, "{sql}");
    }
}

#[test]
fn output_names_are_lower_case_and_numbered_where_there_is_none() {
    let page = page("SELECT ID, UPPER(CompanyName), LOWER(companyname), creditlimit AS Limit FROM Customer", 0..1, 1).unwrap();
    assert_eq!(page.columns, ["id", "expr1", "expr2", "limit"]);
    assert_eq!((page.rows.len(), page.total), (1, 3));
}

#[test]
fn what_is_not_understood_whole_is_refused() {
    for (sql, words) in [
        ("SELECT id FROM nothing", "Record 'nothing' was not found."),
        ("SELECT nothing FROM customer", "Field 'nothing' for record 'customer' was not found"),
        ("SELECT id FROM customer LIMIT 5", "SuiteQL does not support LIMIT."),
        ("DELETE FROM customer", "anything but one SELECT"),
        ("SELECT id FROM customer; SELECT id FROM customer", "anything but one SELECT"),
        ("SELECT id FROM customer WHERE id = 'x'", "'x' is not a number."),
        ("SELECT id FROM customer WHERE lastmodifieddate > '2026-01-02'", "not a date in the account's format"),
        ("SELECT FROGNICATE(id) FROM customer", "Unknown function FROGNICATE."),
        ("SELECT id FROM customer WHERE", "Invalid or unsupported search."),
    ] {
        let error = page(sql, 0..10, 1).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(words), "{sql}: {error}");
    }
}

/// The ids that a reader sees who pages through `sql`.
fn paged(sql: &str, size: usize, seed: u64) -> Vec<String> {
    let mut seen = Vec::new();
    for at in 0.. {
        let page = page(sql, at * size..(at + 1) * size, seed.wrapping_add(at as u64)).unwrap();
        seen.extend(page.rows.iter().filter_map(|row| row[0].print()));
        if (at + 1) * size >= page.total {
            break;
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn paging_in_a_unique_order_returns_every_row_once(size in 200_usize..2_000, seed: u64) {
        let mut seen = paged("SELECT id FROM numbers ORDER BY tie, id", size, seed);
        prop_assert_eq!(seen.len(), 5_000);
        seen.sort();
        seen.dedup();
        prop_assert_eq!(seen.len(), 5_000);
    }

    #[test]
    fn paging_without_a_unique_order_repeats_and_loses_rows(size in 200_usize..2_000, seed: u64) {
        for sql in ["SELECT id FROM numbers", "SELECT id FROM numbers ORDER BY tie"] {
            let mut seen = paged(sql, size, seed);
            prop_assert_eq!(seen.len(), 5_000);
            seen.sort();
            seen.dedup();
            prop_assert!(seen.len() < 5_000, "{} lost nothing", sql);
        }
    }
}
