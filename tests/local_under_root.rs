//! The local KMS under a root KEK: what rests in the file, what is refused, and how a file comes under a root.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use strongroom::testing::{Fault, FaultyKms, encryption_context};
use strongroom::{
    DataKey, EncryptionContext, Error, ErrorKind, GeneratedKey, KekDescription, KekUri, Kms, LocalKms, Region,
};

fn region() -> Region {
    Region::new("eu-central-1").unwrap()
}

/// A folder with a KEK file, and the operator's KMS.
struct Place {
    folder: tempfile::TempDir,
    operator: FaultyKms,
    keys: LocalKms,
    root: KekUri,
}

impl Place {
    fn new() -> Self {
        let keys = LocalKms::in_memory();
        let root = keys.create_kek("root", region()).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), operator: FaultyKms::new(keys.clone()), keys, root }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("keks.json")
    }

    fn kms(&self) -> Arc<dyn Kms> {
        Arc::new(self.operator.clone())
    }

    /// What is there, or a new one.
    async fn open(&self) -> Result<LocalKms, Error> {
        match LocalKms::create_under(self.path(), self.kms(), self.root.clone()).await {
            Err(e) if e.kind() == ErrorKind::Conflict => {
                LocalKms::open_under(self.path(), self.kms(), self.root.clone()).await
            }
            created => created,
        }
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }
}

async fn made(kms: &LocalKms, kek: &KekUri) -> GeneratedKey {
    kms.generate(kek, &encryption_context("acme", "eu-central-1")).await.unwrap()
}

async fn unwraps(kms: &LocalKms, kek: &KekUri, made: &GeneratedKey) -> bool {
    let context = encryption_context("acme", "eu-central-1");
    kms.unwrap(kek, &context, &made.wrapped).await.is_ok_and(|key| key.ct_eq(&made.data_key))
}

fn refusal<T>(result: Result<T, Error>) -> Error {
    result.err().expect("refused")
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_file_holds_wrapped_keys_alone() {
    let place = Place::new();
    let kms = place.open().await.unwrap();
    let raw: [u8; 32] = std::array::from_fn(|i| u8::try_from(7 * i % 251).unwrap());
    let acme = kms.add_raw_kek("acme", region(), &mut raw.clone()).await.unwrap();
    let other = kms.add_kek("other", region()).await.unwrap();
    assert_eq!(kms.add_version("other").await.unwrap(), 2);
    let keys = [made(&kms, &acme).await, made(&kms, &other).await];
    let text = place.text();
    assert!(!text.contains(r#""key":"#) && !text.contains(&base16ct::lower::encode_string(&raw)), "{text}");
    assert_eq!(text.matches(r#""wrapped":"#).count(), 3);
    assert!(text.contains(r#""root": "local:root""#), "{text}");
    #[cfg(unix)]
    assert_eq!(mode(&place.path()), 0o600);

    // A fresh start asks the root once for each version, and nothing later on.
    let before = place.operator.unwraps();
    let again = place.open().await.unwrap();
    assert_eq!(place.operator.unwraps() - before, 3);
    place.operator.set(Fault::Fails(ErrorKind::Unavailable));
    assert!(unwraps(&again, &acme, &keys[0]).await && unwraps(&again, &other, &keys[1]).await);
    again.disable_kek("acme").unwrap();
    assert!(!unwraps(&again, &acme, &keys[0]).await);
    again.enable_kek("acme").unwrap();
    assert!(unwraps(&again, &acme, &keys[0]).await);
}

#[tokio::test]
async fn a_root_that_refuses_or_lies_is_named_and_nothing_is_written() {
    let place = Place::new();
    let kms = place.open().await.unwrap();
    kms.add_kek("acme", region()).await.unwrap();
    let before = place.text();
    let refused = |e: Error, kind, says: &str| {
        assert_eq!((e.kind(), e.kek()), (kind, Some("local:root")), "{e}");
        assert!(e.to_string().contains(says), "{e}");
    };
    for (fault, kind) in [
        (Fault::Fails(ErrorKind::Denied), ErrorKind::Denied),
        (Fault::Fails(ErrorKind::Unavailable), ErrorKind::Unavailable),
        (Fault::Fails(ErrorKind::Throttled), ErrorKind::Throttled),
        (Fault::WrongKey, ErrorKind::KeyMismatch),
        (Fault::EmptyWrapping, ErrorKind::Denied),
    ] {
        place.operator.set(fault);
        refused(refusal(kms.add_kek("new", region()).await), kind, "version 1 of local:new");
        refused(refusal(kms.add_version("acme").await), kind, "version 2 of local:acme");
        assert_eq!(place.text(), before, "{fault:?}");
    }
    place.operator.set(Fault::None);
    place.keys.disable_kek("root").unwrap();
    refused(
        refusal(place.open().await),
        ErrorKind::Denied,
        "did not unwrap version 1 of local:acme; it must be enabled",
    );
    place.keys.enable_kek("root").unwrap();
    assert!(place.open().await.is_ok());

    let gone = LocalKms::in_memory();
    let opened = LocalKms::open_under(place.path(), Arc::new(gone.clone()), place.root.clone()).await;
    assert_eq!(refusal(opened).kind(), ErrorKind::Denied);
    let fresh = place.folder.path().join("fresh.json");
    let opened = LocalKms::create_under(&fresh, Arc::new(gone.clone()), place.root.clone()).await;
    assert_eq!(refusal(opened).kind(), ErrorKind::Denied, "a root KEK that is not there, with nothing to unwrap");
    let elsewhere = KekUri::new("aws-kms:alias/root").unwrap();
    assert_eq!(
        refusal(LocalKms::create_under(&fresh, Arc::new(gone), elsewhere).await).kind(),
        ErrorKind::InvalidArgument
    );
}

#[tokio::test]
async fn a_wrapped_key_serves_no_other_name_version_or_region() {
    let place = Place::new();
    let kms = place.open().await.unwrap();
    kms.add_kek("acme", region()).await.unwrap();
    kms.add_kek("globex", Region::new("us-east-1").unwrap()).await.unwrap();
    let good = place.text();
    for (from, to) in [
        ("\"name\": \"acme\"", "\"name\": \"acmf\""),
        ("\"region\": \"eu-central-1\"", "\"region\": \"us-east-1\""),
        ("\"version\": 1", "\"version\": 2"),
    ] {
        assert!(good.contains(from));
        // The newest one is the one that is there.
        let newest = if from.contains("version") { "\"newest\": 2" } else { "\"newest\": 1" };
        fs::write(place.path(), good.replacen(from, to, 1).replacen("\"newest\": 1", newest, 1)).unwrap();
        assert_eq!(refusal(place.open().await).kind(), ErrorKind::Denied, "{from} to {to}");
    }
    // Two tenants' keys swapped.
    let wrapped: Vec<_> = good.split('"').filter(|text| text.len() == 154).collect();
    let [one, two] = wrapped[..] else { panic!("{} wrapped keys in {good}", wrapped.len()) };
    fs::write(place.path(), good.replace(one, "#").replace(two, one).replace('#', two)).unwrap();
    assert_eq!(refusal(place.open().await).kind(), ErrorKind::Denied);
    // A bare key slipped in, and the root taken out.
    let slipped = good.replacen(&format!(r#""wrapped": "{one}""#), &format!(r#""key": "{}""#, "01".repeat(32)), 1);
    let unrooted = good.replacen(r#""root": "local:root","#, "", 1);
    for text in [slipped, unrooted] {
        assert_ne!(text, good);
        fs::write(place.path(), text).unwrap();
        assert_eq!(refusal(place.open().await).kind(), ErrorKind::InvalidArgument);
    }
    fs::write(place.path(), &good).unwrap();
    assert!(place.open().await.is_ok());
}

/// Keeps what it is told with each wrap and unwrap.
struct Trail(LocalKms, Mutex<Vec<String>>);

impl Trail {
    fn note(&self, call: &str, context: &EncryptionContext) {
        self.1.lock().unwrap().push(format!("{call} {context:?}"));
    }
}

#[async_trait::async_trait]
impl Kms for Trail {
    fn scheme(&self) -> &str {
        self.0.scheme()
    }
    async fn describe(&self, kek: &KekUri) -> Result<KekDescription, Error> {
        self.0.describe(kek).await
    }
    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, key: &DataKey) -> Result<Vec<u8>, Error> {
        self.note("wrap", context);
        self.0.wrap(kek, context, key).await
    }
    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey, Error> {
        self.note("unwrap", context);
        self.0.unwrap(kek, context, wrapped).await
    }
}

#[tokio::test]
async fn the_roots_own_trail_names_each_kek() {
    let place = Place::new();
    let trail = Arc::new(Trail(place.keys.clone(), Mutex::default()));
    let root: Arc<dyn Kms> = trail.clone();
    let kms = LocalKms::create_under(place.path(), root, place.root.clone()).await.unwrap();
    kms.add_kek("acme", region()).await.unwrap();
    kms.add_version("acme").await.unwrap();
    let told = |version| {
        format!(r#"{{"kek": "acme", "purpose": "local-kek", "region": "eu-central-1", "version": "{version}"}}"#)
    };
    let expected = [("wrap", 1), ("unwrap", 1), ("wrap", 2), ("unwrap", 2)];
    let expected = expected.map(|(call, version)| format!("{call} {}", told(version)));
    assert_eq!(*trail.1.lock().unwrap(), expected);
}

#[tokio::test]
async fn what_needs_the_root_says_so() {
    let place = Place::new();
    let kms = place.open().await.unwrap();
    kms.add_kek("acme", region()).await.unwrap();
    for (refused, instead) in [
        (refusal(kms.create_kek("new", region())), "add_kek"),
        (refusal(kms.import_kek("new", region(), &mut [1, 2])), "32 bytes"),
        (
            refusal(kms.import_kek(
                "new",
                region(),
                &mut std::array::from_fn::<u8, 32, _>(|i| u8::try_from(i).unwrap()),
            )),
            "add_raw_kek",
        ),
        (refusal(kms.rotate_kek("acme")), "add_version"),
        (refusal(LocalKms::open(place.path())), "open_under"),
    ] {
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        assert!(refused.to_string().contains(instead), "{refused}");
    }
    assert_eq!(refusal(kms.add_kek("acme", region()).await).kind(), ErrorKind::Conflict);
    assert_eq!(refusal(kms.add_version("nobody").await).kind(), ErrorKind::Denied);
    assert_eq!(refusal(kms.add_raw_kek("weak", region(), &mut [9; 32]).await).kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn another_process_is_seen_and_its_keys_are_unwrapped_when_they_are_needed() {
    let place = Place::new();
    let (one, two) = (place.open().await.unwrap(), place.open().await.unwrap());
    let kek = one.add_kek("acme", region()).await.unwrap();
    let key = made(&one, &kek).await;
    // While the root's KMS is down nobody says that the key is not there.
    place.operator.set(Fault::Fails(ErrorKind::Unavailable));
    let context = encryption_context("acme", "eu-central-1");
    assert_eq!(refusal(two.unwrap(&kek, &context, &key.wrapped).await).kind(), ErrorKind::Unavailable);
    assert!(two.describe(&kek).await.unwrap().enabled, "what the file says needs no root");
    place.operator.set(Fault::None);
    two.refresh().await.unwrap();
    assert!(unwraps(&two, &kek, &key).await);
    let another = one.add_kek("globex", region()).await.unwrap();
    let others = made(&one, &another).await;
    assert!(unwraps(&two, &another, &others).await, "not seen without a refresh");
    one.disable_kek("globex").unwrap();
    assert!(!unwraps(&two, &another, &others).await, "used after another process disabled it");
    // A new version that cannot be unwrapped stops nobody from wrapping.
    one.add_version("acme").await.unwrap();
    place.operator.set(Fault::Fails(ErrorKind::Unavailable));
    let meanwhile = made(&two, &kek).await;
    assert_eq!(meanwhile.wrapped[1..5], [0, 0, 0, 1]);
    place.operator.set(Fault::None);
    let place = Place::new();
    let (one, two) = (place.open().await.unwrap(), place.open().await.unwrap());
    let kek = one.add_kek("acme", region()).await.unwrap();
    let key = made(&one, &kek).await;
    // Both rotate from what is in the file, not from what they have in hand.
    assert_eq!((one.add_version("acme").await.unwrap(), two.add_version("acme").await.unwrap()), (2, 3));
    let newest = made(&two, &kek).await;
    one.refresh().await.unwrap();
    assert!(unwraps(&one, &kek, &newest).await && unwraps(&one, &kek, &key).await);
    assert_eq!(one.describe(&kek).await.unwrap().version, "3");
}

#[tokio::test]
async fn a_bare_file_is_adopted_and_moves_to_another_root() {
    let place = Place::new();
    let bare = LocalKms::create(place.path()).unwrap();
    let kek = bare.create_kek("acme", region()).unwrap();
    bare.rotate_kek("acme").unwrap();
    bare.create_kek("off", region()).unwrap();
    bare.disable_kek("off").unwrap();
    let key = made(&bare, &kek).await;
    assert!(refusal(place.open().await).to_string().contains("adopt_root"));

    // Refused by the root: the file is as it was.
    let before = place.text();
    place.operator.set(Fault::Fails(ErrorKind::Denied));
    assert_eq!(refusal(bare.adopt_root(place.kms(), place.root.clone()).await).kind(), ErrorKind::Denied);
    assert_eq!(place.text(), before);
    place.operator.set(Fault::None);

    let rooted = bare.adopt_root(place.kms(), place.root.clone()).await.unwrap();
    assert!(!place.text().contains(r#""key":"#));
    for kms in [&rooted, &place.open().await.unwrap(), &bare] {
        assert!(unwraps(kms, &kek, &key).await);
    }
    // The bare handle would write bare keys: it changes nothing any more.
    assert!(refusal(bare.create_kek("new", region())).to_string().contains("open_under"));
    assert!(!rooted.describe(&KekUri::new("local:off").unwrap()).await.unwrap().enabled);
    assert_eq!(rooted.add_version("acme").await.unwrap(), 3);

    // To another root: the first can go. A handle that does not have every version in hand moves them all the same.
    let late = place.open().await.unwrap();
    rooted.add_version("acme").await.unwrap();
    let newest = made(&rooted, &kek).await;
    let second = LocalKms::in_memory();
    let second_root = second.create_kek("root-2027", region()).unwrap();
    let moved = late.adopt_root(Arc::new(second.clone()), second_root.clone()).await.unwrap();
    place.keys.disable_kek("root").unwrap();
    let opened = LocalKms::open_under(place.path(), Arc::new(second), second_root).await.unwrap();
    for kms in [&moved, &opened] {
        assert!(unwraps(kms, &kek, &key).await && unwraps(kms, &kek, &newest).await);
    }
    assert!(refusal(place.open().await).to_string().contains("another root"));
    assert!(refusal(rooted.add_kek("new", region()).await).to_string().contains("another root"));

    let memory = LocalKms::in_memory();
    let refused = refusal(memory.adopt_root(place.kms(), place.root.clone()).await);
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn an_empty_bare_file_is_taken_under_the_root() {
    let place = Place::new();
    drop(LocalKms::create(place.path()).unwrap());
    place.open().await.unwrap().add_kek("acme", region()).await.unwrap();
    assert!(place.text().contains(r#""wrapped":"#));
}

/// The numbers of a destroyed KEK's versions are used up under a root KEK as well, and a move to another root keeps that.
#[tokio::test]
async fn a_destroyed_keks_numbers_are_not_given_out_again_under_a_root() {
    let place = Place::new();
    let kms = place.open().await.unwrap();
    let kek = kms.add_kek("acme", region()).await.unwrap();
    assert_eq!(kms.add_version("acme").await.unwrap(), 2);
    kms.disable_kek("acme").unwrap();
    kms.destroy_kek("acme").unwrap();
    let other = LocalKms::in_memory();
    let other_root = other.create_kek("other-root", region()).unwrap();
    let moved = kms.adopt_root(Arc::new(other), other_root).await.unwrap();
    moved.add_kek("acme", region()).await.unwrap();
    assert_eq!(moved.describe(&kek).await.unwrap().version, "3");
    assert_eq!(moved.add_version("acme").await.unwrap(), 4);
    // A file that lacks version 4 is refused, wrapped or not.
    let mut cut: serde_json::Value = serde_json::from_str(&place.text()).unwrap();
    cut["keks"][0]["versions"].as_array_mut().unwrap().pop();
    std::fs::write(place.path(), cut.to_string()).unwrap();
    let e = refusal(moved.add_version("acme").await);
    assert_eq!((e.kind(), e.kek()), (ErrorKind::RolledBack, Some("local:acme")), "{e}");
}
