//! The three custom resources of Fairlead: types, validation, conditions.
