//! JSON read as FORMAT.md spells it. serde's derived readers take more than that: an array of the members' values for an object, a
//! member that is missing for `null`, an object of a word for the word, and the last of two values for one name. What is stored or
//! exchanged is read here instead, so that nothing that is missing or said twice loosens a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A `T` that is an object in JSON.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Members(PhantomData)).map(Self)
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

/// Structs that are objects in JSON with just these members, each once. Derive everything but `Deserialize` beside it.
macro_rules! objects {
    ($(
        $(#[$of_it:meta])*
        $vis:vis struct $name:ident {
            $($(#[$of_member:meta])* $member_vis:vis $member:ident: $kind:ty,)*
        }
    )*) => {$(
        $(#[$of_it])*
        $vis struct $name {
            $($(#[$of_member])* $member_vis $member: $kind,)*
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Members {
                    $($(#[$of_member])* $member: $kind,)*
                }
                let $crate::key::json::Object(Members { $($member),* }) = serde::Deserialize::deserialize(from)?;
                Ok(Self { $($member),* })
            }
        }
    )*};
}

pub(crate) use objects;

/// Reads a member that may be left out, and is not `null` where it stands.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Reads a member that is `null` where there is none, and is never left out.
pub(crate) fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

/// Reads a flag that is left out unless it is `true`.
pub(crate) fn said<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    if bool::deserialize(from)? { Ok(true) } else { Err(D::Error::custom("left out unless it is true")) }
}

/// Reads a list that names nothing twice.
pub(crate) fn distinct<'de, T: Deserialize<'de> + Ord, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<T>, D::Error> {
    let mut set = BTreeSet::new();
    for item in Vec::deserialize(from)? {
        if !set.insert(item) {
            return Err(D::Error::custom("a list names something twice"));
        }
    }
    Ok(set)
}

/// Reads an object of values by name, that names nothing twice.
pub(crate) fn by_name<'de, N, V, D>(from: D) -> Result<BTreeMap<N, V>, D::Error>
where
    N: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
    D: Deserializer<'de>,
{
    from.deserialize_map(ByName(PhantomData))
}

struct ByName<N, V>(PhantomData<(N, V)>);

impl<'de, N: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for ByName<N, V> {
    type Value = BTreeMap<N, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut values = BTreeMap::new();
        while let Some((name, value)) = members.next_entry()? {
            if values.insert(name, value).is_some() {
                return Err(A::Error::custom("an object names something twice"));
            }
        }
        Ok(values)
    }
}

/// Enums without fields that are words in JSON, and nothing else.
macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
                to.serialize_str(match self { $(Self::$variant => $word),+ })
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
                const WORDS: &[&str] = &[$($word),+];
                match &*<String as serde::Deserialize>::deserialize(from)? {
                    $($word => Ok(Self::$variant),)+
                    other => Err(serde::de::Error::unknown_variant(other, WORDS)),
                }
            }
        }
    };
}

pub(crate) use words;

/// Bytes that are lower-case hexadecimal digits in JSON, read and written without a copy: a tenant's row may have tens of thousands.
macro_rules! hex_text {
    ($name:ident, $len:literal, $refusal:literal) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
                let mut digits = [0; 2 * $len];
                let digits = base16ct::lower::encode_str(&self.0, &mut digits).map_err(serde::ser::Error::custom)?;
                to.serialize_str(digits)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
                struct Digits;

                impl serde::de::Visitor<'_> for Digits {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($refusal)
                    }

                    fn visit_str<E: serde::de::Error>(self, digits: &str) -> std::result::Result<$name, E> {
                        let mut bytes = [0; $len];
                        match base16ct::lower::decode(digits, &mut bytes) {
                            Ok(decoded) if decoded.len() == $len => Ok($name(bytes)),
                            _ => Err(E::custom($refusal)),
                        }
                    }
                }

                from.deserialize_str(Digits)
            }
        }
    };
}

pub(crate) use hex_text;

#[cfg(test)]
pub(crate) mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::crypto::suite::Suite;
    use crate::key::change::Change;
    use crate::key::fleet::FleetRecord;
    use crate::key::journal::JournalEntry;
    use crate::key::period::Period;
    use crate::key::policy::TenantPolicy;
    use crate::key::record::KeyRecord;
    use crate::key::revocation::Selector;
    use crate::key::room_record::RoomRecord;
    use crate::key::tenant::TenantRecord;

    /// What serde's derived readers let pass.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Laxness {
        ArrayForObject,
        UnknownMember,
        MemberTwice,
        MemberMissing,
        MemberNull,
        ObjectForWord,
    }

    const ALL: [Laxness; 6] = [
        Laxness::ArrayForObject,
        Laxness::UnknownMember,
        Laxness::MemberTwice,
        Laxness::MemberMissing,
        Laxness::MemberNull,
        Laxness::ObjectForWord,
    ];

    /// `value` written with this laxness in the place of the number `left`, counted down.
    fn write(value: &Value, kind: Laxness, left: &mut Option<usize>, out: &mut String) {
        let mut is_here = |counts: bool| {
            let here = counts && *left == Some(0);
            if counts {
                *left = left.and_then(|left| left.checked_sub(1));
            }
            here
        };
        match value {
            Value::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    write(item, kind, left, out);
                }
                out.push(']');
            }
            Value::Object(members) => {
                let as_array = is_here(kind == Laxness::ArrayForObject);
                let with_more = is_here(kind == Laxness::UnknownMember);
                let mut parts = Vec::new();
                for (name, value) in members {
                    let of_it = |it: Laxness| kind == it;
                    let mut here = |it| {
                        of_it(it) && {
                            let here = *left == Some(0);
                            *left = left.and_then(|left| left.checked_sub(1));
                            here
                        }
                    };
                    let (twice, missing, null) =
                        (here(Laxness::MemberTwice), here(Laxness::MemberMissing), here(Laxness::MemberNull));
                    let mut text = String::new();
                    write(if null { &Value::Null } else { value }, kind, left, &mut text);
                    let text = if as_array { text } else { format!("{}:{text}", json!(name)) };
                    parts.extend(std::iter::repeat_n(text, usize::from(!missing) + usize::from(twice)));
                }
                parts.extend(with_more.then(|| r#""more":1"#.to_owned()));
                let [open, close] = if as_array { ["[", "]"] } else { ["{", "}"] };
                out.extend([open, &parts.join(","), close]);
            }
            Value::String(_) if is_here(kind == Laxness::ObjectForWord) => {
                out.extend(["{", &value.to_string(), ":null}"]);
            }
            other => out.push_str(&other.to_string()),
        }
    }

    /// Everything that is laxer than `json` in one place.
    pub(crate) fn laxer(json: &str, kinds: &[Laxness]) -> Vec<(Laxness, String)> {
        let value: Value = serde_json::from_str(json).unwrap();
        let mut all = Vec::new();
        for kind in kinds {
            for place in 0.. {
                let (mut left, mut text) = (Some(place), String::new());
                write(&value, *kind, &mut left, &mut text);
                if left.is_some() {
                    break; // there are no more places
                }
                all.push((*kind, text));
            }
        }
        all
    }

    /// Members that FORMAT.md leaves out where they are empty, and KEKs that are members: without one it is another value.
    const LEFT_OUT: [&str; 17] = [
        "new_key_members",
        "allowed_regions",
        "kek_regions",
        "shared_keks",
        "context_rules",
        "retention_secs",
        "contact",
        "everything",
        "fields",
        "from",
        "to",
        "keys",
        "carried_out_since",
        "details",
        "selector",
        "local:a",
        "keyid",
    ];

    /// The member of `whole` that `part` lacks.
    fn lost(whole: &Value, part: &Value) -> Option<String> {
        match (whole, part) {
            (Value::Object(whole), Value::Object(part)) => whole.iter().find_map(|(name, value)| {
                part.get(name).map_or_else(|| Some(name.clone()), |there| lost(value, there))
            }),
            (Value::Array(whole), Value::Array(part)) => whole.iter().zip(part).find_map(|(w, p)| lost(w, p)),
            _ => None,
        }
    }

    fn may_be_missing(json: &str, laxer: &str) -> bool {
        let [json, laxer]: [Value; 2] = [json, laxer].map(|text| serde_json::from_str(text).unwrap());
        lost(&json, &laxer).is_some_and(|name| LEFT_OUT.contains(&name.as_str()))
    }

    #[track_caller]
    pub(crate) fn is_read_strictly<T: DeserializeOwned + Serialize>(json: &str, kinds: &[Laxness]) {
        let read: T = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), json, "the sample itself");
        let texts = laxer(json, kinds);
        assert!(texts.len() > 3, "{texts:?}");
        for (kind, text) in texts {
            let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            let is_allowed = match kind {
                Laxness::MemberMissing => may_be_missing(json, &text),
                // `null` where there is `null` already, or where FORMAT.md has it.
                Laxness::MemberNull => {
                    value(&text) == value(json) || NULLABLE.iter().any(|name| nulls(&text, name) > nulls(json, name))
                }
                _ => false,
            };
            assert!(is_allowed || serde_json::from_str::<T>(&text).is_err(), "{kind:?} is read: {text}");
        }
    }

    /// Members that FORMAT.md has as `null` where there is nothing.
    const NULLABLE: [&str; 9] = [
        "predecessor",
        "period",
        "pending",
        "wrapped",
        "rewrap",
        "tenant",
        "last",
        "previous",
        "opens_suspended_until",
    ];

    fn nulls(text: &str, name: &str) -> usize {
        text.matches(&format!("\"{name}\":null")).count()
    }

    const DIGEST: &str = "0101010101010101010101010101010101010101010101010101010101010101";
    const LIFE: &str = "02020202020202020202020202020202";

    fn selector() -> String {
        format!(
            r#"{{"fields":[["channel","C9"]],"from":"hour=2026-11-22T05Z","to":"hour=2026-11-22T06Z","keys":["{DIGEST}"]}}"#
        )
    }

    fn policy() -> &'static str {
        concat!(
            r#"{"keks":"all_of(local:a, local:b)","new_key_members":1,"region":"eu","allowed_regions":["us"],"#,
            r#""kek_regions":{"local:a":"eu"},"#,
            r#""shared_keks":["local:b"],"scope_fields":["channel"],"#,
            r#""context_rules":{"messages":["message"],"files":"at_least_one"},"period":"hour","#,
            r#""rotation":{"max_age_secs":9,"max_messages":8},"suite":"aes-256-gcm","cache_ttl_secs":7,"verify_new_keys":true,"#,
            r#""retention_secs":6,"contact":"ops"}"#
        )
    }

    #[test]
    fn policies_and_selectors_are_read_strictly() {
        is_read_strictly::<TenantPolicy>(policy(), &ALL);
        is_read_strictly::<Selector>(&selector(), &ALL);
        is_read_strictly::<Change>(&format!(r#"{{"tenant":"acme","selector":{},"forget":"keys"}}"#, selector()), &ALL);
        for bad in [
            r#"{"everything":false}"#,
            r#"{"everything":null}"#,
            r#"{"fields":[["channel","C9"]],"keys":null}"#,
            r#"{"fields":[["channel","C9"]],"from":null}"#,
            r#"{"fields":[{"channel":"C9"}]}"#,
        ] {
            assert!(serde_json::from_str::<Selector>(bad).is_err(), "{bad}");
        }
        for (good, bad) in [
            (r#""kek_regions":{"local:a":"eu"}"#, r#""kek_regions":{"local:a":"us","local:a":"eu"}"#),
            (r#""allowed_regions":["us"]"#, r#""allowed_regions":["us","us"]"#),
            (r#""shared_keks":["local:b"]"#, r#""shared_keks":["local:b","local:b"]"#),
        ] {
            let text = policy().replacen(good, bad, 1);
            assert!(text != policy() && serde_json::from_str::<TenantPolicy>(&text).is_err(), "{bad}");
        }
        let upper = selector().replace(DIGEST, &"AB".repeat(32));
        assert!(serde_json::from_str::<Selector>(&upper).is_err(), "{upper}");
        for (word, read) in [("\"hour\"", Some(Period::Hour)), ("\"Hour\"", None), (r#"{"hour":null}"#, None)] {
            assert_eq!(serde_json::from_str::<Period>(word).ok(), read, "{word}");
        }
        assert!(serde_json::from_str::<Suite>(r#"{"aes-256-gcm":null}"#).is_err());
    }

    #[test]
    fn rows_are_read_strictly() {
        let selector = selector();
        let row = format!(
            concat!(
                r#"{{"tenant":"acme","incarnation":"{life}","epoch":3,"predecessor":"{digest}","enrolled_at":1,"policy":{policy},"#,
                r#""revocations":[{{"selector":{s},"since":1}}],"suspensions":[{{"selector":{s},"since":1,"until":2}}],"#,
                r#""erasures":[{{"id":"e","selector":{s},"requested_at":1,"due_at":2,"carried_out_since":3}}],"#,
                r#""rewrap":{{"to":"local:a","epoch":2,"since":1}},"keks":[{{"from_epoch":1,"keks":"local:a","new_key_members":1}}],"#,
                r#""erased":[{{"selector":{s},"before":2}}],"compromised":[],"#,
                r#""exports":[{{"kek":"local:a","foreign":true,"first_at":1,"last_at":2,"upto_epoch":1}}],"#,
                r#""journal":{{"entries":1,"last":"{digest}"}}}}"#
            ),
            life = LIFE,
            digest = DIGEST,
            policy = policy(),
            s = selector
        );
        is_read_strictly::<TenantRecord>(&row, &ALL);
        let wrapped = r#"{"any_of":[{"kek":"local:a","wrapped":"01"},{"all_of":[{"kek":"local:b","wrapped":"02"},{"kek":"local:c","wrapped":"03"}]}]}"#;
        let record = format!(
            concat!(
                r#"{{"tenant":"acme","incarnation":"{life}","key_id":"{digest}","suite":"aes-256-gcm","scope":[["channel","C9"]],"#,
                r#""period":"hour=2026-11-22T05Z","region":"eu","context_rules":{{"messages":"unbound","files":"unbound"}},"#,
                r#""state":"active","state_since":1,"wrapped":{wrapped},"pending":{{"wrapped":{wrapped},"epoch":2}},"#,
                r#""wrapped_epoch":1,"made_epoch":1,"made_generation":1,"created_at":1,"#,
                r#""transitions":[{{"state":"active","at":1,"actor":"a","reason":"r"}}]}}"#
            ),
            life = LIFE,
            digest = DIGEST,
            wrapped = wrapped
        );
        is_read_strictly::<KeyRecord>(&record, &ALL);
        let entry = format!(
            concat!(
                r#"{{"tenant":"acme","incarnation":"{life}","number":1,"previous":"{digest}","epoch":1,"at":1,"actor":"a","#,
                r#""reason":"r","decision":{{"verb":"v","details":[["a","b"]],"selector":{s},"keys":["{digest}"]}}}}"#
            ),
            life = LIFE,
            digest = DIGEST,
            s = selector
        );
        is_read_strictly::<JournalEntry>(&entry, &ALL);
        is_read_strictly::<FleetRecord>(
            &format!(
                r#"{{"room":"{LIFE}","epoch":2,"predecessor":"{DIGEST}","opens_suspended_until":5,"actor":"a","reason":"r","at":1}}"#
            ),
            &ALL,
        );
        is_read_strictly::<RoomRecord>(
            &format!(
                concat!(
                    r#"{{"name":"chat","incarnation":"{}","epoch":1,"predecessor":null,"created_at":1,"generations":[{{"#,
                    r#""generation":1,"least_row_format":1,"control":"c","row_key":"r","control_seed":"s"}}]}}"#
                ),
                LIFE
            ),
            &ALL,
        );
    }
}
