//! The crate's one error type.
//!
//! An [`Error`] says *what happened* ([`ErrorKind`] and a sentence), *doing what* ([`Error::operation`]), *to whom*
//! (tenant, KEK, region) and *what to do*. It never carries key bytes or plaintext. After parsing, everything that keeps
//! an envelope from opening is the one kind [`ErrorKind::Unopenable`] with one fixed sentence: which check failed is not
//! told, so that nobody can use the answer as an oracle.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What happened, in one word that programs can match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The KMS refused: no permission, or the KEK is disabled, pending deletion or gone. Cached keys under it are dropped. When the load
    /// of a key has failed three times in a row (this way, as `Unavailable`, `Throttled` or `KeyMismatch`), its failure answers for a
    /// second, or until something is decided about the tenant.
    Denied,
    /// The KMS or the key store did not answer in time or failed. Retry.
    Unavailable,
    /// The KMS or the key store asks us to slow down. Retry later.
    Throttled,
    /// This process has more to do than its key store and the tenant's KMS are asked for at once: a call was not served within two
    /// minutes, in which it waited in this process's own queue. Neither of them is to blame. Retry later, or share the load.
    Overloaded,
    /// The region is not served by this process, or not allowed for the tenant.
    Region,
    /// The tenant revoked the key, the scope or everything. It can be restored.
    Revoked,
    /// The data key was erased (state Destroyed). It cannot be restored.
    Erased,
    /// No such tenant is enrolled.
    UnknownTenant,
    /// The bytes do not parse as what they should be.
    Malformed,
    /// The envelope does not open here: other tenant, scope, context or key, or altered bytes. Deliberately one kind.
    Unopenable,
    /// A documented limit was exceeded.
    Limit,
    /// The row exists already, or somebody else changed it meanwhile. Read it again; the same call would fail again.
    Conflict,
    /// The KMS or the store returned a key that is not the one asked for. Nothing was opened with it.
    KeyMismatch,
    /// A synchronous handle has no key in hand. Await its `refresh` (to seal) or its `prepare` with the envelope (to open, also under
    /// an older key) and retry.
    NotLoaded,
    /// The key store, or the file of a local KMS or root, is older than what was seen of it: it was restored from a copy, or cut.
    /// Nothing of it is used.
    RolledBack,
    /// A stored row is not authentic: somebody else than this fleet wrote it, or it was moved. Nothing of it is used.
    Tampered,
    /// The key store contradicts what is known of it: a key that this process has in hand is hidden, or rows are there without the row
    /// that they belong to. Nothing is sealed or begun anew.
    StoreInconsistent,
    /// The key store cannot go on before somebody acts: its disk is full or fails, it is corrupt, or it is set up wrongly (its
    /// path, login, permissions or TLS). The sentence says which. Not an outage that passes by itself.
    StoreFault,
    /// Opening is suspended for a while (incident mode); sealing goes on. Retry when the suspension has ended.
    Suspended,
    /// The caller's argument or configuration is wrong.
    InvalidArgument,
    /// Reading or writing a file failed, or there is no room for it; the source says which. A target that is a path is as it was,
    /// unless the sentence says that it was replaced and is not durable yet; a writer keeps what it was given: a file that is cut
    /// short, and is refused as such.
    Io,
    /// The caller cancelled a long operation. A target that is a path is as it was; a writer keeps what it was given: a file that is
    /// cut short, and is refused as such.
    Cancelled,
}

impl ErrorKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Overloaded => "overloaded",
            Self::Region => "region",
            Self::Revoked => "revoked",
            Self::Erased => "erased",
            Self::UnknownTenant => "unknown tenant",
            Self::Malformed => "malformed",
            Self::Unopenable => "unopenable",
            Self::Limit => "limit",
            Self::Conflict => "conflict",
            Self::KeyMismatch => "key mismatch",
            Self::NotLoaded => "not loaded",
            Self::RolledBack => "rolled back",
            Self::Tampered => "tampered",
            Self::StoreInconsistent => "store inconsistent",
            Self::StoreFault => "store fault",
            Self::Suspended => "suspended",
            Self::InvalidArgument => "invalid argument",
            Self::Io => "input or output",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an operation failed. Cheap to clone: callers that share one key load share its failure.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    message: Cow<'static, str>,
    tenant: Option<String>,
    kek: Option<String>,
    region: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    /// Why something does not open, where known: for the operator's log alone.
    reason: &'static str,
}

impl Error {
    /// An error of `kind` with a sentence that says what happened and what to do. Implementers of `Kms` and `KeyStore`
    /// build theirs with this; the sentence must not contain key bytes or plaintext.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            operation: "",
            message: message.into(),
            tenant: None,
            kek: None,
            region: None,
            source: None,
            reason: "",
        }))
    }

    /// The one error of an envelope that does not open.
    #[cold]
    pub(crate) fn unopenable() -> Self {
        Self::new(ErrorKind::Unopenable, "the envelope does not open under this tenant, scope and context")
    }

    /// The one error of a file that does not open.
    #[cold]
    pub(crate) fn unopenable_file() -> Self {
        Self::new(ErrorKind::Unopenable, "the file does not open under this tenant, scope and context")
    }

    /// Says why, for the operator's log: neither `Display` nor `Debug` show it, and no caller can ask for it.
    #[cold]
    pub(crate) fn because(self, reason: &'static str) -> Self {
        self.edit(|e| e.reason = reason)
    }

    /// What [`Self::because`] said; empty if nothing was.
    pub(crate) fn reason(&self) -> &'static str {
        self.0.reason
    }

    #[cold]
    pub(crate) fn malformed(message: &'static str) -> Self {
        Self::new(ErrorKind::Malformed, message)
    }

    #[cold]
    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    #[cold]
    pub(crate) fn limit(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Limit, message)
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Names the operation that failed, unless a lower floor already did.
    pub fn with_operation(self, operation: &'static str) -> Self {
        if self.0.operation.is_empty() { self.edit(|e| e.operation = operation) } else { self }
    }

    /// Names the tenant, unless already named.
    pub fn with_tenant(self, tenant: &str) -> Self {
        if self.0.tenant.is_some() {
            return self;
        }
        self.edit(|e| e.tenant = Some(tenant.to_owned()))
    }

    /// Names the KEK by its URI, or several by their expression, unless already named.
    pub fn with_kek(self, kek: &str) -> Self {
        if self.0.kek.is_some() {
            return self;
        }
        self.edit(|e| e.kek = Some(kek.to_owned()))
    }

    /// Names the region, unless already named.
    pub fn with_region(self, region: &str) -> Self {
        if self.0.region.is_some() {
            return self;
        }
        self.edit(|e| e.region = Some(region.to_owned()))
    }

    /// Attaches the underlying error.
    pub fn with_source(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.edit(|e| e.source = Some(Arc::new(source)))
    }

    /// The same failure, of another kind and in other words.
    #[cfg(feature = "aws-kms")]
    pub(crate) fn told_as(self, kind: ErrorKind, message: &'static str) -> Self {
        self.edit(|e| (e.kind, e.message) = (kind, message.into()))
    }

    /// What happened.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed, such as `seal` or `unwrap`; empty if not known.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The tenant concerned, where known.
    pub fn tenant(&self) -> Option<&str> {
        self.0.tenant.as_deref()
    }

    /// The URI of the KEK concerned, where known; the expression, where several gave a key together.
    pub fn kek(&self) -> Option<&str> {
        self.0.kek.as_deref()
    }

    /// The region concerned, where known.
    pub fn region(&self) -> Option<&str> {
        self.0.region.as_deref()
    }

    /// Whether the same call may succeed later with nothing done by the caller but waiting. Not after `Conflict` (read again first)
    /// nor `NotLoaded` (load the key first).
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Unavailable | ErrorKind::Throttled | ErrorKind::Overloaded | ErrorKind::Suspended
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        if !e.operation.is_empty() {
            write!(f, "{}: ", e.operation)?;
        }
        write!(f, "{}: {}", e.kind, e.message)?;
        let named = [("tenant", &e.tenant), ("KEK", &e.kek), ("region", &e.region)];
        let mut open = " (";
        for (what, name) in named {
            if let Some(name) = name {
                write!(f, "{open}{what} {name}")?;
                open = ", ";
            }
        }
        if open == ", " {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("operation", &self.0.operation)
            .field("message", &self.0.message)
            .field("tenant", &self.0.tenant)
            .field("kek", &self.0.kek)
            .field("region", &self.0.region)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_whom_it_concerns_and_what_to_do() {
        let e = Error::new(ErrorKind::Denied, "the KEK is disabled; enable it")
            .with_operation("unwrap")
            .with_tenant("acme")
            .with_kek("local:acme")
            .with_region("eu");
        assert_eq!(
            e.to_string(),
            "unwrap: denied: the KEK is disabled; enable it (tenant acme, KEK local:acme, region eu)"
        );
        assert!(!e.is_retryable());
        assert!(Error::new(ErrorKind::Unavailable, "x").is_retryable());
        for kind in [ErrorKind::Conflict, ErrorKind::NotLoaded] {
            assert!(!Error::new(kind, "x").is_retryable(), "{kind}: something has to be done first");
        }
        assert!(!Error::new(ErrorKind::StoreFault, "x").is_retryable());
        assert_eq!(Error::new(ErrorKind::Limit, "x").to_string(), "limit: x");
    }

    #[test]
    fn why_something_does_not_open_is_shown_to_nobody() {
        let [told, plain] = [Error::unopenable().because("the tag is wrong"), Error::unopenable()];
        assert_eq!(told.reason(), "the tag is wrong");
        assert_eq!((told.to_string(), format!("{told:?}")), (plain.to_string(), format!("{plain:?}")));
    }
}
