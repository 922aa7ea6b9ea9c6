# Words and places that every tool here shares: where the repository and the caches are, how progress and errors
# are told. Sourced, never run; it changes nothing on the machine beyond creating the cache folder.
# shellcheck shell=bash

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Caches lie outside the tree, so that a fresh clone can reuse them; every tool also works from an empty one.
CACHE=${FAIRLEAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fairlead}
mkdir -p "$CACHE/bin"
CACHE=$(cd "$CACHE" && pwd)
# Cargo's one target folder, shared by demo, tests and lints, so that nothing is compiled twice.
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
[[ $TARGET == /* ]] || TARGET=$ROOT/$TARGET
export PATH="$CACHE/bin:${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/local/go/bin"
cd "$ROOT"

# Progress goes to standard error: what a tool prints on standard output is its answer.
say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# A short digest of the named files and words: the name of a cache entry.
digest() { sha256sum | cut -c1-16; }
