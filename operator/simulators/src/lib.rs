//! Protocol-faithful stand-ins for the vendor APIs, seeded with realistic data and able to misbehave by script.
//!
//! A simulator speaks a vendor's protocol as the vendor's public documents and clients tell it, over tables in memory. It
//! also speaks for tests: `/__fairlead/log`, `/__fairlead/records/{entity}`, `/__fairlead/requests`, `/__fairlead/faults`,
//! `/__fairlead/edit|create|delete/...` (see [`core::server`]). It must not use any of the product's other rooms.
//!
//! | where | what |
//! |---|---|
//! | [`core::universe`] | the companies of the world, and each system's own copy of them |
//! | [`core::value`] | JSON whose numbers stay text |
//! | [`core::vendor`] | the seam between the server and a vendor's protocol |
//! | [`core::faults`] | fault scripts |
//! | [`core::log`] | the ordered log of changes, counters of requests |
//! | [`core::server`] | sockets, TLS, faults carried out, the `/__fairlead` pages |
//! | [`history`] | what several of them recorded, judged for loss, duplicates and order |
//! | [`salesforce`] | Salesforce REST: SOQL, sObjects, collections |
//! | [`netsuite`] | NetSuite SuiteTalk REST: records, SuiteQL |

use std::net::SocketAddr;
use std::sync::Arc;

pub mod core;
pub mod history;
pub mod netsuite;
pub mod salesforce;

pub use crate::core::faults::FaultScript;
pub use crate::core::log::{Entry, Outcome};
pub use crate::core::server::{Simulator, StartError};
use crate::core::universe::Universe;
use crate::core::vendor::Vendor;

/// The systems that can be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum System {
    /// Salesforce, REST API v67.0.
    Salesforce,
    /// NetSuite, SuiteTalk REST and SuiteQL, 2026.1.
    Netsuite,
}

impl System {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Salesforce, Self::Netsuite];

    /// The name used in commands and announcements.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Salesforce => "salesforce",
            Self::Netsuite => "netsuite",
        }
    }

    /// The companies it holds unless told otherwise: (first, how many). 5,000..10,000 are in both.
    #[must_use]
    pub fn default_records(self) -> (u64, u64) {
        match self {
            Self::Salesforce => (0, 10_000),
            Self::Netsuite => (5_000, 6_000),
        }
    }
}

impl std::str::FromStr for System {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|system| system.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("no simulator for system {name:?}; there are: {known}")
        })
    }
}

/// How to start a simulator.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which system.
    pub system: System,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Speak TLS with a certificate of an authority made at start (`ca` in the announcement).
    pub tls: bool,
    /// The world, and the random choices of faults.
    pub seed: u64,
    /// How many companies it holds.
    pub records: u64,
    /// The first of them.
    pub first: u64,
    /// What goes wrong from the start.
    pub faults: Option<FaultScript>,
}

impl Options {
    /// The system's defaults on a free port of the loopback interface, seed 1, without TLS and faults.
    #[must_use]
    pub fn new(system: System) -> Self {
        let (first, records) = system.default_records();
        Self { system, listen: SocketAddr::from(([127, 0, 0, 1], 0)), tls: false, seed: 1, records, first, faults: None }
    }
}

/// What a vendor gets to build its tables and credentials from.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Scheme and authority under which clients reach the simulator, such as `http://127.0.0.1:8080`, without a slash.
    pub endpoint: String,
    /// The seed.
    pub seed: u64,
    /// The world.
    pub universe: Universe,
    /// Indices of the companies that it holds.
    pub companies: std::ops::Range<u64>,
}

/// Makes the vendor. A new system gets its arm here.
fn vendor(system: System, setting: &Setting) -> anyhow::Result<Arc<dyn Vendor>> {
    Ok(match system {
        System::Salesforce => Arc::new(salesforce::Salesforce::new(setting)?),
        System::Netsuite => Arc::new(netsuite::Netsuite::new(setting)?),
    })
}
