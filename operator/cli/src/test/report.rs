//! Prints results: for people, for scripts, and as JUnit XML for CI.

use super::judge::Problem;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};

/// How the cases of one test went.
pub(crate) struct Outcome {
    /// The file.
    pub file: String,
    /// The test's name, or what stands for it where it cannot be read.
    pub test: String,
    /// Per case, in order: its name and what is wrong. What is wrong with the test as a whole stands under a case without a name.
    pub cases: Vec<(String, Vec<Problem>)>,
}

/// Cases that passed, and cases that did not.
pub(crate) fn counts(outcomes: &[Outcome]) -> (usize, usize) {
    let all = outcomes.iter().flat_map(|outcome| &outcome.cases);
    let failed = all.clone().filter(|(_, problems)| !problems.is_empty()).count();
    (all.count() - failed, failed)
}

pub(crate) fn human(outcomes: &[Outcome]) -> String {
    let mut lines = Vec::new();
    for outcome in outcomes {
        lines.push(format!("{} ({})", outcome.test, outcome.file));
        for (name, problems) in &outcome.cases {
            let mark = if problems.is_empty() { "ok  " } else { "FAIL" };
            lines.push(format!("  {mark}  {}", if name.is_empty() { "the test itself" } else { name }));
            lines.extend(problems.iter().map(|problem| format!("          {problem}")));
        }
    }
    let (passed, failed) = counts(outcomes);
    lines.push(format!("{passed} passed, {failed} failed"));
    lines.join("\n")
}

pub(crate) fn json(outcomes: &[Outcome]) -> Value {
    let (passed, failed) = counts(outcomes);
    let problem = |problem: &Problem| {
        let mut told = json!({"of": problem.of, "at": problem.at, "message": problem.message, "row": problem.row});
        if let Some((expected, got)) = &problem.values {
            told["expected"] = json!(expected);
            told["got"] = json!(got);
        }
        told
    };
    let cases = outcomes.iter().flat_map(|outcome| {
        outcome.cases.iter().map(move |(name, problems)| {
            let problems: Vec<Value> = problems.iter().map(problem).collect();
            json!({"file": outcome.file, "test": outcome.test, "case": name, "passed": problems.is_empty(), "problems": problems})
        })
    });
    json!({"passed": passed, "failed": failed, "cases": cases.collect::<Vec<_>>()})
}

/// The XML that CI systems read.
///
/// # Errors
/// It cannot be written as XML.
pub(crate) fn junit(outcomes: &[Outcome]) -> Result<String, quick_junit::SerializeError> {
    let mut report = quick_junit::Report::new("fairlead test");
    for outcome in outcomes {
        let mut suite = TestSuite::new(outcome.test.as_str());
        for (name, problems) in &outcome.cases {
            let mut status = TestCaseStatus::success();
            if let Some(first) = problems.first() {
                status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(first.to_string());
                status.set_description(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
            }
            let mut case = TestCase::new(if name.is_empty() { "the test itself" } else { name.as_str() }, status);
            case.set_classname(outcome.file.as_str());
            suite.add_test_case(case);
        }
        report.add_test_suite(suite);
    }
    report.to_string()
}
