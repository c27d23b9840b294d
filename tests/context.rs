//! The context cannot be left out: what a policy binds messages and files to is asked for at every call site, on sealing and on
//! opening, with the key in hand and without.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use strongroom::testing::{ManualClock, Operator};
use strongroom::{
    Error, ErrorKind, Field, FileHead, FileOptions, Header, KekUri, LocalKms, MemoryKeyStore, PageRow, Period, Region,
    ScopeHandle, Strongroom, TenantPolicy,
};

/// 2026-11-22T05:17:29.5Z
const NOW: i64 = 1_795_324_649_500;
const HOUR: Duration = Duration::from_secs(3600);
const BOUND: Duration = Duration::from_secs(5);
const EU: &str = "eu-central-1";
const TEXT: &[u8] = b"see you at noon";

const M1: &[Field<'static>] = &[("message", "M1")];
const M2: &[Field<'static>] = &[("message", "M2")];
const F1: &[Field<'static>] = &[("file", "F1")];
const F2: &[Field<'static>] = &[("file", "F2")];

/// A tenant `acme` scoped by channel, and two nodes.
struct Fleet {
    node: Strongroom,
    other: Strongroom,
    clock: ManualClock,
    kek: KekUri,
}

impl Fleet {
    async fn with(edit: impl FnOnce(TenantPolicy) -> TenantPolicy) -> Self {
        let (kms, store) = (LocalKms::in_memory(), Arc::new(MemoryKeyStore::default()));
        let (clock, operator) = (ManualClock::at(NOW), Operator::default());
        let node = async || {
            let builder = Strongroom::builder().serving([EU]).key_store(Arc::clone(&store)).kms(kms.clone());
            builder.clock(clock.clone()).revocation_bound(BOUND).open_under(&operator).await
        };
        let (node, other) = (node().await, node().await);
        let kek = kms.create_kek("acme", Region::new(EU).unwrap()).unwrap();
        let fleet = Self { node, other, clock, kek };
        let policy = edit(fleet.policy());
        fleet.node.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
        fleet
    }

    fn policy(&self) -> TenantPolicy {
        TenantPolicy::new(self.kek.clone(), Region::new(EU).unwrap()).scope_by(["channel"])
    }

    /// Decided on one node; time passes until the other has heard, or knows that it has not.
    async fn decide(&self, edit: impl FnOnce(TenantPolicy) -> TenantPolicy) {
        let admin = self.node.admin("a test", "to test").unwrap();
        let row = admin.tenant("acme").await.unwrap();
        admin.set_policy(&row, edit(self.policy())).await.unwrap();
        self.clock.advance(BOUND);
    }

    async fn channel(&self) -> ScopeHandle {
        channel(&self.node).await
    }

    fn purge(&self) {
        for node in [&self.node, &self.other] {
            node.admin("a test", "to test").unwrap().purge("acme").unwrap();
        }
    }

    /// Both nodes' handles, with keys in hand as they are, and then with none.
    async fn warm_and_cold(&self, check: impl AsyncFn(ScopeHandle, &str)) {
        for state in ["warm", "cold"] {
            for node in [&self.node, &self.other] {
                if state == "cold" {
                    self.purge();
                }
                check(channel(node).await, state).await;
            }
        }
    }
}

async fn channel(node: &Strongroom) -> ScopeHandle {
    node.tenant("acme").await.unwrap().scope([("channel", "C9")]).unwrap()
}

/// How a call ended: in an error of this kind, or well.
type Ended = Option<ErrorKind>;

const WELL: Ended = None;
const REFUSED: Ended = Some(ErrorKind::InvalidArgument);
const UNOPENABLE: Ended = Some(ErrorKind::Unopenable);

fn ended<T>(result: Result<T, Error>) -> Ended {
    result.err().map(|e| e.kind())
}

/// How sealing a message with this context ends: in every way alike, and where it is refused nothing is written.
async fn seal(scope: &ScopeHandle, context: &[Field<'_>]) -> Ended {
    let sealed = ended(scope.seal(context, TEXT).await);
    let mut out = b"before".to_vec();
    assert_eq!(ended(scope.seal_into(context, TEXT, &mut out).await), sealed);
    let hot = scope.hot().await.unwrap();
    assert_eq!(ended(hot.seal(context, TEXT)), sealed);
    assert_eq!(ended(hot.seal_into(context, TEXT, &mut out)), sealed);
    assert!(sealed.is_none() || out == b"before");
    sealed
}

/// How opening a message with this context ends: in every way alike.
async fn open(scope: &ScopeHandle, context: &[Field<'_>], envelope: &[u8]) -> Ended {
    let opened = ended(scope.open(context, envelope).await.inspect(|text| assert_eq!(**text, *TEXT)));
    assert_eq!(ended(scope.open_in_place(context, &mut envelope.to_vec()).await), opened);
    let rows = [PageRow { context, envelope }, PageRow { context: M1, envelope: b"no envelope" }];
    let mut page = scope.open_page(&rows).await;
    assert_eq!([page.pop().map(ended), page.pop().map(ended)], [Some(Some(ErrorKind::Malformed)), Some(opened)]);
    let hot = scope.hot().await.unwrap();
    hot.prepare(envelope).await.unwrap();
    assert_eq!(ended(hot.open(context, envelope)), opened);
    assert_eq!(ended(hot.open_in_place(context, &mut envelope.to_vec())), opened);
    opened
}

/// How sealing a file with this context ends: in memory and by path alike, and where it is refused there is no file.
async fn seal_file(scope: &ScopeHandle, context: &[Field<'_>]) -> Ended {
    let sealed = ended(scope.file_sealer(context).await);
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("plain"), folder.path().join("sealed"));
    std::fs::write(&from, TEXT).unwrap();
    assert_eq!(ended(scope.seal_file(context, &from, &to, FileOptions::new()).await), sealed);
    assert_eq!(to.exists(), sealed.is_none());
    sealed
}

/// How opening a file with this context ends: in memory and by path alike, and where it is refused there is no file.
async fn open_file(scope: &ScopeHandle, context: &[Field<'_>], file: &[u8]) -> Ended {
    let opener = scope.file_opener(context, &FileHead::parse(file).unwrap()).await;
    let opened = ended(opener.map(|opener| assert_eq!(*opener.open_bytes(file).unwrap(), *TEXT)));
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("sealed"), folder.path().join("plain"));
    std::fs::write(&from, file).unwrap();
    assert_eq!(ended(scope.open_file(context, &from, &to, FileOptions::new()).await), opened);
    assert_eq!(to.exists(), opened.is_none());
    opened
}

async fn message(scope: &ScopeHandle, context: &[Field<'_>]) -> Vec<u8> {
    scope.seal(context, TEXT).await.unwrap()
}

async fn file(scope: &ScopeHandle, context: &[Field<'_>]) -> Vec<u8> {
    scope.file_sealer(context).await.unwrap().seal_bytes(TEXT).unwrap()
}

fn strict(policy: TenantPolicy) -> TenantPolicy {
    policy.bind(["message"]).bind_files(["file"])
}

fn unbound(policy: TenantPolicy) -> TenantPolicy {
    policy.allow_unbound_messages().allow_unbound_files()
}

#[tokio::test]
async fn two_rows_that_are_swapped_do_not_open() {
    let fleet = Fleet::with(strict).await;
    let scope = fleet.channel().await;
    let messages = [message(&scope, M1).await, message(&scope, M2).await];
    let files = [file(&scope, F1).await, file(&scope, F2).await];
    fleet
        .warm_and_cold(async |scope, state| {
            for (contexts, expected) in [([M1, M2], WELL), ([M2, M1], UNOPENABLE)] {
                for (context, message) in contexts.into_iter().zip(&messages) {
                    assert_eq!(open(&scope, context, message).await, expected, "{state}");
                }
            }
            for (contexts, expected) in [([F1, F2], WELL), ([F2, F1], UNOPENABLE)] {
                for (context, file) in contexts.into_iter().zip(&files) {
                    assert_eq!(open_file(&scope, context, file).await, expected, "{state}");
                }
            }
        })
        .await;
}

#[tokio::test]
async fn a_typo_in_a_field_name_at_one_call_site_is_refused_at_seal() {
    let fleet = Fleet::with(strict).await;
    fleet
        .warm_and_cold(async |scope, state| {
            assert_eq!(seal(&scope, &[("massage", "M1")]).await, REFUSED, "{state}");
            assert_eq!(seal_file(&scope, &[("flie", "F1")]).await, REFUSED, "{state}");
            assert_eq!(seal(&scope, M1).await, WELL, "{state}");
            assert_eq!(seal_file(&scope, F1).await, WELL, "{state}");
        })
        .await;
    let scope = fleet.channel().await;
    let told = [scope.seal(&[("massage", "M1")], TEXT).await.err(), scope.file_sealer(M1).await.err()];
    for (e, wanted) in told.into_iter().zip(["message", "file"]) {
        let told = e.unwrap().to_string();
        assert!(told.contains("tenant acme") && told.contains(&format!("the fields [\"{wanted}\"]")), "{told}");
    }
}

#[tokio::test]
async fn an_empty_context_is_refused_by_default_at_seal_and_at_open() {
    let fleet = Fleet::with(|policy| policy).await;
    let scope = fleet.channel().await;
    let (message, file) = (message(&scope, &[("any", "1")]).await, file(&scope, &[("other", "2")]).await);
    fleet
        .warm_and_cold(async |scope, state| {
            for empty in [&[][..], &[("message", "")], &[("a", ""), ("b", "")]] {
                assert_eq!(seal(&scope, empty).await, REFUSED, "{state} {empty:?}");
                assert_eq!(open(&scope, empty, &message).await, REFUSED, "{state} {empty:?}");
                assert_eq!(seal_file(&scope, empty).await, REFUSED, "{state} {empty:?}");
                assert_eq!(open_file(&scope, empty, &file).await, REFUSED, "{state} {empty:?}");
            }
            assert_eq!(seal(&scope, &[("a", ""), ("any", "1")]).await, WELL, "{state}");
            assert_eq!(open(&scope, &[("any", "1")], &message).await, WELL, "{state}");
            assert_eq!(open_file(&scope, &[("other", "2")], &file).await, WELL, "{state}");
        })
        .await;
}

#[tokio::test]
async fn a_required_field_has_a_value_and_others_may_stand_beside_it() {
    let fleet = Fleet::with(|policy| policy.bind(["message", "thread"]).bind_files(["file"])).await;
    let scope = fleet.channel().await;
    let (both, own) = ([("message", "M1"), ("thread", "T1")], [("edited", ""), ("file", "F1")]);
    let (message, file) = (message(&scope, &both).await, file(&scope, &own).await);
    fleet
        .warm_and_cold(async |scope, state| {
            for lacking in [M1, &[("message", ""), ("thread", "T1")], &[("thread", "T1"), ("x", "M1")]] {
                assert_eq!(seal(&scope, lacking).await, REFUSED, "{state} {lacking:?}");
                assert_eq!(open(&scope, lacking, &message).await, REFUSED, "{state} {lacking:?}");
            }
            for lacking in [&[("file", "")][..], &[("edited", ""), ("file", "")], &[("edited", "F1")]] {
                assert_eq!(seal_file(&scope, lacking).await, REFUSED, "{state} {lacking:?}");
                assert_eq!(open_file(&scope, lacking, &file).await, REFUSED, "{state} {lacking:?}");
            }
            let more = [("thread", "T1"), ("author", "U1"), ("message", "M1"), ("edited", "")];
            assert_eq!(seal(&scope, &more).await, WELL, "{state}");
            assert_eq!(open(&scope, &more, &message).await, UNOPENABLE, "{state}");
            assert_eq!(open(&scope, &both, &message).await, WELL, "{state}");
            assert_eq!(open_file(&scope, &own, &file).await, WELL, "{state}");
        })
        .await;
}

#[tokio::test]
async fn what_messages_are_bound_to_does_not_count_for_files_nor_the_other_way_round() {
    for (edit, of_messages, of_files) in [
        (&(|p: TenantPolicy| p.bind(["message"])) as &dyn Fn(TenantPolicy) -> TenantPolicy, "message", "any"),
        (&|p: TenantPolicy| p.bind_files(["file"]), "any", "file"),
        (&|p: TenantPolicy| p.allow_unbound_messages(), "", "any"),
        (&|p: TenantPolicy| p.allow_unbound_files(), "any", ""),
        // The last word counts.
        (&|p: TenantPolicy| unbound(p).bind(["message"]).bind_files(["file"]), "message", "file"),
        (&|p: TenantPolicy| unbound(strict(p)), "", ""),
    ] {
        let fleet = Fleet::with(edit).await;
        fleet
            .warm_and_cold(async |scope, state| {
                // Asked for is this field by name, any field, or none.
                let expected = |asked: &str, given: &str| match asked {
                    "" => WELL,
                    "any" if !given.is_empty() => WELL,
                    name if name == given => WELL,
                    _ => REFUSED,
                };
                for name in ["", "message", "file", "any"] {
                    let context: &[Field<'_>] = if name.is_empty() { &[] } else { &[(name, "1")] };
                    let what = format!("{state}, messages {of_messages:?}, files {of_files:?}, given {name:?}");
                    assert_eq!(seal(&scope, context).await, expected(of_messages, name), "message: {what}");
                    assert_eq!(seal_file(&scope, context).await, expected(of_files, name), "file: {what}");
                }
            })
            .await;
    }
}

#[tokio::test]
async fn what_is_tightened_later_leaves_older_messages_as_they_were_made() {
    let fleet = Fleet::with(unbound).await;
    let scope = fleet.channel().await;
    // Both nodes have the key in hand.
    let (old, old_file) = (message(&channel(&fleet.other).await, &[]).await, file(&scope, &[]).await);
    assert_eq!(open(&scope, &[], &old).await, WELL);
    fleet.decide(strict).await;
    // Also a handle that was made before.
    assert_eq!(seal(&scope, &[]).await, REFUSED);
    let (new, new_file) = (message(&scope, M1).await, file(&scope, F1).await);
    assert_ne!(Header::parse(&old).unwrap().key_id(), Header::parse(&new).unwrap().key_id());
    fleet
        .warm_and_cold(async |scope, state| {
            assert_eq!(seal(&scope, &[]).await, REFUSED, "{state}");
            assert_eq!(seal_file(&scope, &[]).await, REFUSED, "{state}");
            assert_eq!(seal(&scope, M1).await, WELL, "{state}");
            assert_eq!(seal_file(&scope, F1).await, WELL, "{state}");
            assert_eq!(open(&scope, &[], &old).await, WELL, "{state}");
            assert_eq!(open_file(&scope, &[], &old_file).await, WELL, "{state}");
            assert_eq!(open(&scope, &[], &new).await, REFUSED, "{state}");
            assert_eq!(open_file(&scope, &[], &new_file).await, REFUSED, "{state}");
            assert_eq!(open(&scope, M1, &new).await, WELL, "{state}");
            assert_eq!(open_file(&scope, F1, &new_file).await, WELL, "{state}");
        })
        .await;
}

#[tokio::test]
async fn what_is_loosened_later_leaves_older_messages_as_they_were_made() {
    let fleet = Fleet::with(strict).await;
    let scope = fleet.channel().await;
    let (old, old_file) = (message(&channel(&fleet.other).await, M1).await, file(&scope, F1).await);
    assert_eq!(open(&scope, M1, &old).await, WELL);
    fleet.decide(unbound).await;
    let (new, new_file) = (message(&scope, &[]).await, file(&scope, &[]).await);
    fleet
        .warm_and_cold(async |scope, state| {
            assert_eq!(open(&scope, &[], &old).await, REFUSED, "{state}");
            assert_eq!(open_file(&scope, &[], &old_file).await, REFUSED, "{state}");
            assert_eq!(open(&scope, M1, &old).await, WELL, "{state}");
            assert_eq!(open_file(&scope, F1, &old_file).await, WELL, "{state}");
            assert_eq!(seal(&scope, &[]).await, WELL, "{state}");
            assert_eq!(seal_file(&scope, &[]).await, WELL, "{state}");
            assert_eq!(open(&scope, &[], &new).await, WELL, "{state}");
            assert_eq!(open_file(&scope, &[], &new_file).await, WELL, "{state}");
            assert_eq!(open(&scope, M1, &new).await, UNOPENABLE, "{state}");
        })
        .await;
}

#[tokio::test]
async fn a_policy_of_the_same_rules_makes_no_new_keys() {
    let fleet = Fleet::with(|policy| policy.bind(["thread", "message"])).await;
    let scope = fleet.channel().await;
    let context = [("message", "M1"), ("thread", "T1")];
    let old = message(&scope, &context).await;
    fleet.decide(|policy| policy.bind(["message", "thread"])).await;
    fleet.purge();
    let new = message(&scope, &context).await;
    assert_eq!(Header::parse(&old).unwrap().key_id(), Header::parse(&new).unwrap().key_id());
}

#[tokio::test]
async fn resealing_brings_messages_under_the_rules_of_today_or_leaves_them() {
    for (period, purged) in [(Period::None, true), (Period::Hour, true), (Period::Hour, false)] {
        let lasting = |policy: TenantPolicy| policy.period(period).cache_ttl(3 * HOUR);
        let fleet = Fleet::with(|policy| unbound(lasting(policy))).await;
        let scope = fleet.channel().await;
        let (with, without) = (message(&scope, M1).await, message(&scope, &[]).await);
        fleet.decide(|policy| lasting(policy).bind(["message"])).await;
        // By then the hour is past: it gets a key of today's rules, too.
        fleet.clock.advance(HOUR);
        if purged {
            fleet.purge();
        }
        let resealed = scope.reseal(M1, &with).await.unwrap().unwrap();
        assert_eq!(open(&scope, M1, &resealed).await, WELL);
        assert_eq!(open(&scope, &[], &resealed).await, REFUSED);
        assert_eq!(scope.reseal(M1, &resealed).await.unwrap(), None);
        // It has nothing to be bound to; it stays under its old key, where it opens.
        assert_eq!(ended(scope.reseal(&[], &without).await), REFUSED);
        assert_eq!(open(&scope, &[], &without).await, WELL);
    }
}

#[tokio::test]
async fn a_stored_policy_that_says_nothing_of_contexts_is_strict() {
    let fleet = Fleet::with(|policy| policy).await;
    let stored = serde_json::to_value(unbound(fleet.policy())).unwrap();
    let with = |rules: Option<&str>| {
        let mut stored = stored.clone();
        let members = stored.as_object_mut().unwrap();
        assert!(members.remove("context_rules").is_some());
        members.extend(rules.map(|rules| ("context_rules".to_owned(), serde_json::from_str(rules).unwrap())));
        serde_json::from_value::<TenantPolicy>(stored)
    };
    for bad in
        ["null", "{}", "[]", r#""unbound""#, r#"{"messages":"unbound"}"#, r#"{"messages":"unbound","files":"all"}"#]
    {
        assert!(with(Some(bad)).is_err(), "{bad}");
    }
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let set = async |policy| admin.set_policy(&admin.tenant("acme").await.unwrap(), policy).await;
    for empty in [r#"{"messages":[],"files":"unbound"}"#, r#"{"messages":["channel"],"files":"unbound"}"#] {
        assert_eq!(ended(set(with(Some(empty)).unwrap()).await), REFUSED, "{empty}");
    }
    let scope = fleet.channel().await;
    set(with(None).unwrap()).await.unwrap();
    assert_eq!([seal(&scope, &[]).await, seal_file(&scope, &[]).await], [REFUSED; 2]);
    set(with(Some(r#"{"messages":"unbound","files":"unbound"}"#)).unwrap()).await.unwrap();
    assert_eq!([seal(&scope, &[]).await, seal_file(&scope, &[]).await], [WELL; 2]);
}

/// What does not parse, or is of another scope, is refused as such whatever the context, and whatever is in hand.
#[tokio::test]
async fn bytes_are_refused_before_contexts_are() {
    let fleet = Fleet::with(strict).await;
    let elsewhere = fleet.node.tenant("acme").await.unwrap().scope([("channel", "C8")]).unwrap();
    let cut_short = message(&fleet.channel().await, M1).await[..60].to_vec();
    let (message, file) = (message(&elsewhere, M1).await, file(&elsewhere, F1).await);
    fleet
        .warm_and_cold(async |scope, state| {
            for bad in [&b"plain text"[..], b"", &cut_short] {
                assert_eq!(ended(scope.open(&[], bad).await), Some(ErrorKind::Malformed), "{state}");
            }
            assert_eq!(open(&scope, &[], &message).await, UNOPENABLE, "{state}");
            assert_eq!(open_file(&scope, &[], &file).await, UNOPENABLE, "{state}");
        })
        .await;
}
