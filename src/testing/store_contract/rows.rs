//! Rows by themselves: versions, bytes, whose they are, all or nothing.

use super::{conflict, index, keep, key, key_id, remove, stored, tenant, write, write_key, written};
use crate::error::ErrorKind;
use crate::key::kek::KekUri;
use crate::key::state::KeyState;
use crate::store::KeyStore;
use crate::store::row::{MAX_ROW, RowChange, RowKey, Write};

fn kek(name: &str) -> RowKey {
    RowKey::Kek(KekUri::new(name).unwrap())
}

fn of_each_kind() -> [RowKey; 6] {
    [
        RowKey::Room,
        RowKey::Fleet,
        RowKey::Tenant(tenant("acme")),
        key("acme", 1),
        RowKey::Journal(tenant("acme"), 1),
        kek("aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd"),
    ]
}

/// Each is put only over the version that it expects, and is a row of its own.
pub(super) async fn rows(store: &dyn KeyStore) {
    let rows = of_each_kind();
    for (number, row) in rows.iter().enumerate() {
        let name = format!("{row:?}");
        let [first, second] = [format!("{number} a"), format!("{number} b")].map(String::into_bytes);
        assert_eq!(stored(store, row).await, None, "contract broken: {name} is there before it was put");
        conflict(store, &[write(row, Some(&first), &second)], &[0], &format!("{name} over nothing")).await;
        assert_eq!(stored(store, row).await, None, "contract broken: {name} is there after a conflict");
        written(store, &[write(row, None, &first)], &name).await;
        assert_eq!(stored(store, row).await.as_ref(), Some(&first), "contract broken: {name} reads otherwise");
        conflict(store, &[write(row, None, &second)], &[0], &format!("{name} twice")).await;
        conflict(store, &[write(row, Some(&second), &second)], &[0], &format!("{name} over another version")).await;
        assert_eq!(stored(store, row).await.as_ref(), Some(&first), "contract broken: {name} after a conflict");
        written(store, &[write(row, Some(&first), &second)], &name).await;
        conflict(store, &[write(row, Some(&first), &first)], &[0], &format!("{name} over an old version")).await;
        assert_eq!(stored(store, row).await.as_ref(), Some(&second), "contract broken: {name} is not replaced");
    }
    for (number, row) in rows.iter().enumerate() {
        let expected = Some(format!("{number} b").into_bytes());
        assert_eq!(stored(store, row).await, expected, "contract broken: {row:?} was overwritten by another row");
    }
    let names = [&rows[3..4], &[key("acme", 99)], &rows, &[key("globex", 1)]].concat();
    let mut one_by_one = Vec::new();
    for name in &names {
        one_by_one.push(stored(store, name).await);
    }
    let at_once = store.get_many(&names).await.unwrap();
    assert_eq!(at_once, one_by_one, "contract broken: several rows at once are others than one by one");
    assert_eq!(store.get_many(&[]).await.unwrap(), Vec::<Option<Vec<u8>>>::new());
}

/// Whatever bytes, and many.
pub(super) async fn bytes(store: &dyn KeyStore) {
    let all: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    let most: Vec<u8> = all.iter().copied().cycle().take(MAX_ROW).collect();
    let mut old: Vec<Option<Vec<u8>>> = vec![None; of_each_kind().len()];
    for bytes in [&b""[..], b"\0", b"\xff\xfe not UTF-8", &all[..256], &all, &most, b""] {
        for (old, row) in old.iter_mut().zip(of_each_kind()) {
            if old.is_none() {
                *old = stored(store, &row).await;
            }
            if bytes.len() == MAX_ROW && !matches!(row, RowKey::Tenant(_)) {
                continue; // one of a kind tells
            }
            written(store, &[write(&row, old.as_deref(), bytes)], &format!("{row:?} of {} bytes", bytes.len())).await;
            *old = stored(store, &row).await;
            let same = old.as_deref() == Some(bytes);
            assert!(same, "contract broken: {row:?} of {} bytes does not come back as it was put", bytes.len());
        }
    }
}

/// The same id or number of two tenants is two rows.
pub(super) async fn tenancy(store: &dyn KeyStore) {
    for (mine, other) in [
        (key("tenancy", 1), key("tenancy2", 1)),
        (RowKey::Journal(tenant("tenancy"), 1), RowKey::Journal(tenant("tenancy2"), 1)),
    ] {
        written(store, &[write(&mine, None, b"mine")], "a row of one tenant").await;
        assert_eq!(stored(store, &other).await, None, "contract broken: {other:?} is another tenant's row");
        conflict(store, &[write(&other, Some(b"mine"), b"theirs")], &[0], "another tenant's row replaced").await;
        written(store, &[write(&other, None, b"theirs")], "the same row of another tenant").await;
        assert_eq!(stored(store, &mine).await.as_deref(), Some(&b"mine"[..]), "contract broken: {mine:?} was replaced");
    }
}

/// A row that is kept has to be what is expected, and stays as it is.
pub(super) async fn kept(store: &dyn KeyStore) {
    for (number, row) in of_each_kind().into_iter().enumerate() {
        let new = |n: usize| RowKey::Journal(tenant("keeps"), (100 * number + n) as u64);
        let what = format!("a row while {row:?} is kept");
        let is = stored(store, &row).await;
        written(store, &[keep(&row, is.as_deref()), write(&new(1), None, b"1")], &what).await;
        written(store, &[write(&new(2), None, b"2"), keep(&row, is.as_deref())], &what).await;
        assert_eq!(stored(store, &row).await, is, "contract broken: {row:?} is kept and not the same");
        conflict(store, &[keep(&row, Some(b"no")), write(&new(3), None, b"3")], &[0], &what).await;
        conflict(store, &[write(&new(3), None, b"3"), keep(&row, None)], &[1], &what).await;
        assert_eq!(stored(store, &new(3)).await, None, "contract broken: written although another version was kept");
    }
    let absent = [RowKey::Tenant(tenant("nobody")), key("nobody", 1), RowKey::Journal(tenant("nobody"), 1), kek("a:b")];
    for (number, row) in absent.into_iter().enumerate() {
        let new = |n: usize| RowKey::Journal(tenant("keeps-absent"), (100 * number + n) as u64);
        let what = format!("a row while {row:?} is kept absent");
        written(store, &[keep(&row, None), write(&new(1), None, b"1")], &what).await;
        assert_eq!(stored(store, &row).await, None, "contract broken: {row:?} came into being by being kept absent");
        conflict(store, &[keep(&row, Some(b"")), write(&new(2), None, b"2")], &[0], &what).await;
        assert_eq!(stored(store, &new(2)).await, None, "contract broken: written although a row was missing");
        written(store, &[write(&row, None, b"now")], "a row that was kept absent before").await;
    }
    written(store, &[], "nothing").await;
}

/// All or nothing, wherever among the writes one has a conflict.
pub(super) async fn atomicity(store: &dyn KeyStore) {
    let rows =
        [key("atomic", 1), RowKey::Tenant(tenant("atomic")), kek("a:atomic"), RowKey::Journal(tenant("atomic"), 1)];
    let old: Vec<Write> = rows.iter().map(|row| write(row, None, b"old")).collect();
    for wrong in 0..rows.len() {
        let mut writes = old.clone();
        writes[wrong] = write(&rows[wrong], Some(b"there is none"), b"old");
        conflict(store, &writes, &[wrong], "a part that expects a row among new ones").await;
        for row in &rows {
            assert_eq!(stored(store, row).await, None, "contract broken: a part of a conflict is written");
        }
    }
    let put = store.put(&old, Some(&|_| b"atomic".to_vec())).await.unwrap();
    assert!(
        matches!(put, crate::store::row::Put::Written(Some(_))),
        "contract broken: new rows and a log entry: {put:?}"
    );
    let new: Vec<Write> = rows.iter().map(|row| write(row, Some(b"old"), b"new")).collect();
    for wrong in 0..rows.len() {
        let mut writes = new.clone();
        writes[wrong] = write(&rows[wrong], Some(b"another"), b"new");
        conflict(store, &writes, &[wrong], "a part over another version").await;
        writes[wrong] = write(&rows[wrong], None, b"new");
        conflict(store, &writes, &[wrong], "a part that expects no row").await;
        writes[(wrong + 1) % rows.len()] = keep(&rows[(wrong + 1) % rows.len()], Some(b"another"));
        conflict(store, &writes, &[wrong, (wrong + 1) % rows.len()], "two parts").await;
        for row in &rows {
            assert_eq!(stored(store, row).await.unwrap(), b"old", "contract broken: a part of a conflict is written");
        }
    }
    written(store, &new, "all of it").await;
    for row in &rows {
        assert_eq!(stored(store, row).await.unwrap(), b"new", "contract broken: a part is not written");
    }
}

/// Data keys' rows that are taken away: in their version, wholly, and with the rest of the call or not at all.
pub(super) async fn removals(store: &dyn KeyStore) {
    let [one, two, three] = [1, 2, 3].map(|number| key("removed", number));
    let active = index("removed", None, KeyState::Active);
    let put = |key: &RowKey, bytes: &[u8]| write(key, None, bytes);
    written(store, &[put(&one, b"1"), write_key(&two, None, b"2", active.clone()), put(&three, b"3")], "three keys")
        .await;
    conflict(store, &[remove(&one, b"another")], &[0], "the removal of another version").await;
    conflict(store, &[remove(&key("removed", 9), b"1")], &[0], "the removal of a row that is not there").await;
    conflict(store, &[remove(&key("another", 1), b"1")], &[0], "the removal of another tenant's row").await;
    conflict(store, &[remove(&one, b"1"), write(&three, Some(b"another"), b"x")], &[1], "a removal in a conflict")
        .await;
    assert_eq!(stored(store, &one).await.unwrap(), b"1", "contract broken: a row is removed in a conflict");
    // The Active state of one that goes may be another one's in the same call.
    let successor = key("removed", 4);
    let swap = [remove(&two, b"2"), write_key(&successor, None, b"4", active.clone()), remove(&one, b"1")];
    written(store, &swap, "removals, and a successor").await;
    for gone in [&one, &two] {
        assert_eq!(stored(store, gone).await, None, "contract broken: a removed row is there");
    }
    let of = tenant("removed");
    let listed: Vec<_> = store.keys(&of, None, 100).await.unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(listed, [key_id(3), key_id(4)], "contract broken: a removed row is listed");
    let found = store.active(&of, &active.scope, None).await.unwrap().map(|(id, _)| id);
    assert_eq!(found, Some(key_id(4)), "contract broken: the Active key is a removed one");
    conflict(store, &[remove(&one, b"1")], &[0], "a removal that was done").await;
    conflict(store, &[keep(&one, Some(b"1"))], &[0], "a removed row that is kept").await;
    written(store, &[remove(&successor, b"4"), put(&one, b"1")], "a row in the place of a removed one").await;
    assert_eq!(store.active(&of, &active.scope, None).await.unwrap(), None, "contract broken: a removed key is Active");
    assert_eq!(stored(store, &one).await.unwrap(), b"1");
    let many: Vec<RowKey> = (0..300).map(|number| key("removed-many", number)).collect();
    written(store, &many.iter().map(|key| put(key, b"x")).collect::<Vec<_>>(), "many keys").await;
    written(store, &many.iter().map(|key| remove(key, b"x")).collect::<Vec<_>>(), "the removal of many").await;
    assert_eq!(store.keys(&tenant("removed-many"), None, 10).await.unwrap(), [], "contract broken: some are left");
}

/// What no store takes, and takes nothing of.
pub(super) async fn refusals(store: &dyn KeyStore) {
    let (a, b) = (RowKey::Tenant(tenant("refused")), key("refused", 1));
    let with = |key: &RowKey, index| Write {
        key: key.clone(),
        expected: None,
        change: RowChange::Put(b"refused".to_vec(), index),
    };
    let long = vec![0; MAX_ROW + 1];
    for (bad, kind, what) in [
        (
            vec![write(&a, Some(b"1"), b"2"), write(&a, Some(b"2"), b"3")],
            ErrorKind::InvalidArgument,
            "a row named twice",
        ),
        (vec![keep(&a, None), write(&a, None, b"1")], ErrorKind::InvalidArgument, "a row kept and written"),
        (vec![with(&b, None)], ErrorKind::InvalidArgument, "a data key without its index"),
        (
            vec![with(&a, Some(index("any", None, KeyState::Deactivated)))],
            ErrorKind::InvalidArgument,
            "another row with an index",
        ),
        (
            vec![write(&RowKey::Journal(tenant("refused"), 0), None, b"1")],
            ErrorKind::InvalidArgument,
            "entry 0 of a journal",
        ),
        (vec![remove(&a, b"1")], ErrorKind::InvalidArgument, "another row than a data key's taken away"),
        (
            vec![Write { expected: None, ..remove(&b, b"1") }],
            ErrorKind::InvalidArgument,
            "a row taken away in whatever version",
        ),
        (vec![write(&a, None, &long)], ErrorKind::Limit, "more than 16 MiB"),
    ] {
        let end = store.log(None, 0).await.unwrap().end;
        let good = RowKey::Journal(tenant("refused"), 7);
        let writes: Vec<Write> = std::iter::once(write(&good, None, b"good")).chain(bad).collect();
        let refused = store.put(&writes, Some(&|_| b"refused".to_vec())).await;
        assert_eq!(refused.map_err(|e| e.kind()), Err(kind), "contract broken: {what} is not refused");
        for row in [&a, &b, &good, &RowKey::Journal(tenant("refused"), 0)] {
            assert_eq!(stored(store, row).await, None, "contract broken: {what} is refused, and {row:?} written");
        }
        assert_eq!(store.log(None, 0).await.unwrap().end, end, "contract broken: {what} is refused, and logged");
    }
    let row = RowKey::Tenant(tenant("refused"));
    let refused = store.put(&[write(&row, None, b"1")], Some(&|_| long.clone())).await;
    assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Limit), "contract broken: an entry of more than 16 MiB");
    assert_eq!(stored(store, &row).await, None, "contract broken: an entry is refused, and its row written");
    written(store, &[write(&row, None, b"1")], "a row whose entry was refused").await;
}
