//! What the databases store alike: how values become columns, the commands in the form of their rows, a place in a lane and the steps it
//! can take, the books of a command. Pure; what reads and writes rows is each database's own.

pub(crate) mod absorb;
pub(crate) mod books;
pub(crate) mod codec;
pub(crate) mod lane;
pub(crate) mod packed;
pub(crate) mod record;
pub(crate) mod reindex;
pub(crate) mod settle;
pub(crate) mod table;
