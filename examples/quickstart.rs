//! Two tenants, each with a key of its own: seal, open, rotate, refuse a stranger, revoke, restore; then what is stored,
//! and what is not. Fails if anything is not as it says.
//!
//! `cargo run --example quickstart`

use std::error::Error;

use strongroom::{
    ErrorKind, Header, KeyId, LocalKms, Period, Region, ScopeHandle, Selector, TenantPolicy, create_local,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const NOON: &[u8] = "Lunch at noon? 🍜".as_bytes();
const PLANS: &[u8] = "The plans are in the safe.".as_bytes();

#[tokio::main]
async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let region = Region::new("eu-central-1")?;

    println!("1. Two tenants, each under a KEK of its own, a data key for each channel and hour");
    let local = create_local(folder.path()).await?;
    let room = local.builder().serving(["eu-central-1"]).build().await?;
    for tenant in ["acme", "globex"] {
        let kek = local.kms().create_kek(&format!("{tenant}-2026"), region.clone())?;
        println!("   {tenant:6}  {kek}");
        let policy = TenantPolicy::new(kek, region.clone())
            .scope_by(["workspace", "channel"])
            .bind(["message"])
            .period(Period::Hour);
        room.admin("ops@example.com", "an example")?.enroll(tenant, policy).await?;
    }
    let (acme, globex) = (room.tenant("acme").await?, room.tenant("globex").await?);
    let general = acme.scope([("workspace", "W1"), ("channel", "general")])?;
    let random = acme.scope([("workspace", "W1"), ("channel", "random")])?;
    let theirs = globex.scope([("workspace", "W1"), ("channel", "general")])?;

    println!("2. Seal and open");
    let old = general.seal(&[("message", "M1")], NOON).await?;
    let other = random.seal(&[("message", "M1")], PLANS).await?;
    theirs.seal(&[("message", "M1")], PLANS).await?;
    opens(&general, &old, NOON).await?;
    opens(&random, &other, PLANS).await?;

    println!("3. Rotate on demand: a new data key seals, the old one still opens");
    room.admin("ops@example.com", "an example")?.rotate("acme", &[("workspace", "W1"), ("channel", "general")]).await?;
    let new = general.seal(&[("message", "M1")], PLANS).await?;
    claim(Header::parse(&new)?.key_id() != Header::parse(&old)?.key_id(), "the new message has a new key")?;
    opens(&general, &old, NOON).await?;
    opens(&general, &new, PLANS).await?;

    println!("4. Nobody else opens it");
    refuses("the other tenant", &theirs, &old, ErrorKind::Unopenable).await?;
    refuses("another channel", &random, &old, ErrorKind::Unopenable).await?;
    // Somebody with the key store and the envelopes, but not with the KEK: theirs bears the same name.
    let stranger = LocalKms::in_memory();
    stranger.create_kek("acme-2026", region.clone())?;
    let elsewhere = local.builder_with_kms(stranger).serving(["eu-central-1"]).build().await?;
    let acme_theirs = elsewhere.tenant("acme").await?;
    let general_theirs = acme_theirs.scope([("workspace", "W1"), ("channel", "general")])?;
    refuses("a stranger's KEK", &general_theirs, &old, ErrorKind::Denied).await?;

    println!("5. Revoke a channel, then restore it");
    let channel = Selector::fields([("channel", "general")]);
    room.admin("ops@example.com", "an example")?.revoke("acme", channel.clone()).await?;
    refuses("revoked", &general, &old, ErrorKind::Revoked).await?;
    opens(&random, &other, PLANS).await?;
    room.admin("ops@example.com", "an example")?.restore("acme", channel).await?;
    opens(&general, &old, NOON).await?;

    println!("\nWhat is stored: key records");
    print_row(("key id", "tenant", "scope", "period", "region", "state", "wrapped", "KEK"));
    for tenant in ["acme", "globex"] {
        for key in room.admin("ops@example.com", "an example")?.keys(tenant, None, 100).await?.keys {
            let (id, scope) = (format!("{:.8}", key.key_id.to_string()), key.scope.to_string());
            let (region, state) = (key.region.as_str(), key.state.as_str());
            let period = key.period.as_ref().map_or("", |period| period.as_str());
            for w in key.wrapped.iter().flat_map(strongroom::WrappedKey::wrappings) {
                let wrapped = format!("{} bytes", w.wrapped.len());
                print_row((&id, tenant, &scope, period, region, state, &wrapped, w.kek.as_str()));
            }
        }
    }

    println!("\nWhat an envelope says without any key");
    for (name, envelope, text) in [("old", &old, NOON), ("new", &new, PLANS)] {
        let header = Header::parse(envelope)?;
        let (suite, region, key) =
            (header.suite().name(), header.region(), KeyId::from_bytes(*header.key_id()).to_string());
        println!(
            "   {name}: suite {suite}, region {region}, key {key:.8}, {} bytes for {}",
            envelope.len(),
            text.len()
        );
    }

    println!("\nWhat is not stored, neither in keys.db nor in an envelope");
    let mut stored = [old.as_slice(), &new, &other].concat();
    for file in ["keys.db", "keys.db-wal"] {
        stored.extend(std::fs::read(folder.path().join(file))?);
    }
    // A search that cannot find anything would prove nothing: the key id is there.
    claim(occurs(&stored, Header::parse(&old)?.key_id()), "the key id, as a check of the search, is found")?;
    claim(!occurs(&stored, NOON) && !occurs(&stored, PLANS), "the messages are not")?;
    let content: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.path().join("keks.json"))?)?;
    for tenant in [0, 1] {
        let hex = content.pointer(&format!("/keks/{tenant}/versions/0/key")).and_then(|key| key.as_str());
        let hex = hex.ok_or("the KEK file has not both KEKs")?;
        let raw = base16ct::mixed::decode_vec(hex).map_err(|e| e.to_string())?;
        claim(
            !occurs(&stored, hex.as_bytes()) && !occurs(&stored, &raw),
            "a KEK's bytes are not, nor their hex digits",
        )?;
    }
    println!("\nAll as claimed.");
    Ok(())
}

fn claim(holds: bool, what: &str) -> Outcome {
    println!("   {} {what}", if holds { "✓" } else { "✗" });
    if holds { Ok(()) } else { Err(format!("not so: {what}").into()) }
}

async fn opens(scope: &ScopeHandle, envelope: &[u8], expected: &[u8]) -> Outcome {
    let text = scope.open(&[("message", "M1")], envelope).await?;
    claim(*text == *expected, &format!("opens: {:?}", String::from_utf8_lossy(&text)))
}

async fn refuses(who: &str, scope: &ScopeHandle, envelope: &[u8], expected: ErrorKind) -> Outcome {
    match scope.open(&[("message", "M1")], envelope).await {
        Ok(_) => claim(false, &format!("{who} is refused")),
        Err(e) => claim(e.kind() == expected, &format!("{who}: {e}")),
    }
}

fn print_row(row: (&str, &str, &str, &str, &str, &str, &str, &str)) {
    let (id, tenant, scope, period, region, state, wrapped, kek) = row;
    println!("   {id:9} {tenant:7} {scope:33} {period:20} {region:13} {state:12} {wrapped:9} {kek}");
}

fn occurs(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
