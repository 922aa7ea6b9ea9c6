//! The reason words of this room: each error carries one of them, the general ones with a page under
//! `docs/reasons/`, the finer ones (`ServerError`, `MaintenancePage`, ...) summed up there under a general one.

/// The Secret is not there.
pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
/// The Secret may not be read, or cannot be read at the moment.
pub const SECRET_NOT_READABLE: &str = "SecretNotReadable";
/// The Secret lacks a key that the authentication method needs, or holds something unusable under it.
pub const SECRET_KEY_MISSING: &str = "SecretKeyMissing";
/// The Secret does not say that it may be used for the host.
pub const SECRET_HOST_NOT_ALLOWED: &str = "SecretHostNotAllowed";
/// The operator's configuration does not allow the address.
pub const ENDPOINT_NOT_ALLOWED: &str = "EndpointNotAllowed";
/// No connection, no answer, or half an answer.
pub const ENDPOINT_UNREACHABLE: &str = "EndpointUnreachable";
/// The certificates given for the connector cannot be used.
pub const CERTIFICATE_INVALID: &str = "CertificateInvalid";
/// The vendor refuses the credentials.
pub const AUTHENTICATION_FAILED: &str = "AuthenticationFailed";
/// The vendor asks to slow down.
pub const RATE_LIMITED: &str = "RateLimited";
/// The account's quota is used up: the vendor's own, or what the Connector may ask for in a day.
pub const QUOTA_EXHAUSTED: &str = "QuotaExhausted";
/// The circuit breaker is open: nothing is sent.
pub const CIRCUIT_OPEN: &str = "CircuitOpen";
/// No turn came before the deadline: too many requests of our own are under way.
pub const BUSY: &str = "Busy";
/// The vendor does not know a field or record type that the definition names.
pub const SCHEMA_DRIFT: &str = "SchemaDrift";
/// The vendor refuses the record.
pub const VALIDATION_FAILED: &str = "ValidationFailed";
/// The account may not touch this record type.
pub const ENTITY_PERMISSION_MISSING: &str = "EntityPermissionMissing";
/// Somebody else holds or changed the record, or another record has its unique value.
pub const RECORD_CONFLICT: &str = "RecordConflict";
/// The record is not there.
pub const RECORD_NOT_FOUND: &str = "RecordNotFound";
/// A write was sent and no answer came.
pub const OUTCOME_UNKNOWN: &str = "OutcomeUnknown";
/// The vendor fails.
pub const SERVER_ERROR: &str = "ServerError";
/// A page for people came where data was expected.
pub const MAINTENANCE_PAGE: &str = "MaintenancePage";
/// The answer is larger than what is read.
pub const ANSWER_TOO_LARGE: &str = "AnswerTooLarge";
/// The answer is not what the protocol promises: unreadable, too deep, repeating.
pub const UNEXPECTED_RESPONSE: &str = "UnexpectedResponse";
/// The vendor has retired the API version.
pub const VERSION_RETIRED: &str = "VersionRetired";
/// The unit or its definition cannot do what was asked (unknown entity, field, parameter).
pub const DEFINITION_INVALID: &str = "DefinitionInvalid";

/// All of them, for documentation and tests.
pub const ALL: [&str; 24] = [
    SECRET_NOT_FOUND,
    SECRET_NOT_READABLE,
    SECRET_KEY_MISSING,
    SECRET_HOST_NOT_ALLOWED,
    ENDPOINT_NOT_ALLOWED,
    ENDPOINT_UNREACHABLE,
    CERTIFICATE_INVALID,
    AUTHENTICATION_FAILED,
    RATE_LIMITED,
    QUOTA_EXHAUSTED,
    CIRCUIT_OPEN,
    BUSY,
    SCHEMA_DRIFT,
    VALIDATION_FAILED,
    ENTITY_PERMISSION_MISSING,
    RECORD_CONFLICT,
    RECORD_NOT_FOUND,
    OUTCOME_UNKNOWN,
    SERVER_ERROR,
    MAINTENANCE_PAGE,
    ANSWER_TOO_LARGE,
    UNEXPECTED_RESPONSE,
    VERSION_RETIRED,
    DEFINITION_INVALID,
];
