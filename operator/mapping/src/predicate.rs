//! A condition over a canonical document that somebody sent, called `.input`: which participant takes it.

use crate::expression::{Expression, Roots, Scope};
use crate::shape::Tree;
use fairlead_model::Document;
use fairlead_model::schema::CanonicalSchema;
use serde_json::Value;

/// A compiled condition.
#[derive(Debug)]
pub struct Predicate(Expression);

impl Predicate {
    /// Compiles a condition against the fields of a contract.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with what to do (which may be empty).
    pub fn compile(source: &str, canonical: &CanonicalSchema) -> Result<Self, Vec<(String, String)>> {
        let tree = Tree::of_canonical(canonical);
        let scope = Scope { root: "input", record: &tree, item: None, side: "canonical" };
        let expression = Expression::compile(source, scope)
            .map_err(|problems| problems.into_iter().map(|each| (each.message, each.hint.unwrap_or_default())).collect::<Vec<_>>())?;
        match expression.is_boolean() {
            Ok(()) => Ok(Self(expression)),
            Err(given) => Err(vec![(format!("{given}, a condition is boolean"), "compare with ==, or bool!(...)".into())]),
        }
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// Why it cannot be judged, without any text of the document.
    pub fn holds(&self, input: &Document) -> Result<bool, String> {
        match self.0.run(&mut Roots::new(input, self.0.names()))? {
            Value::Bool(holds) => Ok(holds),
            _ => Err("gave no boolean".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Predicate;
    use serde_json::{from_value, json};

    #[test]
    fn a_condition_sees_the_input_and_nothing_else() {
        let fields = from_value(json!({"region": {"type": "String", "nullable": false, "required": false}})).unwrap();
        let eu = Predicate::compile(r#".input.region == "eu""#, &fields).unwrap();
        let holds = |document: serde_json::Value| eu.holds(document.as_object().unwrap());
        assert_eq!(holds(json!({"region": "eu"})), Ok(true));
        assert_eq!(holds(json!({})), Ok(false));
        let wrong = |source| Predicate::compile(source, &fields).unwrap_err().remove(0);
        assert_eq!(wrong(".record.region == \"eu\""), ("there is no .record".into(), "begin with .input: .input.record".into()));
        assert_eq!(wrong(".input.region").0, "string or null, a condition is boolean");
    }
}
