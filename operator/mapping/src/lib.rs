//! Field tables with VRL leaves: compile, type-check, run both ways.
