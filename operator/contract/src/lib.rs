//! Canonical schemas: validate documents, classify fields.
