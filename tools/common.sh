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

# holds FOLDER FILE...: whether all these files are there.
holds() {
    local file
    for file in "${@:2}"; do [[ -e $1/$file ]] || return 1; done
}

# cached FOLDER BUILD FILE...: prints FOLDER, a folder of the cache that holds these files. Where it does not yet, the
# function BUILD puts them into the folder that it is given. That one lies aside and is moved in one step, so that an
# interrupted build leaves nothing half done behind; a second caller waits and then finds the work done.
cached() {
    local folder=$1 build=$2 started=$SECONDS
    if ! holds "$folder" "${@:3}"; then
        have go || die "go is missing: run tools/setup test, which says what to install"
        mkdir -p "$(dirname "$folder")"
        exec 9>"$(dirname "$folder")/lock"
        flock 9
    fi
    if ! holds "$folder" "${@:3}"; then
        building=$(mktemp -d "$(dirname "$folder")/building.XXXXXX")
        trap 'rm -rf "$building"' EXIT
        chmod 755 "$building"
        "$build" "$building" >&2 9>&-
        holds "$building" "${@:3}" || die "the build left one of these out: ${*:3}"
        rm -rf "$folder"
        mv "$building" "$folder"
        say "built in $((SECONDS - started)) s: $folder"
    fi
    echo "$folder"
}

# kubernetes FOLDER PACKAGE...: builds these programs of the Kubernetes version that tests/controlplane pins.
kubernetes() (
    cd "$ROOT/tests/controlplane"
    version=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' go.mod)
    minor=${version#v*.}
    CGO_ENABLED=0 go build -trimpath -buildvcs=false \
        -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version \
            -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}" \
        -o "$1/" "${@:2}" ||
        die "Kubernetes did not build: is the Go module proxy reachable (go env GOPROXY)?"
)
