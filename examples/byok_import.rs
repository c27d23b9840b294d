//! A tenant brings its own key (BYOK): the ceremony from both sides, with the real `openssl` on the tenant's.
//! Fails if anything is not as it says.
//!
//! `cargo run --example byok_import --features byok`
//!
//! # What the tenant does
//!
//! The operator of the backend sends `wrapping.pem`, the token, and when it expires (24 hours). With OpenSSL 3 and a shell:
//!
//! ```sh
//! # The key, 32 random bytes. On an HSM it would be made and wrapped there, and never be in a file.
//! openssl rand -out key.bin 32
//!
//! # Its check value: the start of AES-CMAC of 16 zero bytes (ANSI X9.24-1:2017). Send the first 10 digits, by another way
//! # than the wrapped key.
//! head -c 16 /dev/zero >zeros.bin
//! openssl mac -cipher AES-256-CBC -macopt hexkey:$(od -An -v -tx1 key.bin | tr -d ' \n') -in zeros.bin CMAC
//!
//! # Either: wrap it with RSA-OAEP (RSAES_OAEP_SHA_256). Send wrapped.bin, 512 bytes.
//! openssl pkeyutl -encrypt -pubin -inkey wrapping.pem -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 \
//!     -pkeyopt rsa_mgf1_md:sha256 -in key.bin -out wrapped.bin
//!
//! # Or: with a fresh AES key, and that one with RSA-OAEP (RSA_AES_KEY_WRAP_SHA_256). Send wrapped.bin, 552 bytes.
//! openssl rand -out ephemeral.bin 32
//! openssl enc -id-aes256-wrap-pad -K $(od -An -v -tx1 ephemeral.bin | tr -d ' \n') -iv A65959A6 -in key.bin -out kwp.bin
//! openssl pkeyutl -encrypt -pubin -inkey wrapping.pem -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 \
//!     -pkeyopt rsa_mgf1_md:sha256 -in ephemeral.bin -out oaep.bin
//! cat oaep.bin kwp.bin >wrapped.bin
//!
//! # Keep key.bin where nobody else can get it: without it, nothing restores the key when the operator has lost its own copy.
//! ```
//!
//! The commands show the key and the ephemeral key in the process list of the machine they run on: run them where nobody
//! else has an account. An HSM does the second form by itself: `CKM_RSA_AES_KEY_WRAP` with SHA-256.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use strongroom::{
    ImportFormat, ImportTicket, KekUri, KeyCheckValue, LocalKms, MemoryKeyStore, Region, Strongroom, SystemClock,
    TenantPolicy,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const KEY: &str = "openssl rand -out key.bin 32";
const CHECK_VALUE: &str = "head -c 16 /dev/zero >zeros.bin
openssl mac -cipher AES-256-CBC -macopt hexkey:$(od -An -v -tx1 key.bin | tr -d ' \\n') -in zeros.bin CMAC";
const OAEP: &str = "openssl pkeyutl -encrypt -pubin -inkey wrapping.pem -pkeyopt rsa_padding_mode:oaep \
                    -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256 -in key.bin -out wrapped.bin";
const KEY_WRAP: &str = "openssl rand -out ephemeral.bin 32
openssl enc -id-aes256-wrap-pad -K $(od -An -v -tx1 ephemeral.bin | tr -d ' \\n') -iv A65959A6 -in key.bin -out kwp.bin
openssl pkeyutl -encrypt -pubin -inkey wrapping.pem -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 \
                        -pkeyopt rsa_mgf1_md:sha256 -in ephemeral.bin -out oaep.bin
cat oaep.bin kwp.bin >wrapped.bin";

#[tokio::main]
async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (ours, theirs) = (folder.path().join("operator"), folder.path().join("tenant"));
    fs::create_dir(&ours)?;
    fs::create_dir(&theirs)?;
    let region = Region::new("eu-central-1")?;

    println!("1. The operator: KEKs rest under a root KEK, here in memory, in production in the operator's own KMS");
    let operator = LocalKms::in_memory();
    let root = operator.create_kek("operator-root", region.clone())?;
    let kms = LocalKms::create_under(ours.join("keks.json"), Arc::new(operator.clone()), root.clone()).await?;

    println!("\n2. A ticket for the tenant");
    let ticket = begin(&kms, "acme-2026", &theirs).await?;

    println!("\n3. The tenant: makes a key, notes its check value, wraps it (RSAES_OAEP_SHA_256)");
    shell(&theirs, KEY)?;
    let value = shell(&theirs, CHECK_VALUE)?;
    let value = KeyCheckValue::from_hex(value.get(..10).ok_or("openssl printed no CMAC")?)?;
    shell(&theirs, OAEP)?;

    println!("\n4. The operator: finishes the import, after a restart");
    let kms_again = LocalKms::open_under(ours.join("keks.json"), Arc::new(operator), root).await?;
    let format = ImportFormat::RsaesOaepSha256;
    let wrapped = fs::read(theirs.join("wrapped.bin"))?;
    println!("   check value {value}, {} bytes", wrapped.len());
    let wrong = KeyCheckValue::from_hex("000000")?;
    refuse("another check value", &kms_again, &ticket, format, &wrapped, &wrong).await?;
    let cut = wrapped.get(1..).ok_or("nothing was wrapped")?;
    refuse("a byte is missing", &kms_again, &ticket, format, cut, &value).await?;
    let kek = kms_again.finish_import(ticket.token(), format, &wrapped, &value, &SystemClock).await?;
    println!("   imported: {kek}");
    refuse("once more", &kms_again, &ticket, format, &wrapped, &value).await?;

    println!("\n5. Messages under the tenant's own key");
    seal_and_open(kms_again.clone(), kek, region.clone()).await?;

    println!("\n6. Another key, wrapped as HSMs do it (RSA_AES_KEY_WRAP_SHA_256)");
    let ticket = begin(&kms_again, "acme-2027", &theirs).await?;
    shell(&theirs, KEY)?;
    let value = shell(&theirs, CHECK_VALUE)?;
    let value = KeyCheckValue::from_hex(value.get(..10).ok_or("openssl printed no CMAC")?)?;
    shell(&theirs, KEY_WRAP)?;
    let wrapped = fs::read(theirs.join("wrapped.bin"))?;
    let format = ImportFormat::RsaAesKeyWrapSha256;
    let kek = kms_again.finish_import(ticket.token(), format, &wrapped, &value, &SystemClock).await?;
    println!("   imported: {kek}, {} bytes", wrapped.len());
    seal_and_open(kms_again, kek, region).await?;

    println!("\n7. What the operator's file holds");
    let file = fs::read_to_string(ours.join("keks.json"))?;
    let key = base16ct::lower::encode_string(&fs::read(theirs.join("key.bin"))?);
    claim(file.contains("acme-2027") && file.contains("\"wrapped\""), "the KEKs, wrapped under the root KEK")?;
    claim(!file.contains(&key) && !file.contains("imports"), "not the tenant's key, nor the wrapping keys any more")?;
    println!("\nAll as claimed.");
    Ok(())
}

async fn begin(kms: &LocalKms, name: &str, theirs: &Path) -> Outcome<ImportTicket> {
    let ticket = kms.begin_import(name, Region::new("eu-central-1")?, &SystemClock).await?;
    fs::write(theirs.join("wrapping.pem"), ticket.rsa_public_key_pem())?;
    println!("   for     {}", ticket.kek());
    println!("   token   {:.8}…, expires at {} ms", ticket.token(), ticket.expires_at_millis());
    println!("   key     wrapping.pem, {} bytes of DER", ticket.rsa_public_key_der().len());
    Ok(ticket)
}

/// Runs the tenant's commands as it would, and shows them.
fn shell(folder: &Path, commands: &str) -> Outcome<String> {
    for line in commands.lines() {
        println!("   $ {line}");
    }
    let ran = Command::new("sh").args(["-e", "-c", commands]).current_dir(folder).output()?;
    if !ran.status.success() {
        let why = String::from_utf8_lossy(&ran.stderr).into_owned();
        return Err(format!("{why}\nThis example needs OpenSSL 3 (Debian, Ubuntu: apt install openssl).").into());
    }
    let out = String::from_utf8(ran.stdout)?.trim().to_owned();
    if !out.is_empty() {
        println!("   {out}");
    }
    Ok(out)
}

async fn refuse(
    why: &str,
    kms: &LocalKms,
    ticket: &ImportTicket,
    format: ImportFormat,
    wrapped: &[u8],
    value: &KeyCheckValue,
) -> Outcome {
    match kms.finish_import(ticket.token(), format, wrapped, value, &SystemClock).await {
        Ok(_) => claim(false, &format!("{why} is refused")),
        Err(e) => claim(true, &format!("{why}: {e}")),
    }
}

async fn seal_and_open(kms: LocalKms, kek: KekUri, region: Region) -> Outcome {
    let room = Strongroom::builder()
        .serving([region.as_str()])
        .key_store(MemoryKeyStore::default())
        .kms(kms)
        .trusting_the_key_store()
        .build()
        .await?;
    room.admin("ops@example.com", "an example")?
        .enroll("acme", TenantPolicy::new(kek, region).bind(["message"]))
        .await?;
    let scope = room.tenant("acme").await?.scope([])?;
    let sealed = scope.seal(&[("message", "M1")], b"Lunch at noon?").await?;
    let opened = scope.open(&[("message", "M1")], &sealed).await?;
    claim(*opened == *b"Lunch at noon?", &format!("sealed ({} bytes) and opened", sealed.len()))
}

fn claim(holds: bool, what: &str) -> Outcome {
    println!("   {} {what}", if holds { "✓" } else { "✗" });
    if holds { Ok(()) } else { Err(format!("not so: {what}").into()) }
}
