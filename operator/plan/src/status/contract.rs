//! The status of an ApiContract: it is judged by its plan alone.

use super::conditions::{Readiness, of_check, of_plan, settle};
use super::{Judged, Moment};
use crate::planned::Verdict;
use fairlead_api::conditions::ConditionType;
use fairlead_api::status::Meaning;
use fairlead_api::{ApiContractStatus, Reason};
use fairlead_model::ObjectRef;

/// The status of an ApiContract.
#[must_use]
pub fn contract_status(verdict: &Verdict, previous: Option<&ApiContractStatus>, moment: Moment) -> Judged<ApiContractStatus> {
    let ready = of_plan(&verdict.accepted, &verdict.resolved)
        .unwrap_or_else(|| Readiness::ready(Reason::Succeeded, "the schema compiles and may be built on"));
    let mut wanted = vec![
        of_check(ConditionType::Accepted, &verdict.accepted, Reason::Accepted, "the contract is valid"),
        of_check(ConditionType::ResolvedRefs, &verdict.resolved, Reason::ResolvedRefs, "it refers to nothing that is missing"),
    ];
    wanted.extend(ready.conditions());
    let next = ApiContractStatus {
        observed_generation: Some(verdict.generation),
        conditions: settle(previous.map_or(&[], |status| &status.conditions), wanted, verdict.generation, moment),
        used_by: verdict.used_by.iter().map(ObjectRef::to_string).collect(),
    };
    let status = match previous {
        Some(previous) if previous.says_the_same(&next) => previous.clone(),
        _ => next,
    };
    Judged { status, next_check: None }
}
