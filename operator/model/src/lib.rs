//! Plain types every room shares.
