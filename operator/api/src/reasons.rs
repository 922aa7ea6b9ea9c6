//! The reasons that a condition (or a last error) may give: stable words that scripts and alerts rely on, each with a page under
//! `docs/reasons/`. The pages are generated from this table; a test compares.
//!
//! A word once published is never removed or given another meaning. A new one needs a line here and nothing else.

use std::fmt::{self, Write as _};
use std::str::FromStr;

/// In whose hands a reason is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Nobody has to act.
    None,
    /// The author of a manifest, Secret or record.
    User,
    /// The business system or its administrator.
    Remote,
    /// Fairlead or the cluster beneath it.
    Platform,
}

impl Class {
    /// Who acts, as a sentence.
    pub const fn who(self) -> &'static str {
        match self {
            Self::None => "Nobody: this is how it should be, or it passes by itself.",
            Self::User => "The owner of the resource (`spec.owner`): something that was declared, or a record, needs a correction.",
            Self::Remote => "The administrator of the business system, if it lasts; Fairlead keeps trying.",
            Self::Platform => "The team that runs Fairlead or the cluster.",
        }
    }
}

macro_rules! reasons {
    ($($name:ident $class:ident $meaning:literal, $heals:literal, $command:literal;)*) => {
        /// A stable word for why a condition is as it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)*
        }

        impl Reason {
            /// Every reason, in the order of this table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word, as it stands in a condition.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }

            /// In whose hands it is.
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class),* }
            }

            /// What it means, in one line.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),* }
            }

            /// What makes it go away.
            pub const fn heals(self) -> &'static str {
                match self { $(Self::$name => $heals),* }
            }

            /// The one command that shows more; NAME and NAMESPACE stand for the resource's.
            pub const fn command(self) -> &'static str {
                match self { $(Self::$name => $command),* }
            }
        }
    };
}

reasons! {
    // Good, or passing by itself.
    Accepted None
        "The resource is valid.",
        "Nothing to heal.",
        "kubectl get fairlead -n NAMESPACE";
    ResolvedRefs None
        "Everything that the resource refers to exists and may be used.",
        "Nothing to heal.",
        "kubectl get fairlead -n NAMESPACE";
    Programmed None
        "The runtime has acknowledged this generation and works by it.",
        "Nothing to heal.",
        "kubectl get fint -n NAMESPACE";
    Succeeded None
        "What was declared is so.",
        "Nothing to heal.",
        "kubectl get fairlead -n NAMESPACE";
    Progressing None
        "The operator or the runtime is on its way to what was declared.",
        "By itself, within seconds.",
        "kubectl get fairlead -n NAMESPACE -w";
    ProgressingWithRetry Remote
        "A step failed and is tried again; waiting can help.",
        "By itself as soon as a retry succeeds; the message names the cause and the next attempt.",
        "kubectl get fairlead -n NAMESPACE -o custom-columns=NAME:.metadata.name,ERROR:.status.lastError.message";
    Backfilling None
        "Everything is being read for the first time, or again after a resync. It resumes where it stopped if it is interrupted.",
        "By itself, when the last participant has been read and the lanes are empty.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.status.participants}'";
    Preview None
        "The first load was read and matched, and nothing was written, because initialLoad is Preview.",
        "Set spec.sync.initialLoad to MatchOnly or MatchOrCreate when the counts are what you expect.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.status.preview}'";
    RolloutShadow None
        "A new revision maps every record beside the one in force, and writes nothing; status.revision tells what it would change.",
        "By itself, when spec.rollout.shadow is over. Removing spec.rollout lets it take over at once; declaring the revision before takes it back.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.status.revision}'";
    RolloutCanary None
        "A new revision maps a share of the records, and the one before all others.",
        "By itself, when spec.rollout.for is over and what the share needed has been written. Removing spec.rollout lets it take over at once; declaring the revision before takes it back.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.status.revision}'";
    Paused None
        "The Integration neither reads nor writes, because spec.state is Paused. What was in flight has settled.",
        "Set spec.state to Running.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.spec.state}'";
    Draining None
        "The runtime finishes what is in flight and then stops, because of a pause, a deletion or an update.",
        "By itself, within the request deadline of the systems.",
        "kubectl get fint NAME -n NAMESPACE -w";

    // What was declared is wrong.
    InvalidSpec User
        "A field of the spec is wrong; the message names it.",
        "Correct the field and apply the manifest again.",
        "fairlead check FILE";
    UnsupportedValue User
        "A field asks for something that this version of Fairlead, or this system's definition, does not offer.",
        "Choose one of the values that the message lists.",
        "fairlead check FILE";
    SecretNotFound User
        "The Secret named in spec.auth.secretRef does not exist in the resource's namespace.",
        "Create the Secret; it is looked for every five seconds at first, later at least once a minute.",
        "kubectl get secret -n NAMESPACE";
    SecretKeyMissing User
        "The Secret lacks a key that the authentication method needs; the message names it.",
        "Add the key to the Secret; it is read again within a minute.",
        "kubectl describe secret SECRET -n NAMESPACE";
    SecretNotReadable Platform
        "The operator is not permitted to read the Secret.",
        "Grant the operator `get` on Secrets in this namespace; it is tried again within a minute.",
        "kubectl auth can-i get secrets -n NAMESPACE --as system:serviceaccount:fairlead-system:fairlead";
    SecretHostNotAllowed User
        "The Secret does not say that it may be used for the host of spec.endpoint.",
        "Add the host to the Secret's annotation fairlead.dev/allowed-hosts, or correct the endpoint.",
        "kubectl get secret SECRET -n NAMESPACE -o jsonpath='{.metadata.annotations}'";
    ConfigMapNotFound User
        "A ConfigMap that the resource names does not exist in its namespace.",
        "Create the ConfigMap; its arrival is noticed at once.",
        "kubectl get configmap -n NAMESPACE";
    ConfigMapKeyMissing User
        "The ConfigMap lacks the key that the resource needs; the message names it.",
        "Add the key; the change is noticed at once.",
        "kubectl describe configmap CONFIGMAP -n NAMESPACE";
    TableInvalid User
        "A shared field table or lookup table that the resource names cannot be read; the message names its row or line.",
        "Correct the table in its ConfigMap; the change is noticed at once.",
        "fairlead check FILE";
    DefinitionInvalid User
        "The system definition cannot be used; the message names the line.",
        "Correct the definition in its ConfigMap; the change is noticed at once.",
        "fairlead check FILE";
    DefinitionNotFound User
        "No built-in system definition has this name.",
        "Correct spec.system, or point spec.definitionRef to a definition of your own.",
        "kubectl get fconn NAME -n NAMESPACE -o jsonpath='{.spec.system}'";
    RefNotPermitted User
        "The resource refers to an object in another namespace that does not allow it.",
        "Ask that object's owner to add this namespace to its allowedNamespaces; the change is noticed at once.",
        "kubectl get fcontract,fconn -n NAMESPACE -o yaml";
    ConnectorNotFound User
        "A Connector that a participant names does not exist.",
        "Create the Connector or correct the name; its arrival is noticed at once.",
        "kubectl get fconn -n NAMESPACE";
    ContractNotFound User
        "The ApiContract that the Integration names does not exist.",
        "Create the contract or correct the name; its arrival is noticed at once.",
        "kubectl get fcontract -A";
    IntegrationNotFound User
        "An Integration, or a participant of one, that an operation of the contract names does not exist.",
        "Create the Integration or correct the name; its arrival is noticed at once.",
        "kubectl get fint -A";
    IssuerKeysUnavailable Remote
        "The public keys of a token issuer cannot be had, and none from before still serve, so nobody with a token of that issuer gets in.",
        "By itself when the issuer answers; otherwise correct spec.security.issuers, or ask the platform team to allow the address.",
        "kubectl get fcontract NAME -n NAMESPACE -o jsonpath='{.status.conditions}'";
    GatewayNotRunning Platform
        "The contract has operations, and this installation runs no gateway to serve them.",
        "Start the operator with --gateway-listen, or remove spec.operations.",
        "kubectl get pods -A -l app.kubernetes.io/name=fairlead";
    ContractMismatch User
        "The Integration speaks of a canonical field or entity that the contract does not have.",
        "Correct the row or rule that the message names, or extend the contract.",
        "fairlead check FILE";
    DependencyNotReady User
        "Something that this resource needs is there but cannot be used yet; the message names it and its own reason.",
        "Repair the object named; this resource follows without another touch.",
        "kubectl get fairlead -n NAMESPACE";
    SchemaInvalid User
        "The contract's schema cannot be used; the message names the place.",
        "Correct spec.schema.",
        "fairlead check FILE";
    MappingInvalid User
        "A row of a field table cannot be compiled or does not fit the types on its two sides; the message names participant and row.",
        "Correct the row and apply the manifest again.",
        "fairlead check FILE";
    Conflict User
        "Two resources claim the same thing; the message names the other one. The older one keeps it.",
        "Remove or change one of the two.",
        "kubectl get fairlead -A";
    EndpointNotAllowed User
        "The endpoint's address is loopback, link-local, private or a metadata service, and the operator's configuration does not allow it.",
        "Correct spec.endpoint, or ask the platform team to allow the address range.",
        "kubectl get fconn NAME -n NAMESPACE -o jsonpath='{.spec.endpoint}'";
    AuthenticationFailed User
        "The system refuses the credentials. Everything on this connector waits; nothing is lost.",
        "Correct the Secret; it is read again within a minute, and at once when the Connector changes.",
        "kubectl get fconn NAME -n NAMESPACE -o jsonpath='{.status.lastError.message}'";
    EntityPermissionMissing User
        "The credentials are good but may not read or write one of the entities. Only that entity waits.",
        "Grant the permission in the business system; it is tried again by itself.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.status.lastError.message}'";
    ChangeThresholdExceeded User
        "More records were deleted or changed within 24 hours than spec.sync.guard allows, so nothing more is written until a person has looked.",
        "If the wave is right, put status.guard.token into spec.sync.guard.confirm or raise the limit; otherwise repair the source.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.status.guard}'";
    SchemaDrift User
        "The system no longer has a field or entity that the field table names, or its type has changed.",
        "Correct the row, or restore the field in the system; it is tried again by itself.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.status.lastError.message}'";

    // Records.
    DeadLetters User
        "Some records could not be handled and wait for a person. Everything else goes on.",
        "A later good version of the record, a corrected mapping, or an edit closes a dead letter.",
        "kubectl exec -n fairlead-system deployment/fairlead -- fairlead dead-letters list";
    RolloutStopped User
        "More records fail under a new revision than under the one before, which stays in force; the records that it was tried on are put back.",
        "Correct what the message names and apply that as the next revision, or take the change back (`fairlead rollback`). Removing spec.rollout lets it take over all the same.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.status.revision}'";
    DriftFound User
        "The last reconciliation found differences between the systems and what is known of them, and left them.",
        "Set spec.reconcile.policy to Repair, or raise maxRepairPercent if so many are right; spec.sync.resync with a new value puts right now what is different, missing or unread. Of what is gone, see whether the Connector's account may still read it; if it is deleted, delete it where it is left.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.status.reconciliation}'";
    ValidationFailed User
        "A record does not fit the contract's schema, or the system refuses its values; the message names the field.",
        "Correct the record at its source, or the mapping.",
        "kubectl exec -n fairlead-system deployment/fairlead -- fairlead dead-letters list";
    MappingFailed User
        "A row of the field table failed on a record; the message names row and cause.",
        "Correct the record or the row; a new revision tries the record again.",
        "kubectl exec -n fairlead-system deployment/fairlead -- fairlead dead-letters list";
    AmbiguousMatch User
        "A record matches several records of another system.",
        "Remove the duplicates or sharpen spec.sync.match.",
        "kubectl exec -n fairlead-system deployment/fairlead -- fairlead dead-letters list";
    DuplicateIdentity User
        "A second record of one system is the same record as another by the match rules or the correlation field.",
        "Merge the two in that system, or tell them apart; then replay the dead letter. One that was merged away and is there again becomes a record of its own by `fairlead split`; where the other one was made of two by mistake, so does what does not belong to it.",
        "kubectl exec -n fairlead-system deployment/fairlead -- fairlead dead-letters list";
    ReferenceUnresolved User
        "A record points to another one that is not known, was deleted, or did not come within 24 hours; it is a dead letter.",
        "Correct the reference at its source, or see what holds the other record up (`fairlead trace`), and replay the dead letter when that is there.",
        "kubectl exec -n fairlead-system deployment/fairlead -- fairlead dead-letters list";
    ReferenceCycle User
        "New records refer to each other in a cycle, so none of them can be made before the other; the one that closed it is a dead letter that names them.",
        "See what they are (`fairlead trace`) and correct a reference at its source; if that is not in the record of the letter, replay the letter then. Where the cycle is as it should be, `reference.onCycle: Complete` in the row has one made first and completed later. The record that waits for the dead letter becomes one itself (ReferenceUnresolved) after 24 hours, the one that waits for that record a day later at most, and so on.",
        "kubectl exec -n fairlead-system deployment/fairlead -- fairlead dead-letters list";
    OutcomeUnknown User
        "A create was sent, the answer never came, and the record cannot be found for certain; sending it again might make a second one.",
        "Look into the business system and replay or discard the dead letter; a write.key avoids the question.",
        "kubectl exec -n fairlead-system deployment/fairlead -- fairlead dead-letters list";

    // The business system.
    EndpointUnreachable Remote
        "No connection to the endpoint: the name does not resolve, nothing listens, TLS fails, or no answer came in time.",
        "By itself when the system answers; it is tried after 5 seconds, then more slowly.",
        "kubectl get fconn NAME -n NAMESPACE -o jsonpath='{.status.lastError.message}'";
    RemoteError Remote
        "The system answers with errors of its own, or with a maintenance page.",
        "By itself when the system answers properly again.",
        "kubectl get fconn NAME -n NAMESPACE -o jsonpath='{.status.lastError.message}'";
    CircuitOpen Remote
        "The system failed several times in a row, so requests wait before one tries again. No attempts are used up meanwhile.",
        "By itself, after spec.circuitBreaker.openFor and one good answer.",
        "kubectl get fconn NAME -n NAMESPACE -o jsonpath='{.status.circuit}'";
    RateLimited Remote
        "The system asks for fewer requests; Fairlead waits as long as it was told.",
        "By itself. If it lasts, lower the load, raise the vendor's limit, or set spec.limits.",
        "kubectl get fconn NAME -n NAMESPACE -o jsonpath='{.status.quota}'";
    QuotaExhausted Remote
        "The quota of the account is used up, the vendor's own or the Connector's limits.dailyRequests; at most what is kept for callers of the API is left.",
        "By itself, with the vendor's next window, or at midnight (UTC). If it lasts, poll less often, or raise the limit.",
        "kubectl get fconn NAME -n NAMESPACE -o jsonpath='{.status.quota}'";
    CredentialsExpiring User
        "The credentials end soon; the message says when.",
        "Put new credentials into the Secret.",
        "kubectl get fconn NAME -n NAMESPACE -o jsonpath='{.status.conditions}'";
    CheckpointUnavailable Remote
        "The system no longer knows the place up to which was read, so the participant is read again from the beginning.",
        "By itself; nothing is lost or doubled.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.status.participants}'";
    Lagging Remote
        "Changes are delivered later than they should be.",
        "By itself when the slow system catches up; the participants show which one it is.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.status.participants}'";

    // Fairlead and the cluster.
    WorkerNotReporting Platform
        "The runtime has not reported for a while, so nothing is known about the data.",
        "By itself when it reports again; otherwise look at its logs.",
        "kubectl get pods -A -l app.kubernetes.io/name=fairlead";
    WorkerCrashLooping Platform
        "The runtime of this Integration ends again and again; the message carries the last cause.",
        "Look at the logs and report the fault; a changed spec is tried at once.",
        "kubectl logs -n fairlead-system -l app.kubernetes.io/name=fairlead --previous";
    StoreUnavailable Platform
        "The store cannot be written: the disk is full or read-only, or the database does not answer; the message says which, and what to do. Nothing is acknowledged meanwhile, so nothing is lost.",
        "By itself when there is room again, the disk is writable or the database answers.",
        "kubectl get pvc -A -l app.kubernetes.io/name=fairlead";
    LedgerUnbalanced Platform
        "The counts of what came in and what went out do not add up; a record may be unaccounted for.",
        "Not by itself, for nothing is counted anew: report the fault with status.ledger, and set spec.sync.resync to a new value to have every record checked.",
        "kubectl get fint NAME -n NAMESPACE -o jsonpath='{.status.ledger}'";
    InternalError Platform
        "Fairlead met a fault of its own; the log carries the details under the same time.",
        "It is tried again by itself; report the fault.",
        "kubectl logs -n fairlead-system -l app.kubernetes.io/name=fairlead";
}

impl Reason {
    /// The page about this reason, as Markdown.
    pub fn page(self) -> String {
        let mut page = format!("# {self}\n\n{}\n\n", self.meaning());
        let _ = writeln!(page, "**Who must act.** {}\n", self.class().who());
        let _ = writeln!(page, "**See more.**\n\n```\n{}\n```\n", self.command());
        let _ = writeln!(page, "**How it heals.** {}", self.heals());
        page
    }

    /// The page that lists all reasons, as Markdown.
    pub fn index() -> String {
        let mut page = String::from(
            "# Reasons\n\nThe words that a condition's `reason` may have. They are part of the API: none is removed or given another meaning.\n",
        );
        for (class, title) in [
            (Class::None, "Nobody has to act"),
            (Class::User, "The owner of the resource acts"),
            (Class::Remote, "The business system's side"),
            (Class::Platform, "The platform team acts"),
        ] {
            let _ = writeln!(page, "\n## {title}\n");
            for reason in Self::ALL.iter().filter(|reason| reason.class() == class) {
                let _ = writeln!(page, "- [{reason}]({reason}.md): {}", reason.meaning());
            }
        }
        page
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is not in the list of reasons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a documented reason; see docs/reasons")]
pub struct UnknownReason(String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or_else(|| UnknownReason(text.chars().take(128).collect()))
    }
}
