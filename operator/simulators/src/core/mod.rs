//! What every simulator shares: the companies of the world, the values on the wire, faults, the log of changes, and the server.
//!
//! Nothing here knows a vendor's protocol; a vendor comes in through [`vendor::Vendor`]. Nothing here uses the product's
//! own code: a stand-in that shared a bug with its client would hide it.

pub mod faults;
pub mod log;
pub mod server;
pub mod universe;
pub mod value;
pub mod vendor;
