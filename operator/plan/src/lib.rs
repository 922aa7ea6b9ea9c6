//! World in, units and findings out; pure.
