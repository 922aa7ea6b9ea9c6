//! The fairlead binary.
