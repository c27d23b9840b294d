//! What the answers of AWS KMS mean: by their error code, never by their HTTP status alone.
//!
//! *Denied* is what the tenant or its administrator decided; it drops the tenant's cached keys. What is our own fault
//! (credentials, clock) or nobody's (load, network) is *unavailable* or *throttled*, and keeps them.
//!
//! Nothing of a request or a reply goes into an error except the code, the request id, and AWS's own sentence for refusals
//! and key states: an SDK error holds the raw reply, and with it, possibly, a plaintext key.

use std::error::Error as StdError;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId as _;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;

use crate::error::{Error, ErrorKind};
use crate::kms::aws_retry::Failure;

/// What AWS KMS is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    GenerateDataKey,
    Encrypt,
    Decrypt,
    ReEncrypt,
    DescribeKey,
    GetKeyRotationStatus,
    GetKeyPolicy,
    CreateKey,
    GetParametersForImport,
    ImportKeyMaterial,
    DeleteImportedKeyMaterial,
}

impl Operation {
    /// The permission that it needs.
    fn permission(self) -> &'static str {
        match self {
            Self::GenerateDataKey => "kms:GenerateDataKey",
            Self::Encrypt => "kms:Encrypt",
            Self::Decrypt => "kms:Decrypt",
            Self::ReEncrypt => "kms:ReEncryptFrom on the old KEK and kms:ReEncryptTo on the new one",
            Self::DescribeKey => "kms:DescribeKey",
            Self::GetKeyRotationStatus => "kms:GetKeyRotationStatus",
            Self::GetKeyPolicy => "kms:GetKeyPolicy",
            Self::CreateKey => "kms:CreateKey",
            Self::GetParametersForImport => "kms:GetParametersForImport",
            Self::ImportKeyMaterial => "kms:ImportKeyMaterial",
            Self::DeleteImportedKeyMaterial => "kms:DeleteImportedKeyMaterial",
        }
    }

    /// What failed, in the words of `Error::operation`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GenerateDataKey => "generate data key",
            Self::Encrypt => "wrap data key",
            Self::Decrypt => "unwrap data key",
            Self::ReEncrypt => "rewrap data key",
            Self::DescribeKey => "describe KEK",
            Self::GetKeyRotationStatus => "ask for the KEK's rotation",
            Self::GetKeyPolicy => "read the key policy",
            Self::CreateKey => "create KEK",
            Self::GetParametersForImport => "begin import",
            Self::ImportKeyMaterial => "import key material",
            Self::DeleteImportedKeyMaterial => "delete key material",
        }
    }

    /// Whether no message waits for it.
    pub(crate) fn is_import(self) -> bool {
        matches!(
            self,
            Self::CreateKey | Self::GetParametersForImport | Self::ImportKeyMaterial | Self::DeleteImportedKeyMaterial
        )
    }

    /// Whether doing it twice is doing it once.
    fn is_repeatable(self) -> bool {
        self != Self::CreateKey
    }
}

/// The public part of what AWS said, as an error's source.
#[derive(Debug)]
struct AwsAnswer {
    operation: Operation,
    code: String,
    request_id: Option<String>,
}

impl fmt::Display for AwsAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, code, request_id } = self;
        let request_id = request_id.as_deref().unwrap_or("not given");
        write!(f, "AWS KMS answered {operation:?} with {code}, request id {request_id}")
    }
}

impl StdError for AwsAnswer {}

/// What a failed attempt means.
pub(crate) fn failure<E>(operation: Operation, error: &SdkError<E>) -> Failure
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let mut failure = match error {
        SdkError::ServiceError(refused) => {
            let status = refused.raw().status().as_u16();
            let meta = refused.err().meta();
            let code = meta.code().map_or_else(|| format!("HTTP status {status}"), |code| printable(code, 64));
            let mut failure = match meta.code() {
                Some(code) => by_code(operation, code, meta.message().unwrap_or_default()),
                None => without_code(status),
            };
            let request_id = meta.request_id().map(|id| printable(id, 64));
            failure.error = failure.error.with_source(AwsAnswer { operation, code, request_id });
            failure
        }
        SdkError::ResponseError(_) => Failure::malformed("it cannot be read, or is too long"),
        SdkError::TimeoutError(_) => down("it did not answer in time; check the endpoint and the network"),
        other => by_source(other),
    };
    failure.passes &= operation.is_repeatable();
    failure
}

/// No answer at all: credentials, a role, or the network.
fn by_source(error: &(dyn StdError + 'static)) -> Failure {
    let chain = || std::iter::successors(Some(error), |e: &&'_ (dyn StdError + 'static)| (*e).source());
    if let Some(sts) = chain().find_map(|e| e.downcast_ref::<SdkError<AssumeRoleError>>()) {
        return no_role(sts);
    }
    if let Some(e) = chain().find_map(|e| e.downcast_ref::<CredentialsError>()) {
        let why = format!(
            "this process has no usable AWS credentials; configure them (environment, profile, instance or task role): {}",
            printable(&e.to_string(), 200)
        );
        return Failure { error: Error::new(ErrorKind::Unavailable, why), passes: false };
    }
    // The last of the chain says what really happened, such as a refused connection; the first are generic.
    let cause = chain().last().map(ToString::to_string).unwrap_or_default();
    down(&format!("it cannot be reached: {}", printable(&cause, 200)))
}

/// A tenant that takes its role away means it: that is a denial.
fn no_role(sts: &SdkError<AssumeRoleError>) -> Failure {
    let code = sts.as_service_error().and_then(ProvideErrorMetadata::code);
    match code {
        Some("AccessDenied" | "AccessDeniedException") => Failure::for_good(Error::new(
            ErrorKind::Denied,
            "AWS STS refuses sts:AssumeRole on the tenant's role: its trust policy must name this backend's principal and \
             the agreed external id, and this backend's own policy must allow sts:AssumeRole on it",
        )),
        Some(code) if is_throttling(code) => {
            Failure { error: Error::new(ErrorKind::Throttled, "AWS STS asks to slow down; retry later"), passes: true }
        }
        Some(code) if is_about_credentials(code) => our_credentials(code),
        Some(code) => down(&format!("AWS STS gave no credentials for the tenant's role ({})", printable(code, 64))),
        None => down("AWS STS gave no credentials for the tenant's role: it did not answer"),
    }
}

fn down(what: &str) -> Failure {
    Failure { error: Error::new(ErrorKind::Unavailable, format!("AWS KMS is not available: {what}")), passes: true }
}

fn without_code(status: u16) -> Failure {
    match status {
        429 => {
            Failure { error: Error::new(ErrorKind::Throttled, "AWS KMS asks to slow down; retry later"), passes: true }
        }
        200..=299 => Failure::malformed("it cannot be read"),
        500.. => down(&format!("it failed with HTTP status {status}")),
        _ => {
            let what = format!("HTTP status {status} without an error code; is the endpoint an AWS KMS?");
            Failure::for_good(Error::new(ErrorKind::Unavailable, what))
        }
    }
}

fn by_code(operation: Operation, code: &str, message: &str) -> Failure {
    use Operation as Op;
    let permission = operation.permission();
    let denied = |why: String| Failure::for_good(Error::new(ErrorKind::Denied, why));
    let invalid = |why: String| Failure::for_good(Error::invalid(why));
    match (operation, code) {
        (_, code) if is_throttling(code) => {
            let why = "AWS KMS asks to slow down; retry later, or raise the account's request quota";
            Failure { error: Error::new(ErrorKind::Throttled, why), passes: true }
        }
        (_, code) if is_about_credentials(code) => our_credentials(code),
        (_, "AccessDeniedException" | "AccessDenied" | "NotAuthorized") => denied(format!(
            "AWS refuses {permission}: allow it to this backend's principal, in the KEK's key policy and, across accounts, \
             in the principal's own policy too; AWS says: {}",
            printable(message, 400)
        )),
        (_, "DisabledException") => denied("the KEK is disabled; its owner can enable it (kms:EnableKey)".to_owned()),
        (_, INVALID_STATE) => by_sentence(message),
        (_, "NotFoundException") => denied(
            "there is no such key or alias in that account and region; check the ARN, and that a multi-region key has a \
             replica there"
                .to_owned(),
        ),
        (Op::ImportKeyMaterial, "InvalidCiphertextException" | "ValidationException") => invalid(
            "AWS KMS cannot unwrap the key material: wrap 32 bytes with the public key of these very parameters and with \
             the algorithm they name"
                .to_owned(),
        ),
        (_, "IncorrectKeyMaterialException") => invalid(
            "this is other key material than the one first imported into this KEK; import the same bytes again, or make \
             a new KEK"
                .to_owned(),
        ),
        (_, "ExpiredImportTokenException") => {
            invalid("the import parameters are older than 24 hours; ask for new ones".to_owned())
        }
        (_, "InvalidImportTokenException") => invalid(
            "the import token is not the one of this KEK and of its latest import parameters; ask for new ones".to_owned(),
        ),
        (_, "InvalidCiphertextException") => denied(
            "AWS KMS does not unwrap this: the wrapped bytes or the encryption context are not what was wrapped".to_owned(),
        ),
        (_, "IncorrectKeyException") => denied(
            "another key than this KEK wrapped the data key; if the KEK is an alias, it was moved: move it back, or name \
             keys by their key ARN"
                .to_owned(),
        ),
        (Op::Decrypt | Op::ReEncrypt, "ValidationException") => {
            denied("AWS KMS does not take the wrapped bytes for something that it wrapped".to_owned())
        }
        (
            Op::GetKeyRotationStatus
            | Op::GetParametersForImport
            | Op::ImportKeyMaterial
            | Op::DeleteImportedKeyMaterial,
            "UnsupportedOperationException",
        ) => {
            invalid("the KEK's origin does not allow that".to_owned())
        }
        (_, "InvalidKeyUsageException" | "UnsupportedOperationException") => {
            denied("the KEK cannot wrap data keys; name a symmetric key with the usage ENCRYPT_DECRYPT".to_owned())
        }
        (_, "InvalidArnException" | "ValidationException") => {
            invalid(format!("AWS KMS does not accept the request ({}); check the KEK's ARN", printable(code, 64)))
        }
        (_, "LimitExceededException") => {
            Failure::for_good(Error::limit("the account has reached a resource quota of AWS KMS; raise it"))
        }
        (_, "UnknownOperationException") => {
            Failure::for_good(Error::new(ErrorKind::Unavailable, "the endpoint does not know this operation"))
        }
        (
            _,
            "KMSInternalException" | "DependencyTimeoutException" | "KeyUnavailableException" | "InternalFailure"
            | "InternalServerError" | "InternalError" | "ServiceUnavailable" | "ServiceUnavailableException",
        ) => down(&format!("it answered {code}; retry")),
        // Not known to be a denial, so cached keys stay; not known to pass, so it is not tried again.
        (_, code) => {
            let what = format!("AWS KMS refused the call with {}", printable(code, 64));
            Failure::for_good(Error::new(ErrorKind::Unavailable, what))
        }
    }
}

/// AWS's code for a key whose state, or whose key store, does not allow a call: a tenant's decision and an external key store's
/// timeout alike.
const INVALID_STATE: &str = "KMSInvalidStateException";

/// Whether only `DescribeKey` can tell what the failure means.
pub(crate) fn is_about_state(error: &Error) -> bool {
    let answer = StdError::source(error).and_then(|source| source.downcast_ref::<AwsAnswer>());
    answer.is_some_and(|answer| answer.code == INVALID_STATE)
}

/// What a call that AWS refused because of the key's state means, by the state that `DescribeKey` then gave.
pub(crate) fn by_state(refused: Error, state: &str) -> Error {
    let (kind, why) = match state {
        "Disabled" => (ErrorKind::Denied, "the KEK is disabled; its owner can enable it (kms:EnableKey)"),
        "PendingDeletion" | "PendingReplicaDeletion" => (ErrorKind::Denied, DELETED),
        "PendingImport" => (ErrorKind::Denied, NO_MATERIAL),
        "Unavailable" => (
            ErrorKind::Denied,
            "the KEK's custom key store is disconnected; its owner can connect it (kms:ConnectCustomKeyStore)",
        ),
        "Creating" | "Updating" => (ErrorKind::Unavailable, "AWS KMS is not available: the KEK is in passing; retry"),
        // Nobody decided against us: a key store outside AWS did not answer, or not in time.
        "Enabled" => (
            ErrorKind::Unavailable,
            "AWS KMS is not available: the KEK is enabled, but its key store did not do what was asked; retry, and check the \
             external key store",
        ),
        _ => return refused,
    };
    refused.told_as(kind, why)
}

const DELETED: &str =
    "the KEK is scheduled for deletion; its owner can cancel that (kms:CancelKeyDeletion) and enable the key";
const NO_MATERIAL: &str =
    "the KEK has no key material: it expired, was deleted, or never came; import the same material (again)";

/// The same where `DescribeKey` gave no state: by AWS's sentence, where that leaves no doubt. What is not known to be a denial is none.
fn by_sentence(message: &str) -> Failure {
    let lower = message.to_ascii_lowercase();
    let is = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if is(&["pending deletion", "pendingdeletion", "pending replica deletion", "pendingreplicadeletion"]) {
        return Failure::for_good(Error::new(ErrorKind::Denied, DELETED));
    }
    if is(&["pending import", "pendingimport"]) {
        return Failure::for_good(Error::new(ErrorKind::Denied, NO_MATERIAL));
    }
    let why = format!(
        "AWS KMS is not available: the KEK's state, or its key store, does not allow this at present; AWS says: {}",
        printable(message, 200)
    );
    Failure::for_good(Error::new(ErrorKind::Unavailable, why))
}

fn our_credentials(code: &str) -> Failure {
    let why = format!(
        "AWS does not accept this process's own credentials ({}); renew them, and check the clock",
        printable(code, 64)
    );
    // An expired session is fetched anew by the next attempt.
    let passes = code.starts_with("ExpiredToken");
    Failure { error: Error::new(ErrorKind::Unavailable, why), passes }
}

fn is_throttling(code: &str) -> bool {
    matches!(
        code,
        "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "BandwidthLimitExceeded"
            | "SlowDown"
    )
}

fn is_about_credentials(code: &str) -> bool {
    matches!(
        code,
        "ExpiredToken"
            | "ExpiredTokenException"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "InvalidAccessKeyId"
            | "RequestExpired"
            | "RequestTimeTooSkewed"
            | "OptInRequired"
    )
}

/// At most `most` characters of what somebody else wrote, without anything that could break a log line.
fn printable(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_only_a_real_kms_gives() {
        use ErrorKind::{Denied, InvalidArgument, Limit, Throttled, Unavailable};
        for (operation, code, message, kind, passes, says) in [
            (Operation::Decrypt, "ThrottlingException", "Rate exceeded", Throttled, true, "slow down"),
            (Operation::Decrypt, "KMSInternalException", "", Unavailable, true, "KMSInternalException"),
            (Operation::Decrypt, "DependencyTimeoutException", "", Unavailable, true, "retry"),
            (Operation::Decrypt, "KeyUnavailableException", "", Unavailable, true, "retry"),
            (Operation::Decrypt, "AccessDeniedException", "no policy", Denied, false, "kms:Decrypt"),
            (Operation::ReEncrypt, "AccessDeniedException", "", Denied, false, "kms:ReEncryptTo"),
            (Operation::Encrypt, "DisabledException", "", Denied, false, "kms:EnableKey"),
            (
                Operation::Decrypt,
                "KMSInvalidStateException",
                "x is pending deletion.",
                Denied,
                false,
                "CancelKeyDeletion",
            ),
            (Operation::Decrypt, "KMSInvalidStateException", "x is pending import.", Denied, false, "key material"),
            (
                Operation::Decrypt,
                "KMSInvalidStateException",
                "The external key store did not respond in time",
                Unavailable,
                false,
                "in time",
            ),
            (Operation::Decrypt, "KMSInvalidStateException", "else", Unavailable, false, "else"),
            (Operation::Decrypt, "NotFoundException", "", Denied, false, "ARN"),
            (Operation::Decrypt, "IncorrectKeyException", "", Denied, false, "alias"),
            (Operation::Decrypt, "InvalidCiphertextException", "", Denied, false, "encryption context"),
            (Operation::Encrypt, "InvalidKeyUsageException", "", Denied, false, "ENCRYPT_DECRYPT"),
            (Operation::Decrypt, "ExpiredTokenException", "", Unavailable, true, "credentials"),
            (Operation::Decrypt, "UnrecognizedClientException", "", Unavailable, false, "credentials"),
            (Operation::Decrypt, "InvalidSignatureException", "", Unavailable, false, "clock"),
            (Operation::ImportKeyMaterial, "InvalidCiphertextException", "", InvalidArgument, false, "public key"),
            (Operation::ImportKeyMaterial, "ExpiredImportTokenException", "", InvalidArgument, false, "24 hours"),
            (Operation::ImportKeyMaterial, "IncorrectKeyMaterialException", "", InvalidArgument, false, "same bytes"),
            (Operation::CreateKey, "LimitExceededException", "", Limit, false, "quota"),
            (Operation::Decrypt, "SomethingNew", "", Unavailable, false, "SomethingNew"),
        ] {
            let failure = by_code(operation, code, message);
            assert_eq!((failure.error.kind(), failure.passes), (kind, passes), "{operation:?} {code} {message}");
            assert!(failure.error.to_string().contains(says), "{}", failure.error);
        }
    }

    /// Denied or down is decided by the state, whatever the sentence says.
    #[test]
    fn a_state_decides_what_a_sentence_cannot() {
        use ErrorKind::{Denied, Unavailable};
        for (state, kind) in [
            ("Enabled", Unavailable),
            ("Creating", Unavailable),
            ("Updating", Unavailable),
            ("Disabled", Denied),
            ("PendingDeletion", Denied),
            ("PendingReplicaDeletion", Denied),
            ("PendingImport", Denied),
            ("Unavailable", Denied),
            ("SomethingNew", Unavailable),
        ] {
            for message in ["it is unavailable", "did not respond in time", "is disconnected"] {
                let answer = AwsAnswer { operation: Operation::Decrypt, code: INVALID_STATE.into(), request_id: None };
                let refused = by_code(Operation::Decrypt, INVALID_STATE, message).error.with_source(answer);
                assert!(is_about_state(&refused));
                let told = by_state(refused, state);
                assert_eq!(told.kind(), kind, "{state} {message}");
                assert!(is_about_state(&told), "what AWS answered is told too");
            }
        }
        assert!(!is_about_state(&by_code(Operation::Decrypt, "DisabledException", "").error));
    }

    #[test]
    fn what_aws_says_is_cut_and_printable() {
        assert_eq!(printable("a\nb\u{1b}[31m", 5), "a?b?[");
    }
}
