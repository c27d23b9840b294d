//! The operator's local root: its file, its versions, what it refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use strongroom::testing::encryption_context;
use strongroom::{DataKey, Error, ErrorKind, Kms, LocalRoot, Root};

fn refused<T>(result: Result<T, Error>) -> Error {
    result.err().expect("refused")
}

async fn wrap(root: &LocalRoot, key: &DataKey) -> Vec<u8> {
    root.wrap(&root.kek(), &encryption_context("acme", "eu"), key).await.unwrap()
}

async fn unwraps(root: &LocalRoot, wrapped: &[u8], key: &DataKey) -> bool {
    let unwrapped = root.unwrap(&root.kek(), &encryption_context("acme", "eu"), wrapped).await;
    unwrapped.is_ok_and(|unwrapped| unwrapped.ct_eq(key))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn it_is_created_once_and_never_by_opening_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.json");
    assert_eq!(refused(LocalRoot::open(&path)).kind(), ErrorKind::InvalidArgument);
    assert!(names(folder.path()).is_empty(), "opening left {:?}", names(folder.path()));
    let root = LocalRoot::create(&path).unwrap();
    assert_eq!(root.kek().as_str(), "local-root:root");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&path).unwrap();
    assert_eq!(refused(LocalRoot::create(&path)).kind(), ErrorKind::Conflict);
    assert!(fs::read(&path).unwrap() == before);
    for open in [0o640, 0o604, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
        let e = refused(LocalRoot::open(&path));
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
        assert!(e.to_string().contains("chmod 600"), "{e}");
    }
}

#[tokio::test]
async fn what_older_versions_wrapped_still_unwraps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.json");
    let key = DataKey::random().unwrap();
    for root in [LocalRoot::in_memory().unwrap(), LocalRoot::create(&path).unwrap()] {
        let old = wrap(&root, &key).await;
        assert_eq!(root.rotate().unwrap(), 2);
        assert_eq!(root.describe(&root.kek()).await.unwrap().version, "2");
        assert!(root.describe(&root.kek()).await.unwrap().symmetric);
        let new = wrap(&root, &key).await;
        // Which version wrapped stands in the wrapping.
        assert_eq!((&old[1..5], &new[1..5]), (&[0, 0, 0, 1][..], &[0, 0, 0, 2][..]));
        assert!(unwraps(&root, &old, &key).await && unwraps(&root, &new, &key).await);
        assert!(unwraps(&root.clone(), &new, &key).await);
        // One version is not another, and another root is none of them.
        let mut moved = new.clone();
        moved[4] = 1;
        assert!(!unwraps(&root, &moved, &key).await);
        moved[4] = 3;
        let e = root.unwrap(&root.kek(), &encryption_context("acme", "eu"), &moved).await.err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Denied, "a version that is nowhere");
        assert!(!unwraps(&LocalRoot::in_memory().unwrap(), &old, &key).await);
    }
    // A fresh start has all versions.
    let again = LocalRoot::open(&path).unwrap();
    assert_eq!(again.describe(&again.kek()).await.unwrap().version, "2");
}

#[tokio::test]
async fn another_process_meets_a_new_version_and_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.json");
    let (one, two) = (LocalRoot::create(&path).unwrap(), LocalRoot::open(&path).unwrap());
    let key = DataKey::random().unwrap();
    // Both rotate from what is in the file, not from what they have in hand.
    assert_eq!((one.rotate().unwrap(), two.rotate().unwrap(), one.rotate().unwrap()), (2, 3, 4));
    let newest = wrap(&one, &key).await;
    assert_eq!(two.describe(&two.kek()).await.unwrap().version, "3");
    assert!(unwraps(&two, &newest, &key).await);
    assert_eq!(two.describe(&two.kek()).await.unwrap().version, "4");
    // With the file gone, what is in hand still works.
    fs::remove_file(&path).unwrap();
    assert!(unwraps(&two, &newest, &key).await);
    assert_eq!(refused(one.rotate()).kind(), ErrorKind::InvalidArgument);
}

#[test]
fn handles_that_rotate_at_once_lose_no_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.json");
    drop(LocalRoot::create(&path).unwrap());
    let mut versions = std::thread::scope(|s| {
        let rotating: Vec<_> = (0..4)
            .map(|_| {
                let root = LocalRoot::open(&path).unwrap();
                s.spawn(move || (0..10).map(|_| root.rotate().unwrap()).collect::<Vec<_>>())
            })
            .collect();
        rotating.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    versions.sort_unstable();
    assert_eq!(versions, (2..=41).collect::<Vec<_>>());
}

#[test]
fn only_the_one_spelling_is_a_roots_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.json");
    LocalRoot::create(&path).unwrap().rotate().unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let keys: Vec<_> = good.split('"').filter(|text| text.len() == 64).collect();
    let [first, second] = keys[..] else { panic!("{} keys", keys.len()) };
    let expected = format!(
        r#"{{"format":1,"newest":2,"versions":[{{"version":1,"key":"{first}"}},{{"version":2,"key":"{second}"}}]}}"#
    );
    assert!(good == format!("{expected}\n"), "FORMAT.md says otherwise");
    for bad in [
        String::new(),
        "{}\n".to_owned(),
        expected.clone(),
        good.clone() + "\n",
        good.replacen(':', ": ", 1),
        good.replace("\"format\":1", "\"format\":2"),
        good.replace("\"format\":1", "\"format\":1,\"format\":1"),
        good.replace("\"format\":1", "\"format\":1,\"root\":null"),
        good.replace("\"format\":1,", ""),
        good.replace("\"newest\":2,", ""),
        good.replace("\"newest\":2", "\"newest\":1"),
        good.replace("\"version\":1,", "\"version\":1,\"enabled\":true,"),
        good.replace("\"version\":1,", "\"version\":1,\"version\":1,"),
        good.replace("\"version\":2", "\"version\":1"),
        good.replace("\"version\":1", "\"version\":0"),
        good.replace("\"version\":1", "\"version\":3"),
        good.replace("\"version\":1", "\"version\":01"),
        good.replace("\"version\":1", "\"version\":4294967297"),
        format!("{{\"format\":1,\"newest\":2,\"versions\":[[1,\"{first}\"],[2,\"{second}\"]]}}\n"),
        format!("[1,1,[[1,\"{first}\"]]]\n"),
        "{\"format\":1,\"newest\":1,\"versions\":[]}\n".to_owned(),
        good.replace(first, &first.to_uppercase()),
        good.replace(first, &first[..62]),
        good.replace(first, &format!("{first}00")),
        good.replace(first, &"00".repeat(32)),
        good.replace(first, &"ff".repeat(32)),
        good.replace("versions", "keks"),
        good.replace("\"key\"", "\"\\u006bey\""),
    ] {
        assert!(bad != good);
        fs::write(&path, &bad).unwrap();
        let e = refused(LocalRoot::open(&path));
        assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
        let said = format!("{e} {e:?}");
        assert!(!said.contains(first) && !said.contains(second), "the error shows a key");
    }
    fs::write(&path, &good).unwrap();
    let root = LocalRoot::open(&path).unwrap();
    let said = format!("{root:?} {:?}", Root::from(root.clone()));
    assert!(!said.contains(first) && !said.contains(second) && said.contains("local-root:root"), "{said}");
}

#[test]
fn what_is_damaged_is_not_rotated_and_a_failed_rotation_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.json");
    let root = LocalRoot::create(&path).unwrap();
    let good = fs::read(&path).unwrap();
    fs::write(&path, "damaged").unwrap();
    assert_eq!(refused(root.rotate()).kind(), ErrorKind::Malformed);
    assert_eq!(fs::read_to_string(&path).unwrap(), "damaged");
    fs::write(&path, &good).unwrap();
    fs::create_dir(folder.path().join("root.json.new")).unwrap(); // in the new file's place
    assert!(root.rotate().is_err());
    assert!(fs::read(&path).unwrap() == good);
    fs::remove_dir(folder.path().join("root.json.new")).unwrap();
    assert_eq!(root.rotate().unwrap(), 2);
}

#[test]
fn a_roots_file_that_lacks_its_newest_version_is_refused_and_no_number_is_given_out_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.json");
    let root = LocalRoot::create(&path).unwrap();
    let older = fs::read_to_string(&path).unwrap();
    assert_eq!(root.rotate().unwrap(), 2);
    let whole = fs::read_to_string(&path).unwrap();
    let cut = older.replace("\"newest\":1", "\"newest\":2");
    assert!(cut != older);
    let refusal = |e: Error| {
        assert_eq!((e.kind(), e.kek()), (ErrorKind::RolledBack, Some("local-root:root")), "{e}");
        assert!(e.to_string().contains("version 2") && e.to_string().contains("Restore the newest copy"), "{e}");
    };
    fs::write(&path, &cut).unwrap();
    refusal(refused(LocalRoot::open(&path)));
    refusal(refused(root.rotate()));
    // An older copy is whole in itself: who has a newer version in hand takes it for what it is.
    fs::write(&path, &older).unwrap();
    refusal(refused(root.rotate()));
    assert_eq!(fs::read_to_string(&path).unwrap(), older);
    fs::write(&path, &whole).unwrap();
    assert_eq!(root.rotate().unwrap(), 3);
}
