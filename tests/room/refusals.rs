//! A refusal is the same whatever is cached.

use strongroom::{ErrorKind, FileHead, ScopeHandle};

use crate::{House, kind};

async fn refused_warm_and_cold(house: &House, scope: &ScopeHandle, sealed: &[u8], bad: &[u8]) -> [ErrorKind; 4] {
    assert!(scope.open(&[], sealed).await.is_ok() || scope.open(&[], bad).await.is_err());
    let warm = kind(scope.open(&[], bad).await);
    let warm_in_place = kind(scope.open_in_place(&[], &mut bad.to_vec()).await);
    house.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    let cold = kind(scope.open(&[], bad).await);
    house.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    [warm, warm_in_place, cold, kind(scope.open_in_place(&[], &mut bad.to_vec()).await)]
}

#[tokio::test]
async fn an_envelope_of_a_region_that_is_not_served_is_told_so_warm_and_cold() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    let sealed = scope.seal(&[], b"hello").await.unwrap();
    let mut elsewhere = sealed.clone();
    elsewhere[3] ^= 1; // eu-central-1 becomes du-central-1
    assert_eq!(refused_warm_and_cold(&house, &scope, &sealed, &elsewhere).await, [ErrorKind::Region; 4]);
}

#[tokio::test]
async fn what_is_cut_short_is_malformed_warm_and_cold_whatever_its_scope() {
    let house = House::new().await;
    let (scope, other) = (house.channel("acme", "C9").await, house.channel("acme", "C8").await);
    let (sealed, of_other) = (scope.seal(&[], b"hello").await.unwrap(), other.seal(&[], b"hello").await.unwrap());
    for of in [&sealed, &of_other] {
        assert!(other.open(&[], &of_other).await.is_ok());
        let cut = &of[..of.len() - 30];
        assert_eq!(refused_warm_and_cold(&house, &scope, &sealed, cut).await, [ErrorKind::Malformed; 4]);
    }
    assert!(other.open(&[], &of_other).await.is_ok());
    assert_eq!(refused_warm_and_cold(&house, &scope, &sealed, &of_other).await, [ErrorKind::Unopenable; 4]);
}

#[tokio::test]
async fn a_file_of_a_region_that_is_not_served_is_told_so_and_one_that_does_not_open_is_called_a_file() {
    let house = House::with(strongroom::TenantPolicy::allow_unbound_files).await;
    let scope = house.channel("acme", "C9").await;
    let sealed = scope.file_sealer(&[]).await.unwrap().seal_bytes(b"a picture").unwrap();
    let mut elsewhere = sealed.clone();
    elsewhere[8 + 3] ^= 1;
    for _ in 0..2 {
        let head = FileHead::parse(&elsewhere).unwrap();
        assert_eq!(kind(scope.file_opener(&[], &head).await), ErrorKind::Region);
        house.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    }
    let head = FileHead::parse(&sealed).unwrap();
    let mut altered = sealed.clone();
    *altered.last_mut().unwrap() ^= 1;
    let opener = scope.file_opener(&[], &head).await.unwrap();
    let refused = [
        opener.open_bytes(&altered).err().unwrap(),
        scope.file_opener(&[("file", "F2")], &head).await.err().unwrap(),
        house.channel("acme", "C8").await.file_opener(&[], &head).await.err().unwrap(),
    ];
    for e in refused {
        assert!(e.kind() == ErrorKind::Unopenable && e.to_string().contains("the file does not open"), "{e}");
    }
}
