//! Marks in an object store, one small object each, written on condition.

use std::fmt::{self, Write};

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion};
use tokio::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result};
use crate::watermark::text::{self, Marks};
use crate::watermark::{Mark, Subject, Watermark};

/// An object larger than this is no mark.
const MAX_OBJECT: u64 = 1024;
/// Written on conditions that hold or do not, to see what the store makes of them.
const CONDITIONS: &str = "conditions";

/// A [`Watermark`] in a bucket, for the nodes of a fleet: an object a subject, under a prefix.
///
/// The store has to write on condition (`If-None-Match`, `If-Match`), as S3, Google Cloud Storage and Azure Blob Storage do; a file
/// system does not. The first advance writes one object more, `PREFIX/conditions`, and refuses a store that ignores conditions.
/// A prefix serves one room. Give it a bucket, or at least credentials, that whoever writes the key store has not.
///
/// ```
/// use strongroom::ObjectWatermark;
///
/// let bucket = object_store::memory::InMemory::new(); // in production: `object_store::aws::AmazonS3Builder`, for one
/// let watermark = ObjectWatermark::new(bucket, "strongroom/chat-eu")?;
/// # let _ = watermark;
/// # Ok::<(), strongroom::Error>(())
/// ```
pub struct ObjectWatermark {
    store: Box<dyn ObjectStore>,
    prefix: Path,
    /// Filled once the store was seen to write on condition.
    conditional: OnceCell<()>,
}

/// A mark as an object has it.
struct Found {
    mark: Mark,
    version: UpdateVersion,
}

impl ObjectWatermark {
    /// The marks under `prefix` in `store`. Nothing is asked yet.
    ///
    /// # Errors
    /// `InvalidArgument` if `prefix` is no path of an object store, such as `a//b` or `..`.
    pub fn new(store: impl ObjectStore, prefix: &str) -> Result<Self> {
        let prefix = Path::parse(prefix)
            .map_err(|e| Error::invalid("the watermark's prefix is no path of an object store").with_source(e))?;
        Ok(Self { store: Box::new(store), prefix, conditional: OnceCell::new() })
    }

    fn path(&self, subject: &Subject) -> Path {
        let prefix = self.prefix.clone();
        match subject {
            Subject::Room => prefix.join("room"),
            Subject::Fleet => prefix.join("fleet"),
            Subject::Tenant(tenant) => prefix.join("tenants").join(escaped(tenant.as_str())),
            Subject::Log => prefix.join("log"),
        }
    }

    async fn get(&self, subject: &Subject, at: &Path) -> Result<Option<Found>> {
        let malformed = |why: &str| Error::new(ErrorKind::Malformed, format!("the object {at} is not a mark: {why}"));
        let object = match self.store.get(at).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(failed("read", at, e)),
        };
        if object.meta.size > MAX_OBJECT {
            return Err(malformed("it is too large"));
        }
        let version = UpdateVersion { e_tag: object.meta.e_tag.clone(), version: object.meta.version.clone() };
        let bytes = object.bytes().await.map_err(|e| failed("read", at, e))?;
        let marks = text::decode(&bytes).map_err(|why| malformed(&why))?;
        // The name in it too, so that an object copied to another place is noticed.
        let mark = marks.get(subject).copied().filter(|_| marks.len() == 1);
        let mark = mark.ok_or_else(|| malformed("it does not hold the one mark that its name says"))?;
        Ok(Some(Found { mark, version }))
    }

    async fn put(&self, at: &Path, text: String, mode: PutMode) -> Result<(), StoreError> {
        self.store.put_opts(at, PutPayload::from(text), mode.into()).await.map(drop)
    }

    /// Where conditions are ignored, two control planes would write over each other's marks and not know it.
    async fn check_conditions(&self) -> Result<()> {
        let at = self.prefix.clone().join(CONDITIONS);
        let write = |mode| self.put(&at, "strongroom saw this store write on condition\n".to_owned(), mode);
        let unmet = |written| match written {
            Ok(()) => Err(Error::invalid(
                "the object store ignores conditions on writes: a watermark in it could be written over unnoticed",
            )),
            Err(e) if is_unmet(&e) || matches!(e, StoreError::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed("write", &at, e)),
        };
        // No version of an object has these names.
        let never = UpdateVersion { e_tag: Some("\"strongroom\"".to_owned()), version: Some("1".to_owned()) };
        unmet(write(PutMode::Update(never)).await)?;
        match write(PutMode::Create).await {
            Ok(()) => unmet(write(PutMode::Create).await),
            unwritten => unmet(unwritten),
        }
    }
}

/// A path segment for a tenant: letters, digits and `-` stand for themselves, all else is `_` and two hexadecimal digits. So no two
/// tenants share an object, none is `.` or `..`, and nothing on the way decodes it once more.
fn escaped(tenant: &str) -> String {
    let mut segment = String::with_capacity(tenant.len());
    for byte in tenant.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' => segment.push(char::from(byte)),
            _ => {
                let _ = write!(segment, "_{byte:02X}"); // a string takes everything
            }
        }
    }
    segment
}

/// Whether the store did not write because the condition does not hold.
fn is_unmet(e: &StoreError) -> bool {
    matches!(e, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. })
}

fn failed(verb: &str, at: &Path, e: StoreError) -> Error {
    let (kind, why) = match &e {
        StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
            (ErrorKind::InvalidArgument, "it does not write on condition; name one that does, such as S3")
        }
        StoreError::PermissionDenied { .. } => (ErrorKind::InvalidArgument, "its permissions forbid that"),
        StoreError::UnknownConfigurationKey { .. } | StoreError::InvalidPath { .. } => {
            (ErrorKind::InvalidArgument, "it is not configured for that")
        }
        _ => (ErrorKind::Unavailable, "no answer that says what is there"),
    };
    Error::new(kind, format!("the object store did not {verb} {at}: {why}")).with_source(e)
}

impl fmt::Debug for ObjectWatermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The store's own Debug may show credentials.
        f.debug_struct("ObjectWatermark").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[async_trait]
impl Watermark for ObjectWatermark {
    async fn read(&self, subject: &Subject) -> Result<Option<Mark>> {
        Ok(self.get(subject, &self.path(subject)).await?.map(|found| found.mark))
    }

    async fn advance(&self, subject: &Subject, from: Option<&Mark>, to: &Mark) -> Result<bool> {
        self.conditional.get_or_try_init(|| self.check_conditions()).await?;
        let at = self.path(subject);
        let mode = match (self.get(subject, &at).await?, from) {
            (Some(found), _) if found.mark == *to => return Ok(true),
            (Some(found), Some(from)) if found.mark == *from => PutMode::Update(found.version),
            (None, None) => PutMode::Create,
            _ => return Ok(false),
        };
        let text = text::encode(&Marks::from([(subject.clone(), *to)]));
        let Err(e) = self.put(&at, text, mode).await else { return Ok(true) };
        // The answer may be lost and the object written, also where a client that repeats requests by itself says that it is
        // not: the object tells.
        match self.get(subject, &at).await {
            Ok(Some(now)) if now.mark == *to => Ok(true),
            Ok(now) if is_unmet(&e) && now.as_ref().map(|found| &found.mark) != from => Ok(false),
            // As it was, or somebody went on from it: nobody can say yet, a request under way may still arrive.
            _ => Err(failed("write", &at, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::id::TenantId;

    #[test]
    fn each_subject_has_an_object_of_its_own_with_a_plain_name() {
        let watermark = ObjectWatermark::new(object_store::memory::InMemory::new(), "rooms/chat-eu/").unwrap();
        for (tenant, name) in [
            ("Acme-1", "Acme-1"),
            (".", "_2E"),
            ("..", "_2E_2E"),
            ("a:b", "a_3Ab"),
            ("a_3Ab", "a_5F3Ab"),
            ("a@b_c.d", "a_40b_5Fc_2Ed"),
        ] {
            let path = watermark.path(&Subject::Tenant(TenantId::new(tenant).unwrap()));
            assert_eq!(path.as_ref(), format!("rooms/chat-eu/tenants/{name}"));
        }
        let [room, fleet, log] = [Subject::Room, Subject::Fleet, Subject::Log].map(|s| watermark.path(&s).to_string());
        assert_eq!([room, fleet, log], ["rooms/chat-eu/room", "rooms/chat-eu/fleet", "rooms/chat-eu/log"]);
        for bad in ["a//b", "..", "a/./b", "a\0b"] {
            let refused = ObjectWatermark::new(object_store::memory::InMemory::new(), bad).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
        let root = ObjectWatermark::new(object_store::memory::InMemory::new(), "").unwrap();
        assert_eq!(root.path(&Subject::Room).as_ref(), "room");
    }
}
