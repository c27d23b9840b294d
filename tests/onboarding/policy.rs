//! Key policies decide about the contexts that a KMS is really told as the tenant's selector would.

use proptest::prelude::*;
use serde_json::Value;
use strongroom::{AwsKeyPolicy, ErrorKind, KekUri, KeyRecord, Period, PeriodLabel, Selector, TenantPolicy};

use crate::evaluator::{Request, allows};
use crate::records::{CHANNELS, Context, kek, policy, recorded, region};

const CHAT: &str = "arn:aws:iam::999988887777:role/chat";

fn compiled(policy: &TenantPolicy) -> AwsKeyPolicy {
    AwsKeyPolicy::new("acme", policy, &kek()).unwrap().principal(CHAT).unwrap()
}

fn may(document: &str, action: &str, context: &Context) -> bool {
    allows(document, &Request { principal: CHAT, action, context })
}

#[tokio::test]
async fn the_backend_may_what_it_does_and_no_more() {
    for period in [Period::None, Period::Hour, Period::Day, Period::Month] {
        let document = compiled(&policy(period)).document(&[]).unwrap();
        let (_, records) = recorded(period, 2).await;
        let nothing = Context::new();
        assert!(may(&document, "kms:DescribeKey", &nothing));
        for (_, context) in &records {
            assert!(may(&document, "kms:GenerateDataKey", context) && may(&document, "kms:Decrypt", context));
            for not_needed in ["kms:Encrypt", "kms:ReEncryptFrom", "kms:ScheduleKeyDeletion", "kms:PutKeyPolicy"] {
                assert!(!may(&document, not_needed, context), "{not_needed}");
            }
            let stranger =
                Request { principal: "arn:aws:iam::999988887777:role/other", action: "kms:Decrypt", context };
            assert!(!allows(&document, &stranger));
            for (name, value) in [("tenant", "globex"), ("region", "us-east-1"), ("purpose", "else"), ("more", "x")] {
                let mut other = context.clone();
                other.insert(name.to_owned(), value.to_owned());
                assert!(!may(&document, "kms:Decrypt", &other), "{name}");
            }
        }
        assert!(!may(&document, "kms:Decrypt", &nothing), "ForAllValues alone would allow no context at all");
    }
}

#[test]
fn what_is_needed_depends_on_the_tenants_policy() {
    let other = KekUri::new("aws-kms:arn:aws:kms:eu-central-1:444455556666:key/escrow").unwrap();
    let both = policy(Period::Hour).or_kek(other.clone());
    let first = compiled(&both).allow().unwrap();
    assert!(first.contains("kms:GenerateDataKey") && !first.contains("kms:Encrypt\""));
    let second = AwsKeyPolicy::new("acme", &both, &other).unwrap().principal(CHAT).unwrap();
    assert!(second.allow().unwrap().contains("kms:Encrypt\"") && !second.allow().unwrap().contains("GenerateDataKey"));
    assert!(second.document(&[]).unwrap().contains("arn:aws:iam::444455556666:root"));
    assert!(second.rewraps().inspects().allow().unwrap().contains("kms:ReEncryptTo"));
    // An earlier policy's names and regions open, but nothing new is made with them.
    let now = policy(Period::Hour).home(region("eu-west-1"));
    let moved = AwsKeyPolicy::new("acme", &now.allow_region(region("eu-central-1")), &kek()).unwrap();
    let moved = moved.principal(CHAT).unwrap().earlier(&policy(Period::Day).scope_by(["team"])).document(&[]).unwrap();
    let pairs = [("tenant", "acme"), ("region", "eu-central-1"), ("purpose", "data-key"), ("team", "T"), ("day", "x")];
    let old: Context = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert!(may(&moved, "kms:Decrypt", &old) && !may(&moved, "kms:GenerateDataKey", &old));
}

/// The grammar of a key policy ("Grammar of the IAM JSON policy language", IAM User Guide), as far as ours go.
#[test]
fn the_document_has_the_shape_that_aws_takes() {
    let denied = [Selector::fields([("channel", "C9")]), Selector::everything()];
    let text = compiled(&policy(Period::Hour)).administrator("arn:aws:iam::111122223333:role/keys").unwrap();
    let policy: Value = serde_json::from_str(&text.document(&denied).unwrap()).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&policy), ["Statement", "Version"]);
    let mut ids = std::collections::BTreeSet::new();
    for statement in policy["Statement"].as_array().unwrap() {
        let sid = statement["Sid"].as_str().unwrap();
        assert!(sid.bytes().all(|b| b.is_ascii_alphanumeric()) && ids.insert(sid), "{sid}");
        let known = ["Sid", "Effect", "Principal", "Action", "Resource", "Condition"];
        assert!(keys(statement).iter().all(|key| known.contains(&key.as_str())));
        assert!(["Allow", "Deny"].contains(&statement["Effect"].as_str().unwrap()));
        assert_eq!(keys(&statement["Principal"]), ["AWS"]);
        for block in statement.get("Condition").iter().flat_map(|c| c.as_object().unwrap().values()) {
            for values in block.as_object().unwrap().values() {
                assert!(values.is_string() || values.as_array().is_some_and(|all| all.iter().all(Value::is_string)));
            }
        }
    }
    assert_eq!(ids.len(), 6);
}

fn decides_like(selector: &Selector, period: Period, records: &[(KeyRecord, Context)]) -> Result<(), TestCaseError> {
    let document = match compiled(&policy(period)).document(std::slice::from_ref(selector)) {
        Ok(document) => document,
        // What cannot be said covers nothing, or names a value beyond Latin-1.
        Err(e) => {
            let covers = |(record, _): &(KeyRecord, Context)| {
                selector.covers(&record.scope, record.period.as_ref(), Some(&record.key_id))
            };
            prop_assert!(e.kind() == ErrorKind::InvalidArgument && !records.iter().any(covers), "{}", e);
            return Ok(());
        }
    };
    for (record, context) in records {
        let covered = selector.covers(&record.scope, record.period.as_ref(), Some(&record.key_id));
        for action in ["kms:Decrypt", "kms:GenerateDataKey"] {
            prop_assert_eq!(may(&document, action, context), !covered, "{} on {:?}", selector, record.scope);
        }
    }
    Ok(())
}

/// Conditions, and the ends of a range, on the periods that exist and some around them.
fn selector(period: Period) -> impl Strategy<Value = Selector> {
    let step = match period {
        Period::Month => 31 * 24 * 3_600_000,
        Period::Day => 24 * 3_600_000,
        _ => 3_600_000,
    };
    let label = (-3_i64..25).prop_map(move |n| period.label(crate::records::NOW + n * step).unwrap());
    let end = proptest::option::of(label.clone());
    let channel = proptest::option::of(proptest::sample::select(CHANNELS.to_vec()));
    let exactly = proptest::option::weighted(0.2, label);
    (channel, exactly, end.clone(), end).prop_map(|(channel, exactly, from, to)| {
        let mut fields: Vec<(String, String)> = Vec::new();
        fields.extend(channel.map(|name| ("channel".to_owned(), name.to_owned())));
        fields.extend(exactly.flatten().map(|label| {
            let (name, value) = label.field();
            (name.to_owned(), value.to_owned())
        }));
        let mut selector = Selector::fields(fields);
        if let Some(from) = from.flatten() {
            selector = selector.from(from);
        }
        if let Some(to) = to.flatten() {
            selector = selector.to(to);
        }
        selector
    })
}

#[test]
fn a_denial_hits_what_the_selector_covers_and_nothing_else() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for period in [Period::Hour, Period::Day, Period::Month, Period::None] {
        let (_, records) = runtime.block_on(recorded(period, 22));
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(48));
        runner.run(&selector(period), |selector| decides_like(&selector, period, &records)).unwrap();
        for channel in CHANNELS {
            decides_like(&Selector::fields([("channel", channel)]), period, &records).unwrap();
        }
    }
}

#[test]
fn what_no_statement_can_say_is_refused() {
    let policy = compiled(&policy(Period::Hour));
    let (day, hour) = (PeriodLabel::new("day=2026-11-22").unwrap(), PeriodLabel::new("hour=2026-11-22T05Z").unwrap());
    for (selector, says) in [
        (Selector::fields([("channel", "日本")]), "Latin-1"),
        (Selector::fields([("channel", "a\nb")]), "Latin-1"),
        (Selector::fields([("chanel", "C9")]), "not a scope field"),
        (Selector::fields([("channel", "a"), ("channel", "b")]), "cover nothing"),
        (Selector::fields([("hour", "2026-11-22T04Z")]).from(hour.clone()), "cover nothing"),
        (Selector::fields([("hour", "2026-11-22T05Z")]).from(day), "cover nothing"),
        (Selector::keys([strongroom::KeyId::from_bytes([7; 32])]), "by their ids"),
    ] {
        let e = policy.deny(&selector, "Deny1").unwrap_err();
        assert!(e.kind() == ErrorKind::InvalidArgument && e.to_string().contains(says), "{says}: {e}");
    }
    assert!(policy.deny(&Selector::everything(), "no-hyphens").is_err());
    let many: Vec<_> = (0..100).map(|n| Selector::fields([("channel", format!("C{n}"))]).from(hour.clone())).collect();
    let e = policy.document(&many).unwrap_err();
    assert!(e.kind() == ErrorKind::Limit && e.to_string().contains("32768"), "{e}");
    assert!(policy.document(&many[..3]).is_ok());
}

#[test]
fn only_principals_that_stay_and_are_no_wider_than_one() {
    let policy = AwsKeyPolicy::new("acme", &policy(Period::Hour), &kek()).unwrap();
    assert_eq!(policy.allow().unwrap_err().kind(), ErrorKind::InvalidArgument, "nobody named");
    for bad in [
        "*",
        "arn:aws:iam::999988887777:root",
        "arn:aws:iam::999988887777:role/*",
        "arn:aws:iam::999988887777:role/",
        "arn:aws:sts::999988887777:assumed-role/chat/session",
        "arn:aws:iam::99:role/chat",
        "arn:aws:iam::999988887777:role/${aws:username}",
        "arn:aws-cn:iam::999988887777:role/chat",
        "arn:aws-us-gov:iam::999988887777:role/chat",
    ] {
        assert!(policy.clone().principal(bad).is_err(), "{bad}");
        assert!(bad.ends_with(":root") || policy.clone().administrator(bad).is_err(), "{bad}");
    }
    assert!(policy.clone().administrator("arn:aws:iam::999988887777:root").is_ok());
    let local = TenantPolicy::new(KekUri::new("local:acme").unwrap(), region("eu-central-1"));
    assert!(AwsKeyPolicy::new("acme", &local, &KekUri::new("local:acme").unwrap()).is_err());
    assert!(AwsKeyPolicy::new("acme", &local, &kek()).is_err());
}
