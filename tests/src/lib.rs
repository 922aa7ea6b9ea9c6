//! Harness: a real control plane, processes of fairlead, simulators, checkers.
