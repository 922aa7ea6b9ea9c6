//! The built-in definitions: the same kind of file that a team writes, compiled in.

use crate::definition::{Definition, DefinitionFinding};
use std::sync::LazyLock;

const SALESFORCE: &str = include_str!("../catalog/salesforce.yaml");
const NETSUITE: &str = include_str!("../catalog/netsuite.yaml");

static BUILTIN: LazyLock<Catalog> = LazyLock::new(|| {
    // A file that does not parse is left out here and named by the test below.
    Catalog { definitions: [SALESFORCE, NETSUITE].into_iter().filter_map(|text| Definition::parse(text).ok()).collect() }
});

/// The definitions that come with Fairlead.
#[derive(Debug)]
pub struct Catalog {
    definitions: Vec<Definition>,
}

impl Catalog {
    /// The one catalog.
    #[must_use]
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// The definition of `system`.
    #[must_use]
    pub fn get(&self, system: &str) -> Option<&Definition> {
        self.definitions.iter().find(|definition| definition.system() == system)
    }

    /// The names of all systems.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.definitions.iter().map(Definition::system)
    }

    /// Parses `text`; if it extends a built-in definition, that one is its base.
    pub fn resolve(&self, text: &str) -> Result<Definition, Vec<DefinitionFinding>> {
        let Some(base) = Definition::extends(text) else { return Definition::parse(text) };
        match self.get(&base) {
            Some(base) => Definition::extend(base, text),
            None => Err(vec![DefinitionFinding {
                place: "extends".into(),
                message: format!("there is no built-in definition {base:?}"),
                hint: format!("there are: {}", self.names().collect::<Vec<_>>().join(", ")),
            }]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_definition_is_sound() {
        for text in [SALESFORCE, NETSUITE] {
            let definition = Definition::parse(text).unwrap_or_else(|findings| {
                panic!("{}", findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
            });
            assert_eq!(Definition::parse(definition.text()).unwrap(), definition, "the text of a definition gives the same definition");
        }
        assert_eq!(Catalog::builtin().names().collect::<Vec<_>>(), ["salesforce", "netsuite"]);
    }
}
