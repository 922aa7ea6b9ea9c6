//! The decimal functions: by the table in the documentation, and by another decimal library.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{compile, document};
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use rust_decimal::prelude::{Decimal as Judge, RoundingStrategy};
use serde_json::{Value, json};

/// What an expression over the record gives.
fn evaluate(expression: &str, record: &Value) -> Result<Value, String> {
    let rows =
        json!([{"canonical": "name", "native": "Name"}, {"canonical": "extra.value", "toCanonical": format!("{{\"v\": {expression}}}")}]);
    let table = compile(rows).map_err(|findings| findings[0].to_string())?;
    let mut native = document(json!({"Name": "A"}));
    native.extend(document(record.clone()));
    let inbound = table.to_canonical(&native).map_err(|error| error.to_string())?;
    let (_, value) = inbound.fields.into_iter().find(|(unit, _)| unit.to_string() == "extra.value").unwrap();
    Ok(value["v"].clone())
}

/// The rows of the page's tables, as texts of their cells.
fn tables(page: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let (mut row, mut cell): (Vec<String>, Option<String>) = (Vec::new(), None);
    for event in Parser::new_ext(page, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::TableCell) => cell = Some(String::new()),
            Event::Text(text) | Event::Code(text) => cell.iter_mut().for_each(|cell| cell.push_str(&text)),
            Event::End(TagEnd::TableCell) => row.extend(cell.take()),
            Event::End(TagEnd::TableRow) => rows.push(std::mem::take(&mut row)),
            Event::End(TagEnd::TableHead) => row.clear(),
            _ => {}
        }
    }
    rows
}

#[test]
fn each_example_of_the_documentation_gives_what_stands_beside_it() {
    let page = include_str!("../../../docs/writing-a-mapping.md");
    let examples: Vec<Vec<String>> = tables(page).into_iter().filter(|row| row.len() == 4).collect();
    assert!(examples.len() >= 10, "{examples:?}");
    for row in &examples {
        let expected: Value = serde_json::from_str(&row[3]).unwrap();
        assert_eq!(evaluate(&row[2], &json!({})), Ok(expected), "{}", row[2]);
    }
    let named: Vec<&str> = examples.iter().map(|row| row[0].as_str()).filter(|name| !name.is_empty()).collect();
    let functions =
        ["to_decimal", "decimal_add", "decimal_sub", "decimal_mul", "decimal_div", "decimal_round", "decimal_compare", "decimal_sum"];
    assert_eq!(named, functions, "each function has its line");
    let total = "decimal_sum!(map_values(array!(.record.Extra.lines)) -> |line| { decimal_mul!(line.quantity, line.price) })";
    let lines = json!({"Extra": {"lines": [{"quantity": 3, "price": "0.10"}, {"quantity": 2, "price": "0.35"}]}});
    assert_eq!(evaluate(total, &lines), Ok(json!("1")));
    assert!(page.contains(&total.replace(".Extra.", ".")), "the page shows this total");
}

#[test]
fn what_is_wrong_in_the_expression_itself_is_a_finding() {
    let wrong = |expression: &str| evaluate(expression, &json!({})).unwrap_err();
    for (expression, told) in [
        (r#"decimal_add!("12,50", 1)"#, "is no decimal"),
        ("decimal_add!(true, 1)", "invalid argument type"),
        (r#"decimal_add!(1, {"a": 1})"#, "invalid argument type"),
        ("decimal_sum!(5)", "invalid argument type"),
        (r#"decimal_sum!(["1", "x"])"#, "is no decimal"),
        ("decimal_round!(5, 65)", "is not from 0 to 64"),
        (r#"decimal_round!(5, "2")"#, "invalid argument type"),
        (r#"decimal_round!(5, 2, rounding: "half")"#, "half_even"),
        ("decimal_div!(5, 0, 2)", "division by zero"),
        ("decimal_div!(5, 2)", "scale"),
        (r#"decimal_add("1", 2)"#, "unhandled"),
    ] {
        let message = wrong(expression);
        assert!(message.contains(told), "{expression}: {message}");
        assert!(message.starts_with("row 1: extra.value: toCanonical: "), "{message}");
    }
}

/// Our words for rounding, and the judge's.
const ROUNDING: [(&str, RoundingStrategy); 7] = [
    ("half_up", RoundingStrategy::MidpointAwayFromZero),
    ("half_even", RoundingStrategy::MidpointNearestEven),
    ("half_down", RoundingStrategy::MidpointTowardZero),
    ("up", RoundingStrategy::AwayFromZero),
    ("down", RoundingStrategy::ToZero),
    ("ceiling", RoundingStrategy::ToPositiveInfinity),
    ("floor", RoundingStrategy::ToNegativeInfinity),
];

fn judged(value: Judge) -> Value {
    let text = value.normalize().to_string();
    json!(if text == "-0" { "0".to_owned() } else { text })
}

proptest! {
    // Each case compiles seven expressions.
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Within 28 digits the judge is exact too.
    #[test]
    fn sums_differences_products_and_comparisons_are_those_of_another_library(
        a in "-?[0-9]{1,8}(\\.[0-9]{1,5})?", b in "-?[0-9]{1,8}(\\.[0-9]{1,5})?", c in "-?[0-9]{1,8}(\\.[0-9]{1,5})?",
    ) {
        let (x, y, z): (Judge, Judge, Judge) = (a.parse().unwrap(), b.parse().unwrap(), c.parse().unwrap());
        let given = |expression: &str| evaluate(expression, &json!({"Extra": {"a": a, "b": b, "c": c}})).unwrap();
        prop_assert_eq!(given("decimal_add!(.record.Extra.a, .record.Extra.b)"), judged(x + y));
        prop_assert_eq!(given("decimal_sub!(.record.Extra.a, .record.Extra.b)"), judged(x - y));
        prop_assert_eq!(given("decimal_mul!(.record.Extra.a, .record.Extra.b)"), judged(x * y));
        prop_assert_eq!(given("decimal_compare!(.record.Extra.a, .record.Extra.b)"), json!(x.cmp(&y) as i8));
        prop_assert_eq!(given("decimal_sum!([.record.Extra.a, .record.Extra.b, .record.Extra.c])"), judged(x + y + z));
    }

    // A short divisor makes ties, which tell the roundings apart.
    #[test]
    fn every_rounding_is_that_of_another_library(a in "-?[0-9]{1,6}(\\.[0-9]{1,4})?", b in 1..=40i64, scale in 0..=4u32) {
        let value: Judge = a.parse().unwrap();
        for (word, strategy) in ROUNDING {
            let record = json!({"Extra": {"a": a, "b": b, "scale": scale}});
            let round = format!("decimal_round!(.record.Extra.a, int!(.record.Extra.scale), rounding: {word:?})");
            prop_assert_eq!(evaluate(&round, &record), Ok(judged(value.round_dp_with_strategy(scale, strategy))), "{} {}", round, record);
            // The judge's quotient has 28 digits; b has two at most, so what it cut off lies far below any tie.
            let divide = format!("decimal_div!(.record.Extra.a, int!(.record.Extra.b), int!(.record.Extra.scale), rounding: {word:?})");
            let quotient = (value / Judge::from(b)).round_dp_with_strategy(scale, strategy);
            prop_assert_eq!(evaluate(&divide, &record), Ok(judged(quotient)), "{} {}", divide, record);
        }
    }
}
