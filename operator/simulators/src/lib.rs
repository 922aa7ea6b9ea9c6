//! Protocol-faithful stand-ins for the vendor APIs.
