//! The local KMS beyond the contract: its file, its versions, what it refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use strongroom::testing::Operator;
use strongroom::{
    ErrorKind, KekUri, Kms, LocalKms, MemoryKeyStore, Region, Strongroom, StrongroomBuilder, TenantPolicy,
};

fn region() -> Region {
    Region::new("eu-central-1").unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn raw() -> [u8; 32] {
    std::array::from_fn(|i| u8::try_from(i).unwrap())
}

fn room(kms: LocalKms) -> StrongroomBuilder {
    Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms)
}

#[test]
fn the_file_is_private_and_refused_if_others_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let kms = LocalKms::open(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    kms.create_kek("acme", region()).unwrap();
    assert_eq!(mode(&path), 0o600);
    for open in [0o640, 0o604, 0o644, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
        let refused = LocalKms::open(&path).err().expect("refused");
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(LocalKms::open(&path).is_ok());
}

#[test]
fn a_file_that_others_left_in_the_way_is_not_written_into() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let kms = LocalKms::open(&path).unwrap();
    let in_the_way = folder.path().join("keks.json.new");
    fs::write(&in_the_way, "mine").unwrap();
    fs::set_permissions(&in_the_way, fs::Permissions::from_mode(0o666)).unwrap();
    kms.create_kek("acme", region()).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert!(!in_the_way.exists());
}

/// In a container, `/etc/…/keks.json` is a link to the volume: to replace the link would lose the KEKs with the container.
#[test]
fn a_file_behind_a_link_stays_behind_it() {
    let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (link, file) = (image.path().join("keks.json"), volume.path().join("keks.json"));
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let kms = LocalKms::open(&link).unwrap();
    let kek = kms.create_kek("acme", region()).unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink(), "the link was replaced");
    assert_eq!(mode(&file), 0o600);
    // The container is gone, the volume is not.
    let restarted = LocalKms::open(&file).unwrap();
    assert!(tokio::runtime::Runtime::new().unwrap().block_on(restarted.describe(&kek)).is_ok());
}

#[test]
fn a_pipe_is_no_kek_file() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("keks.json");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || say.send(LocalKms::open(&pipe).err().map(|e| e.kind())).unwrap());
    let refused = said.recv_timeout(std::time::Duration::from_secs(10)).expect("it waits for the pipe's other end");
    assert_eq!(refused, Some(ErrorKind::InvalidArgument));
}

#[test]
fn weak_keys_are_refused_wiped_and_there_is_no_default() {
    let kms = LocalKms::in_memory();
    for mut weak in [vec![], vec![1; 16], raw()[..31].to_vec(), [&raw()[..], &[7]].concat(), vec![0; 32], vec![255; 32]]
    {
        let refused = kms.import_kek("weak", region(), &mut weak).expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        assert!(weak.iter().all(|b| *b == 0), "not wiped");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let kek = |key: &str| {
        format!(
            r#"{{"format":1,"keks":[{{"name":"a","region":"eu","enabled":true,"versions":[{{"version":1,"key":"{key}"}}]}}]}}"#
        )
    };
    let good = base16(&raw());
    for bad in [
        kek(""),
        kek("00"),
        kek(&"00".repeat(32)),
        kek(&"zz".repeat(32)),
        kek(&good).replace(r#"[{"version""#, r#"[],"x":[{"version""#),
        r#"{"format":1,"keks":[{"name":"a","region":"eu","enabled":true,"versions":[]}]}"#.to_owned(),
        kek(&good).replace("\"format\":1", "\"format\":2"),
        String::new(),
        "not json".to_owned(),
    ] {
        fs::write(&path, &bad).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let refused = LocalKms::open(&path).err().unwrap_or_else(|| panic!("accepted {bad}"));
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{bad}");
        assert!(!format!("{refused} {refused:?}").contains(&good), "the error shows the key");
    }
    fs::write(&path, kek(&good)).unwrap();
    assert!(LocalKms::open(&path).is_ok());
}

fn base16(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

#[test]
fn a_kek_that_exists_is_not_overwritten() {
    let kms = LocalKms::in_memory();
    kms.create_kek("acme", region()).unwrap();
    assert_eq!(kms.create_kek("acme", region()).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(kms.import_kek("acme", region(), &mut raw()).unwrap_err().kind(), ErrorKind::Conflict);
    for name in ["", "a/b", "a b", "é", &"x".repeat(65)] {
        assert_eq!(kms.create_kek(name, region()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(kms.rotate_kek("nobody").unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn older_versions_still_unwrap_and_a_disabled_kek_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let kms = LocalKms::open(&path).unwrap();
    let kek = kms.create_kek("acme", region()).unwrap();
    let room = room(kms.clone()).open_under(&Operator::default()).await;
    room.admin("a test", "to test")
        .unwrap()
        .enroll("acme", TenantPolicy::new(kek.clone(), region()).allow_unbound_messages())
        .await
        .unwrap();
    let scope = room.tenant("acme").await.unwrap().scope([]).unwrap();
    let old = scope.seal(&[], b"old").await.unwrap();
    assert_eq!(kms.rotate_kek("acme").unwrap(), 2);
    assert_eq!(kms.describe(&kek).await.unwrap().version, "2");
    room.admin("a test", "to test").unwrap().rotate("acme", &[]).await.unwrap();
    let new = scope.seal(&[], b"new").await.unwrap();

    // Another handle of the file sees all that was changed, and so does a fresh start.
    let again = LocalKms::open(&path).unwrap();
    kms.disable_kek("acme").unwrap();
    assert!(again.describe(&kek).await.unwrap().enabled);
    again.reload().unwrap();
    assert!(!again.describe(&kek).await.unwrap().enabled);

    room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    for sealed in [&old, &new] {
        let refused = scope.open(&[], sealed).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
        assert_eq!((refused.tenant(), refused.kek()), (Some("acme"), Some("local:acme")));
        assert!(refused.to_string().contains("enable"), "{refused}");
    }
    kms.enable_kek("acme").unwrap();
    assert_eq!(&*scope.open(&[], &old).await.unwrap(), b"old");
    assert_eq!(&*scope.open(&[], &new).await.unwrap(), b"new");
}

#[test]
fn two_processes_worth_of_handles_do_not_lose_each_others_keks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let handles: Vec<_> = (0..4).map(|_| LocalKms::open(&path).unwrap()).collect();
    std::thread::scope(|s| {
        for (i, kms) in handles.iter().enumerate() {
            s.spawn(move || {
                for n in 0..10 {
                    kms.create_kek(&format!("kek-{i}-{n}"), region()).unwrap();
                }
            });
        }
    });
    let all = LocalKms::open(&path).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for i in 0..4 {
        for n in 0..10 {
            let kek = KekUri::new(&format!("local:kek-{i}-{n}")).unwrap();
            assert!(runtime.block_on(all.describe(&kek)).is_ok(), "{kek} was lost");
        }
    }
}
