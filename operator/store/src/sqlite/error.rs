//! SQLite's errors in the store's words. Decides nothing else.

use crate::StoreError;
use rusqlite::{Error, ErrorCode};
use std::io;
use std::path::Path;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => full(&text),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => read_only(&text),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Unusable(format!("{text}; restore the file from a backup, or move it away to begin anew"))
            }
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Self::Other(format!("{IO}{text}")),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Other(format!("another process holds the store: {text}")),
            _ => match error {
                Error::FromSqlConversionFailure(..) | Error::InvalidColumnType(..) | Error::IntegralValueOutOfRange(..) => {
                    Self::Unusable(format!("a row holds what no Fairlead writes: {text}"))
                }
                _ => Self::Other(text),
            },
        }
    }
}

fn full(text: &str) -> StoreError {
    StoreError::Full(format!("{text}; make room on its volume, or make that larger"))
}

pub(super) fn read_only(text: &str) -> StoreError {
    StoreError::ReadOnly(format!("{text}; mount its volume writable, and let this process write there"))
}

const IO: &str = "input/output: ";

/// SQLite reports some full disks (the shared-memory file, fsync) as a bare input/output error, and a read-only one as a file that cannot be
/// opened (the log beside the store). A small file beside the store tells them apart, so that the condition gets its name.
pub(super) fn name_disk(error: StoreError, beside: Option<&Path>) -> StoreError {
    let (StoreError::Other(text), Some(path)) = (&error, beside) else { return error };
    if !text.starts_with(IO) {
        return error;
    }
    let probe = path.with_extension("probe");
    let written = std::fs::write(&probe, [0_u8; 64 * 1024]);
    let _ = std::fs::remove_file(&probe);
    match written {
        Err(cause) => of_file(&cause, &probe),
        Ok(()) => error,
    }
}

/// A file system's error in the store's words.
pub(super) fn of_file(error: &io::Error, path: &Path) -> StoreError {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(&text),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => read_only(&text),
        _ => StoreError::Other(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_output_error_is_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        let error = || StoreError::Other(format!("{IO}disk I/O error"));
        // There is room beside the store: the error stays what it was, and nothing stays behind.
        assert_eq!(name_disk(error(), Some(&folder.path().join("store.db"))), error());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let of = |kind| of_file(&io::Error::from(kind), Path::new("store.db"));
        assert!(matches!(of(io::ErrorKind::StorageFull), StoreError::Full(text) if text.contains("make room")));
        assert!(matches!(of(io::ErrorKind::ReadOnlyFilesystem), StoreError::ReadOnly(text) if text.contains("mount its volume writable")));
        assert!(matches!(of(io::ErrorKind::NotFound), StoreError::Other(_)));
    }
}
