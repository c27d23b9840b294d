//! Customer key material into AWS KMS, wrapped by the `openssl` command line as a customer does.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use strongroom::{
    AwsImportParameters, AwsKms, AwsMaterialExpiry, AwsWrappingAlgorithm, ErrorKind, KekUri, Kms, MemoryKeyStore,
    NewAwsKek,
};

use crate::proxy::{Answer, Proxy};
use crate::servers::Flaw;
use crate::world::{
    ACCOUNT, admin, assert_fails, builder, create_kek, enroll, generate, home, kms, open, room, seal, server, url,
};

const ALGORITHMS: [AwsWrappingAlgorithm; 2] =
    [AwsWrappingAlgorithm::RsaesOaepSha256, AwsWrappingAlgorithm::RsaAesKeyWrapSha256];

fn openssl(folder: &Path, arguments: &str) {
    let ran = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output();
    let ran = ran.expect("the openssl command line is missing");
    assert!(ran.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// What a customer does with the public key that it was handed (the transcript in the docs of `AwsImportParameters`).
fn wrap(material: &[u8], parameters: &AwsImportParameters) -> Vec<u8> {
    const OAEP: &str = "-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256";
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("wrapping-key.der"), parameters.wrapping_public_key()).unwrap();
    fs::write(folder.join("material.bin"), material).unwrap();
    let encrypt = |file: &str, into: &str| {
        let key = "-pubin -keyform DER -inkey wrapping-key.der";
        openssl(folder, &format!("pkeyutl -encrypt {key} -in {file} -out {into} {OAEP}"));
    };
    if parameters.algorithm() == AwsWrappingAlgorithm::RsaesOaepSha256 {
        encrypt("material.bin", "wrapped.bin");
        return fs::read(folder.join("wrapped.bin")).unwrap();
    }
    openssl(folder, "rand -out once.bin 32");
    let once = base16ct::lower::encode_string(&fs::read(folder.join("once.bin")).unwrap());
    openssl(folder, &format!("enc -id-aes256-wrap-pad -K {once} -iv A65959A6 -in material.bin -out inner.bin"));
    encrypt("once.bin", "outer.bin");
    [fs::read(folder.join("outer.bin")).unwrap(), fs::read(folder.join("inner.bin")).unwrap()].concat()
}

fn material(first: u8) -> Vec<u8> {
    (0..32_u8).map(|i| i.wrapping_mul(7).wrapping_add(first)).collect()
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

async fn empty_kek(kms: &AwsKms) -> KekUri {
    let new = NewAwsKek::new(home(), ACCOUNT).unwrap().description("BYOK of acme");
    kms.create_import_key(&new).await.unwrap()
}

#[tokio::test]
async fn import_use_delete_import_again() {
    let kms = kms().await;
    for algorithm in ALGORITHMS {
        let kek = empty_kek(&kms).await;
        let said = kms.describe_key(&kek).await.unwrap();
        assert_eq!((said.origin.as_str(), said.state.as_str()), ("EXTERNAL", "PendingImport"));

        let parameters = kms.import_parameters(&kek, algorithm).await.unwrap();
        assert_eq!((parameters.kek(), parameters.algorithm()), (&kek, algorithm));
        assert!(parameters.expires_at() > now());
        let wrapped = wrap(&material(1), &parameters);
        kms.import_key_material(&parameters, &wrapped, AwsMaterialExpiry::Never).await.unwrap();
        let said = kms.describe_key(&kek).await.unwrap();
        assert_eq!((said.is_enabled(), said.material_expires_at), (true, None));

        let store = Arc::new(MemoryKeyStore::default());
        let room = room(&store, kms.clone()).await;
        enroll(&room, &kek).await;
        let sealed = seal(&room, "C1", b"one").await.unwrap();

        // The kill switch: nothing opens, once the cache asks again.
        kms.delete_key_material(&kek).await.unwrap();
        room.admin("a test", "to test").unwrap().purge("acme").unwrap();
        assert_fails(open(&room, "C1", &sealed).await, ErrorKind::Denied, "no key material");
        assert!(!kms.describe(&kek).await.unwrap().enabled);

        // The customer's copy brings it back, under new parameters and with an end.
        let parameters = kms.import_parameters(&kek, algorithm).await.unwrap();
        let wrapped = wrap(&material(1), &parameters);
        let end = now() + 86_400_000;
        kms.import_key_material(&parameters, &wrapped, AwsMaterialExpiry::At(end)).await.unwrap();
        assert_eq!(open(&room, "C1", &sealed).await.unwrap(), b"one");
        match kms.describe_key(&kek).await.unwrap().material_expires_at {
            Some(at) => assert!((end - at).abs() <= 1_000, "{end} {at}"), // servers keep seconds
            None => assert!(server().has(Flaw::CarelessWithImports)),
        }
    }
}

#[tokio::test]
async fn two_keks_with_the_same_material_are_two_keks() {
    let kms = kms().await;
    let mut keks = Vec::new();
    for _ in 0..2 {
        let kek = empty_kek(&kms).await;
        let parameters = kms.import_parameters(&kek, ALGORITHMS[0]).await.unwrap();
        let wrapped = wrap(&material(1), &parameters);
        kms.import_key_material(&parameters, &wrapped, AwsMaterialExpiry::Never).await.unwrap();
        keks.push(kek);
    }
    let (context, made) = generate(&kms, &keks[0]).await;
    match kms.unwrap(&keks[1], &context, &made.wrapped).await {
        Err(e) => assert_eq!(e.kind(), ErrorKind::Denied, "{e}"),
        Ok(_) => assert!(server().has(Flaw::UnwrapsToGarbage)),
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_import_is_said_and_nothing_of_the_material_is() {
    let kms = kms().await;
    for algorithm in ALGORITHMS {
        let (kek, other) = (empty_kek(&kms).await, empty_kek(&kms).await);
        let parameters = kms.import_parameters(&kek, algorithm).await.unwrap();
        let others = kms.import_parameters(&other, algorithm).await.unwrap();
        let canary = material(99);
        let good = wrap(&canary, &parameters);
        let for_another_key = wrap(&canary, &others);
        let mut altered = good.clone();
        altered[100] ^= 1;
        let part = |token: Vec<u8>, expires_at| {
            let key = parameters.wrapping_public_key().to_vec();
            AwsImportParameters::from_parts(kek.clone(), algorithm, key, token, expires_at).unwrap()
        };
        let expired = part(parameters.token().to_vec(), now() - 1);
        let foreign = part(others.token().to_vec(), parameters.expires_at());
        let short = wrap(&canary[..16], &parameters);
        // Found here, before anything goes out.
        let mut cases = vec![
            (&parameters, &good[..good.len() - 1], AwsMaterialExpiry::Never, "bytes"),
            (&parameters, &[], AwsMaterialExpiry::Never, "bytes"),
            (&parameters, &canary, AwsMaterialExpiry::Never, "bytes"), // not wrapped at all
            (&expired, &good, AwsMaterialExpiry::Never, "24 hours"),
            (&parameters, &good, AwsMaterialExpiry::At(now() - 1), "expired already"),
        ];
        // Found by AWS.
        if server().has(Flaw::CarelessWithImports) {
            let refused = kms.import_key_material(&parameters, &altered, AwsMaterialExpiry::Never).await;
            assert_fails(refused, ErrorKind::Unavailable, "InternalError");
        } else {
            cases.extend([
                (&parameters, for_another_key.as_slice(), AwsMaterialExpiry::Never, "public key"),
                (&parameters, altered.as_slice(), AwsMaterialExpiry::Never, "public key"),
                (&foreign, good.as_slice(), AwsMaterialExpiry::Never, "import token"),
                (&parameters, short.as_slice(), AwsMaterialExpiry::Never, ""),
            ]);
        }
        for (parameters, wrapped, expiry, says) in cases {
            let refused = kms.import_key_material(parameters, wrapped, expiry).await;
            let e = assert_fails(refused, ErrorKind::InvalidArgument, says);
            let said = format!("{e} {e:?} {parameters:?}");
            let hex = base16ct::lower::encode_string(&canary[..6]);
            assert!(!said.contains(&hex) && !said.contains(&format!("{:?}", &canary[..6])), "{said}");
            assert_eq!(kms.describe_key(&kek).await.unwrap().state, "PendingImport", "{says}");
        }
        kms.import_key_material(&parameters, &good, AwsMaterialExpiry::Never).await.unwrap();
    }
}

/// What AWS refuses and no server here does, answered by the proxy.
#[tokio::test]
async fn other_material_than_the_first_is_refused() {
    let proxy = Proxy::before(url()).await;
    let kms = builder(&proxy.url).await.build().await.unwrap();
    let kek = empty_kek(&kms).await;
    let parameters = kms.import_parameters(&kek, ALGORITHMS[0]).await.unwrap();
    let wrapped = wrap(&material(2), &parameters);
    for (code, says) in [
        ("IncorrectKeyMaterialException", "same bytes"),
        ("ExpiredImportTokenException", "24 hours"),
        ("InvalidImportTokenException", "import token"),
        ("InvalidCiphertextException", "public key"),
    ] {
        proxy.next([Answer::Error { status: 400, code, message: "x".to_owned() }]);
        proxy.take_seen();
        let refused = kms.import_key_material(&parameters, &wrapped, AwsMaterialExpiry::Never).await;
        assert_fails(refused, ErrorKind::InvalidArgument, says);
        assert_eq!(proxy.take_seen().len(), 1, "{code}");
    }
    // A second try could make a second key.
    proxy.next([Answer::Error { status: 500, code: "KMSInternalException", message: String::new() }]);
    let new = NewAwsKek::new(home(), ACCOUNT).unwrap();
    assert_fails(kms.create_import_key(&new).await, ErrorKind::Unavailable, "");
    assert_eq!(proxy.take_seen().len(), 1);
}

#[tokio::test]
async fn a_key_with_material_of_aws_takes_none() {
    let kms = kms().await;
    let kek = create_kek(&admin().await).await;
    assert_fails(kms.import_parameters(&kek, ALGORITHMS[0]).await, ErrorKind::InvalidArgument, "origin");
    if !server().has(Flaw::CarelessWithImports) {
        assert_fails(kms.delete_key_material(&kek).await, ErrorKind::InvalidArgument, "origin");
        assert!(kms.describe(&kek).await.unwrap().enabled);
    }
    assert!(NewAwsKek::new(home(), "acme").is_err());
    // A key that is made in another account than asked for is not used.
    let new = NewAwsKek::new(home(), "999999999999").unwrap();
    assert_fails(kms.create_import_key(&new).await, ErrorKind::KeyMismatch, "whose");
}
