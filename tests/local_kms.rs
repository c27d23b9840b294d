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
    let kms = LocalKms::create(&path).unwrap();
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
    let kms = LocalKms::create(&path).unwrap();
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
    let kms = LocalKms::create(&link).unwrap();
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
            r#"{{"format":1,"keks":[{{"name":"a","region":"eu","enabled":true,"newest":1,"versions":[{{"version":1,"key":"{key}"}}]}}]}}"#
        )
    };
    let good = base16(&raw());
    for bad in [
        kek(""),
        kek("00"),
        kek(&"00".repeat(32)),
        kek(&"zz".repeat(32)),
        kek(&good).replace(r#"[{"version""#, r#"[],"x":[{"version""#),
        r#"{"format":1,"keks":[{"name":"a","region":"eu","enabled":true,"newest":1,"versions":[]}]}"#.to_owned(),
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
    let kms = LocalKms::create(&path).unwrap();
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
    LocalKms::create(&path).unwrap();
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

fn kek_file(json: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    fs::write(&path, json).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    (folder, path)
}

/// `openssl rand -hex 16` has 32 characters and half the bits.
#[tokio::test]
async fn thirty_two_characters_of_text_are_no_kek() {
    let kms = LocalKms::in_memory();
    for text in ["0123456789abcdef0123456789ABCDEF", "the same thirty-two bytes always"] {
        let mut raw = text.as_bytes().to_vec();
        let refused = kms.import_kek("weak", region(), &mut raw).expect_err("taken for a key");
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        assert!(refused.to_string().contains("text") && raw == [0; 32], "{refused}");
        let mut raw = text.as_bytes().to_vec();
        assert!(kms.add_raw_kek("weak", region(), &mut raw).await.is_err() && raw == [0; 32]);
    }
    // A file that has one is read: whoever relies on it could otherwise not even rewrap.
    let key = base16(b"0123456789abcdef0123456789abcdef");
    let (_folder, path) = kek_file(&format!(
        r#"{{"format":1,"keks":[{{"name":"a","region":"eu","enabled":true,"newest":1,"versions":[{{"version":1,"key":"{key}"}}]}}]}}"#
    ));
    assert!(LocalKms::open(&path).is_ok());
}

/// FORMAT.md, "The KEK file": no more and no less.
#[test]
fn the_kek_file_is_read_as_it_is_specified() {
    let key = base16(&raw());
    let version = format!(r#"{{"version":1,"key":"{key}"}}"#);
    let kek = format!(r#"{{"name":"a","region":"eu","enabled":true,"newest":1,"versions":[{version}]}}"#);
    let file = format!(r#"{{"format":1,"keks":[{kek}]}}"#);
    let long = "n".repeat(65);
    let import = |id: &str| format!(r#"{{"id":"{id}","name":"b","region":"eu","expires_at":1,"private_key":"00"}}"#);
    let imports = |n: usize| (0..n).map(|n| import(&format!("{n:064x}"))).collect::<Vec<_>>().join(",");
    let with_imports = |imports: &str| format!(r#"{{"format":2,"keks":[{kek}],"imports":[{imports}]}}"#);
    let with_destroyed = |destroyed: &str| format!(r#"{{"format":1,"keks":[{kek}],"destroyed":[{destroyed}]}}"#);
    let good = [
        file.clone(),
        with_destroyed(""),
        with_destroyed(r#"{"name":"b","newest":4294967295},{"name":"c","newest":1}"#),
    ];
    let good = good.into_iter().chain([with_imports(""), with_imports(&imports(1)), with_imports(&imports(64))]);
    for good in good {
        let (_folder, path) = kek_file(&good);
        assert!(LocalKms::open(&path).is_ok(), "refused {good}: {}", LocalKms::open(&path).err().unwrap());
    }
    let bad = [
        // An array for an object, at each place.
        format!("[1,null,[{kek}],[]]"),
        file.replace(&kek, &format!(r#"["a","eu",true,1,[{version}]]"#)),
        file.replace(&version, &format!(r#"[1,"{key}",null]"#)),
        with_imports(&format!(r#"["{:064x}","b","eu",1,"00",null,null]"#, 1)),
        file.replace(r#""version":1"#, r#""version":0"#),
        file.replace(r#""name":"a""#, &format!(r#""name":"{long}""#)),
        file.replace(r#""name":"a""#, r#""name":"""#),
        file.replace(r#""name":"a""#, r#""name":"a/b""#),
        // What is not there is left out.
        file.replace(r#""format":1"#, r#""format":1,"root":null"#),
        file.replace(r#""version":1"#, r#""version":1,"wrapped":null"#),
        with_imports("").replace(r#""format":2"#, r#""format":1"#),
        with_imports(&imports(65)),
        with_imports(&import("not the digest of a token")),
        with_imports(&import(&"0".repeat(64)).replace(r#""name":"b""#, &format!(r#""name":"{long}""#))),
        file.replace(r#""enabled":true"#, r#""enabled":true,"enabled":true"#),
        file.replace(r#""newest":1,"#, ""),
        file.replace(r#""version":1"#, r#""version":2"#),
        with_destroyed(r#"{"name":"a","newest":1}"#),
        with_destroyed(r#"{"name":"b","newest":1},{"name":"b","newest":2}"#),
        with_destroyed(r#"{"name":"b","newest":0}"#),
        with_destroyed(r#"{"name":"b"}"#),
        with_destroyed(r#"{"name":"b/c","newest":1}"#),
        with_destroyed(r#"["b",1]"#),
        file.replace(r#""format":1"#, r#""format":1,"destroyed":null"#),
    ];
    for bad in bad {
        let (_folder, path) = kek_file(&bad);
        let refused = LocalKms::open(&path).err().unwrap_or_else(|| panic!("accepted {bad}"));
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{bad}");
        assert!(!refused.to_string().contains("update strongroom"), "{bad}: {refused}");
    }
    let (_folder, path) = kek_file(&file.replace(r#""format":1"#, r#""format":3"#));
    assert!(LocalKms::open(&path).err().unwrap().to_string().contains("update strongroom"));
}

/// Another process makes a KEK, a version, or disables one: no call of `reload` is needed, or a rewrap would deny a tenant.
#[tokio::test]
async fn what_another_process_does_to_the_file_counts_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let ours = LocalKms::create(&path).unwrap();
    let theirs = LocalKms::open(&path).unwrap();
    let room = room(ours.clone()).open_under(&Operator::default()).await;
    let admin = room.admin("a test", "to test").unwrap();
    for round in 1..4 {
        let name = format!("kek-{round}");
        let kek = theirs.create_kek(&name, region()).unwrap();
        let policy = TenantPolicy::new(kek.clone(), region()).scope_by(["channel"]).allow_unbound_messages();
        admin.enroll(&name, policy).await.expect("a KEK of another process is denied");
        let tenant = room.tenant(&name).await.unwrap();
        let seal = async |channel: &str| tenant.scope([("channel", channel)]).unwrap().seal(&[], b"x").await;
        seal("1").await.unwrap();
        theirs.rotate_kek(&name).unwrap();
        assert_eq!(ours.describe(&kek).await.unwrap().version, "2", "wraps under an older version");
        seal("2").await.unwrap();
        theirs.disable_kek(&name).unwrap();
        let made = seal("3").await.map_err(|e| e.kind());
        assert_eq!(made, Err(ErrorKind::Denied), "a key was made under a KEK that is disabled");
        theirs.enable_kek(&name).unwrap();
        seal("4").await.unwrap();
    }
    // A file that does not read denies no tenant that was served.
    fs::write(&path, "half a fi").unwrap();
    let tenant = room.tenant("kek-1").await.unwrap();
    tenant.scope([("channel", "5")]).unwrap().seal(&[], b"x").await.unwrap();
    // But of a KEK that was not in hand nobody says that it is not there.
    let unknown = ours.describe(&KekUri::new("local:later").unwrap()).await.unwrap_err();
    assert_ne!(unknown.kind(), ErrorKind::Denied, "{unknown}");
}

/// A path that is mistyped, or a volume that is not mounted, is not a KMS without KEKs.
#[test]
fn a_file_that_is_missing_is_not_made_by_opening_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let refused = LocalKms::open(&path).err().expect("made anew");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("create it, or restore it"), "{refused}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "something was made");
    // Of several that make it, one does, and the others open it.
    let kinds: Vec<_> = std::thread::scope(|s| {
        let making: Vec<_> = (0..4).map(|_| s.spawn(|| LocalKms::create(&path).err().map(|e| e.kind()))).collect();
        making.into_iter().map(|made| made.join().unwrap()).collect()
    });
    assert_eq!(kinds.iter().filter(|kind| kind.is_none()).count(), 1, "{kinds:?}");
    assert!(kinds.iter().flatten().all(|kind| *kind == ErrorKind::Conflict), "{kinds:?}");
    LocalKms::open(&path).unwrap().create_kek("acme", region()).unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(LocalKms::create(&path).err().map(|e| e.kind()), Some(ErrorKind::Conflict));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn what_is_destroyed_is_gone_and_its_number_is_not_given_out_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let kms = LocalKms::create(&path).unwrap();
    let kek = kms.create_kek("acme", region()).unwrap();
    let room = room(kms.clone()).open_under(&Operator::default()).await;
    let admin = room.admin("a test", "to test").unwrap();
    let policy = TenantPolicy::new(kek.clone(), region()).scope_by(["channel"]).allow_unbound_messages();
    admin.enroll("acme", policy).await.unwrap();
    let scope = room.tenant("acme").await.unwrap().scope([("channel", "1")]).unwrap();
    let sealed = scope.seal(&[], b"x").await.unwrap();
    assert_eq!(kms.destroy_version("acme", 1).unwrap_err().kind(), ErrorKind::InvalidArgument, "the newest");
    kms.rotate_kek("acme").unwrap();
    let refused = [kms.destroy_version("acme", 3), kms.destroy_version("nobody", 1), kms.destroy_kek("nobody")];
    assert_eq!(refused.map(|r| r.unwrap_err().kind()), [ErrorKind::Denied; 3]);
    kms.destroy_version("acme", 1).unwrap();
    admin.purge("acme").unwrap();
    assert_eq!(scope.open(&[], &sealed).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(kms.rotate_kek("acme").unwrap(), 3);
    // What is left is read again by whoever opens the file.
    let again = LocalKms::open(&path).unwrap();
    assert_eq!(again.describe(&kek).await.unwrap().version, "3");
    assert_eq!(kms.destroy_kek("acme").unwrap_err().kind(), ErrorKind::InvalidArgument, "it is enabled");
    kms.disable_kek("acme").unwrap();
    kms.destroy_kek("acme").unwrap();
    assert_eq!(again.describe(&kek).await.unwrap_err().kind(), ErrorKind::Denied);
    // Who makes one of that name goes on counting, here and wherever the file is opened.
    assert!(fs::read_to_string(&path).unwrap().contains(r#""destroyed""#));
    drop(again);
    let again = LocalKms::open(&path).unwrap();
    assert_eq!(again.import_kek("acme", region(), &mut raw()).unwrap(), kek);
    assert_eq!(again.describe(&kek).await.unwrap().version, "4");
    assert_eq!(kms.rotate_kek("acme").unwrap(), 5);
    kms.disable_kek("acme").unwrap();
    kms.destroy_kek("acme").unwrap();
    again.add_kek("acme", region()).await.unwrap();
    assert_eq!(kms.describe(&kek).await.unwrap().version, "6");
}

/// A file without its newest version would wrap under the one before, and hand the number out again: two keys of one number.
#[tokio::test]
async fn a_file_that_lacks_its_newest_version_is_refused_and_no_number_is_given_out_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let kms = LocalKms::create(&path).unwrap();
    let kek = kms.create_kek("acme", region()).unwrap();
    kms.create_kek("globex", region()).unwrap();
    let older = fs::read(&path).unwrap();
    assert_eq!(kms.rotate_kek("acme").unwrap(), 2);
    let whole = fs::read_to_string(&path).unwrap();
    let refusals = |refused: strongroom::Error| {
        assert_eq!(refused.kind(), ErrorKind::RolledBack, "{refused}");
        assert_eq!(refused.kek(), Some(kek.as_str()));
        let said = refused.to_string();
        assert!(said.contains("version 2") && said.contains("Restore the newest copy"), "{said}");
    };
    // Cut out by an editor or a merge.
    let mut cut: serde_json::Value = serde_json::from_str(&whole).unwrap();
    let versions = cut["keks"][0]["versions"].as_array_mut().unwrap();
    assert_eq!(versions.pop().unwrap()["version"], 2);
    fs::write(&path, cut.to_string()).unwrap();
    refusals(LocalKms::open(&path).err().expect("opened"));
    refusals(kms.rotate_kek("acme").unwrap_err());
    refusals(kms.disable_kek("globex").unwrap_err());
    refusals(kms.reload().unwrap_err());
    // An older copy is whole in itself: who has a newer version in hand takes it for what it is.
    fs::write(&path, &older).unwrap();
    refusals(kms.rotate_kek("acme").unwrap_err());
    refusals(kms.create_kek("new", region()).unwrap_err());
    refusals(kms.reload().unwrap_err());
    assert_eq!(kms.describe(&kek).await.unwrap().version, "2", "it goes on with what it has in hand");
    fs::write(&path, &whole).unwrap();
    assert_eq!(kms.rotate_kek("acme").unwrap(), 3);
}

/// What may be in the file is not denied: a denial would drop what is in hand.
#[tokio::test]
async fn while_this_process_waits_to_change_the_file_nobody_is_denied_what_may_be_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let ours = LocalKms::create(&path).unwrap();
    // Another process changes the file, under the lock.
    let lock = fs::File::options().write(true).open(folder.path().join("keks.json.lock")).unwrap();
    lock.lock().unwrap();
    let waiting = std::thread::spawn({
        let ours = ours.clone();
        move || ours.create_kek("late", region())
    });
    let mut waited_for = None;
    for n in 0..10_000 {
        let theirs = folder.path().join("theirs.json");
        let kek = LocalKms::create(&theirs).unwrap().create_kek(&format!("kek-{n}"), region()).unwrap();
        fs::rename(theirs, &path).unwrap();
        // Until it waits, the file is read.
        let described = tokio::time::timeout(std::time::Duration::from_millis(200), ours.describe(&kek)).await;
        let Ok(described) = described else {
            waited_for = Some(kek);
            break;
        };
        described.expect("denied");
    }
    let kek = waited_for.expect("it does not wait");
    drop(lock);
    let late = waiting.join().unwrap().unwrap();
    assert!(ours.describe(&late).await.is_ok() && ours.describe(&kek).await.is_ok());
}
