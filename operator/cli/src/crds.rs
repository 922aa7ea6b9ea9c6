//! `fairlead crds`: the CustomResourceDefinitions, for `kubectl apply -f -`.

use crate::screen;
use clap::Args;
use std::process::ExitCode;

/// Print the CustomResourceDefinitions.
#[derive(Debug, Args)]
pub(crate) struct Crds {}

impl Crds {
    /// Prints them as one YAML stream.
    pub(crate) fn run(self) -> ExitCode {
        for (_, yaml) in fairlead_api::crds_yaml() {
            screen::print(format_args!("---\n{}", yaml.trim_start_matches("---\n").trim_end()));
        }
        ExitCode::SUCCESS
    }
}
