//! The backend of the life-cycle examples: a tenant with three channels, its messages, and tables that show them.
#![allow(dead_code)] // each example uses its part

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strongroom::{
    Admin, Census, Clock, CompleteCensus, Cutoff, EnvelopeRow, EnvelopeTable, Header, KeyId, LocalKms, Region,
    Strongroom, SystemClock, TenantPolicy, WrappedKey, create_local,
};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

pub(crate) const EU: &str = "eu-central-1";
pub(crate) const US: &str = "us-east-1";
pub(crate) const TENANT: &str = "acme";

/// The machine's clocks, and what the example lets pass besides: nobody waits for a day.
#[derive(Clone, Default)]
pub(crate) struct Hurried(Arc<Mutex<Duration>>);

impl Hurried {
    pub(crate) fn pass(&self, time: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }

    fn passed(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for Hurried {
    fn unix_millis(&self) -> i64 {
        SystemClock.unix_millis().saturating_add(i64::try_from(self.passed().as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic() + self.passed()
    }
}

/// A room on an SQLite file, a local KMS, and `acme` enrolled under `local:acme-2026` with a data key for each channel.
pub(crate) async fn enrolled(folder: &Path, clock: &Hurried) -> Outcome<(Strongroom, LocalKms)> {
    let local = create_local(folder).await?;
    let builder = local.builder().serving([EU, US]).clock(clock.clone());
    let (room, kms) = (builder.build().await?, local.kms().clone());
    let kek = kms.create_kek("acme-2026", Region::new(EU)?)?;
    let policy =
        TenantPolicy::new(kek, Region::new(EU)?).scope_by(["channel"]).bind(["message"]).contact("keys@acme.example");
    room.admin("ops@example.com", "an example")?.enroll(TENANT, policy).await?;
    Ok((room, kms))
}

/// The backend's own table of messages: what [`Admin::reseal`] walks.
#[derive(Default)]
pub(crate) struct Messages(Mutex<BTreeMap<String, EnvelopeRow>>);

impl Messages {
    /// Two messages in each of three channels.
    pub(crate) async fn written(room: &Strongroom) -> Outcome<Self> {
        let messages = Self::default();
        for (n, channel) in ["general", "general", "plans", "plans", "random", "random"].into_iter().enumerate() {
            messages.write(room, &format!("M{n}"), channel).await?;
        }
        Ok(messages)
    }

    pub(crate) async fn write(&self, room: &Strongroom, id: &str, channel: &str) -> Outcome {
        let scope = room.tenant(TENANT).await?.scope([("channel", channel)])?;
        let envelope = scope.seal(&[("message", id)], format!("text of {id}").as_bytes()).await?;
        let row = EnvelopeRow {
            id: id.to_owned(),
            scope: vec![("channel".to_owned(), channel.to_owned())],
            context: vec![("message".to_owned(), id.to_owned())],
            envelope,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(row.id.clone(), row);
        Ok(())
    }

    fn rows(&self) -> Vec<EnvelopeRow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What the headers say: enough to count by region and key, for reports.
    pub(crate) fn census(&self) -> Outcome<Census> {
        self.counted(Census::begin(0))
    }

    /// The same as proof of what nothing refers to any more.
    pub(crate) fn proof(&self, admin: &Admin, cutoff: &Cutoff) -> Outcome<CompleteCensus> {
        Ok(self.counted(admin.census(cutoff)?)?.complete()?)
    }

    fn counted(&self, mut census: Census) -> Outcome<Census> {
        for row in self.rows() {
            census.add(&row.envelope)?;
        }
        Ok(census)
    }

    /// Prints every message with its key, its region, and whether it opens. Returns how many do.
    pub(crate) async fn show(&self, room: &Strongroom) -> Outcome<usize> {
        println!("   {:8} {:8} {:12} {:10} opens", "message", "channel", "region", "data key");
        let mut opened = 0;
        for row in self.rows() {
            let channel = row.scope.first().map_or("", |(_, channel)| channel.as_str());
            let scope = room.tenant(TENANT).await?.scope([("channel", channel)])?;
            let header = Header::parse(&row.envelope)?;
            let (region, key) = (header.region(), KeyId::from_bytes(*header.key_id()));
            let opens = match scope.open(&[("message", &row.id)], &row.envelope).await {
                Ok(text) if *text == *format!("text of {}", row.id).as_bytes() => {
                    opened += 1;
                    "yes".to_owned()
                }
                Ok(_) => return Err("a message opened as another text".into()),
                Err(e) => e.to_string(),
            };
            println!("   {:8} {channel:8} {region:12} {:10} {opens}", row.id, format!("{key:.8}"));
        }
        Ok(opened)
    }
}

/// Says whether a claim of the example holds, and ends it if not.
pub(crate) fn expect(holds: bool, claim: &str) -> Outcome {
    println!("   {} {claim}", if holds { '✓' } else { '✗' });
    if holds { Ok(()) } else { Err(format!("not so: {claim}").into()) }
}

/// Prints the tenant's key records.
pub(crate) async fn show_keys(room: &Strongroom) -> Outcome {
    println!("   {:10} {:18} {:12} {:12} wrapped by", "data key", "scope", "region", "state");
    for key in room.admin("ops@example.com", "an example")?.keys(TENANT, None, 100).await?.keys {
        let keks = key.wrapped.as_ref().map_or_else(|| "-".to_owned(), |w: &WrappedKey| w.expression().to_string());
        let (id, scope) = (format!("{:.8}", key.key_id), key.scope.to_string());
        println!("   {id:10} {scope:18} {:12} {:12} {keks}", key.region.as_str(), key.state.as_str());
    }
    Ok(())
}

#[async_trait::async_trait]
impl EnvelopeTable for Messages {
    async fn page(&self, after: Option<&str>, limit: u32) -> strongroom::Result<Vec<EnvelopeRow>> {
        let later = |row: &EnvelopeRow| after.is_none_or(|after| row.id.as_str() > after);
        Ok(self.rows().into_iter().filter(later).take(limit as usize).collect())
    }

    async fn replace(&self, row: &EnvelopeRow, envelope: &[u8]) -> strongroom::Result<bool> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match rows.get_mut(&row.id) {
            Some(stored) if stored.envelope == row.envelope => {
                stored.envelope = envelope.to_vec();
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}
