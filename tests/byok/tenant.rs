//! The tenant's side of an import: its key, and what it does to it with the real `openssl`, or with HPKE.

use std::fs;
use std::path::Path;
use std::process::Command;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem, X25519HkdfSha256};
use hpke::{Deserializable, OpModeS, Serializable};
use strongroom::{ImportFormat, ImportTicket, KeyCheckValue};

/// Runs `openssl` in `folder`, and gives what it printed.
pub(crate) fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let ran = match Command::new("openssl").args(arguments).current_dir(folder).output() {
        Ok(ran) => ran,
        Err(e) => panic!("`openssl` does not start ({e}). Install OpenSSL 3 (Debian, Ubuntu: apt install openssl)."),
    };
    assert!(ran.status.success(), "openssl {arguments:?}:\n{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).trim().to_owned()
}

/// Keys that `openssl` draws.
pub(crate) fn material(bytes: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    openssl(folder.path(), &["rand", "-out", "key.bin", &bytes.to_string()]);
    fs::read(folder.path().join("key.bin")).unwrap()
}

pub(crate) fn check_value(material: &[u8]) -> KeyCheckValue {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("zeros.bin"), [0; 16]).unwrap();
    let key = format!("hexkey:{}", base16ct::lower::encode_string(material));
    let mac = openssl(folder.path(), &["mac", "-cipher", "AES-256-CBC", "-macopt", &key, "-in", "zeros.bin", "CMAC"]);
    KeyCheckValue::from_hex(&mac[..6]).unwrap()
}

pub(crate) fn wrap(ticket: &ImportTicket, format: ImportFormat, material: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("wrapping.pem"), ticket.rsa_public_key_pem()).unwrap();
    let oaep = |from: &str| {
        let arguments = "pkeyutl -encrypt -pubin -inkey wrapping.pem -pkeyopt rsa_padding_mode:oaep -pkeyopt \
                         rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256 -out wrapped.bin -in";
        openssl(folder.path(), &arguments.split(' ').chain([from]).collect::<Vec<_>>());
        fs::read(at("wrapped.bin")).unwrap()
    };
    fs::write(at("key.bin"), material).unwrap();
    match format {
        ImportFormat::RsaesOaepSha256 => oaep("key.bin"),
        ImportFormat::RsaAesKeyWrapSha256 => {
            openssl(folder.path(), &["rand", "-out", "ephemeral.bin", "32"]);
            let ephemeral = base16ct::lower::encode_string(&fs::read(at("ephemeral.bin")).unwrap());
            let arguments = "enc -id-aes256-wrap-pad -iv A65959A6 -in key.bin -out kwp.bin -K";
            openssl(folder.path(), &arguments.split(' ').chain([ephemeral.as_str()]).collect::<Vec<_>>());
            [oaep("ephemeral.bin"), fs::read(at("kwp.bin")).unwrap()].concat()
        }
        ImportFormat::Hpke => hpke(ticket.hpke_public_key(), ticket.hpke_info(), ticket.hpke_aad(), material),
        other => panic!("no test wraps in {other:?}"),
    }
}

pub(crate) fn hpke(public: &[u8; 32], info: &[u8], aad: &[u8], material: &[u8]) -> Vec<u8> {
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public).unwrap();
    let (enc, ciphertext) =
        hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(&OpModeS::Base, &public, info, material, aad)
            .unwrap();
    [enc.to_bytes().to_vec(), ciphertext].concat()
}
