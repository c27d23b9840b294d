//! Databases that are down, hang, crash, or are somebody else's.

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Connection;
use strongroom::{ErrorKind, KeyState, KeyStore, PostgresKeyStore, PostgresOptions};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::cluster::{Cluster, Database, execute};
use crate::{key, log, put, put_key, tenant, written};

/// What hangs is broken; far above every timeout that the tests set.
const HANGS: Duration = Duration::from_secs(30);

fn hasty() -> PostgresOptions {
    PostgresOptions::default().timeout(Duration::from_secs(1)).max_connections(2)
}

async fn acme(store: &PostgresKeyStore) -> Result<bool, ErrorKind> {
    let found = timeout(HANGS, store.get(&tenant("acme"))).await.expect("hangs");
    found.map(|found| found.is_some()).map_err(|e| e.kind())
}

#[tokio::test]
async fn a_database_that_is_down_is_unavailable_and_comes_back() {
    let cluster = Arc::new(Cluster::start(&["fsync=off"]));
    let database = Database::on(Arc::clone(&cluster), "").await;
    let store = database.store_with(&hasty()).await;
    written(&store, &[put(&tenant("acme"), None, b"1")]).await;
    store.changed().await; // it listens
    cluster.crash();
    for _ in 0..3 {
        assert_eq!(acme(&store).await, Err(ErrorKind::Unavailable));
        let lease = timeout(HANGS, store.log(Some(0), 10)).await.expect("hangs");
        assert_eq!(lease.map_err(|e| e.kind()), Err(ErrorKind::Unavailable));
    }
    let refused = timeout(HANGS, log(&store)).await.expect("hangs").unwrap_err();
    assert!(refused.kind() == ErrorKind::Unavailable && refused.is_retryable(), "{refused}");
    assert_eq!(
        PostgresKeyStore::connect_with(&database.url, &hasty()).await.err().unwrap().kind(),
        ErrorKind::Unavailable
    );
    cluster.restart();
    timeout(HANGS, async { while acme(&store).await != Ok(true) {} }).await.expect("does not come back");
    timeout(HANGS, async { while store.log(None, 0).await.is_err() {} }).await.expect("the log does not come back");
    timeout(HANGS, store.changed()).await.expect("listens no more");
}

#[tokio::test]
async fn what_was_said_to_be_written_survives_a_crash() {
    // The server's own default would lose what was committed in the last ten seconds.
    let lossy = ["synchronous_commit=off", "wal_writer_delay=10s", "wal_writer_flush_after=1GB"];
    let cluster = Arc::new(Cluster::start(&lossy));
    let database = Database::on(Arc::clone(&cluster), "").await;
    let store = database.store_with(&hasty()).await;
    written(&store, &[put(&tenant("acme"), None, b"1")]).await;
    let mut db = database.raw().await;
    execute(&mut db, "CREATE TABLE bait (n int)").await;
    for n in 0..3 {
        // Alone in its transaction: nobody else's commit takes it to the disk.
        written(&store, &[put_key(n, n, KeyState::Active, None, b"key")]).await;
        execute(&mut db, &format!("INSERT INTO bait VALUES ({n})")).await;
        cluster.crash();
        cluster.restart();
        let stored = timeout(HANGS, async {
            loop {
                if let Ok(stored) = store.get(&key(n)).await {
                    return stored;
                }
            }
        });
        assert_eq!(stored.await.expect("does not come back"), Some(b"key".to_vec()));
        db = database.raw().await;
    }
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM strongroom.bait").fetch_one(&mut db).await.unwrap();
    assert!(kept < 3, "the server lost nothing, so the test showed nothing");
}

#[tokio::test]
async fn a_server_that_never_answers_is_unavailable() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://chat@{}/chat", silent.local_addr().unwrap());
    let refused = timeout(HANGS, PostgresKeyStore::connect_with(&url, &hasty())).await.expect("hangs");
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_call_that_waits_too_long_ends_and_the_connection_is_not_lost() {
    let database = Database::new().await;
    let store = database.store_with(&hasty().max_connections(1)).await;
    written(&store, &[put(&tenant("acme"), None, b"1")]).await;
    let mut other = database.raw().await;
    let mut locking = other.begin().await.unwrap();
    execute(&mut locking, "LOCK TABLE tenants").await;
    assert_eq!(acme(&store).await, Err(ErrorKind::Unavailable));
    let creating = [put(&tenant("acme"), Some(b"1"), b"2"), put_key(1, 1, KeyState::Active, None, b"key")];
    let refused = timeout(HANGS, store.put(&creating, None)).await.expect("hangs").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    locking.rollback().await.unwrap();
    assert_eq!(acme(&store).await, Ok(true));
    written(&store, &creating).await;
}

/// A relay in front of a server that can stop answering without a word, as a machine does that loses its power.
struct Relay {
    url: String,
    silent: tokio::sync::watch::Sender<bool>,
}

impl Relay {
    async fn to(database: &Database) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (from, to) = (listener.local_addr().unwrap().port(), database.cluster.port());
        let silent = tokio::sync::watch::Sender::new(false);
        let speaking = silent.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut heard = speaking.subscribe();
                tokio::spawn(async move {
                    let Ok(server) = tokio::net::TcpStream::connect(("127.0.0.1", to)).await else { return };
                    let ((mut client_in, mut client_out), (mut server_in, mut server_out)) =
                        (client.into_split(), server.into_split());
                    let pass = async {
                        tokio::join!(
                            tokio::io::copy(&mut client_in, &mut server_out),
                            tokio::io::copy(&mut server_in, &mut client_out)
                        )
                    };
                    let silence = async {
                        let _ = heard.wait_for(|silent| *silent).await;
                    };
                    tokio::select! {
                        biased;
                        () = silence => {}
                        _ = pass => return,
                    }
                    // Nothing passes any more, and neither end is told.
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { url: database.url.replace(&format!(":{to}/"), &format!(":{from}/")), silent }
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_unavailable_and_its_connections_are_replaced() {
    let database = Database::new().await;
    let relay = Relay::to(&database).await;
    let store = PostgresKeyStore::connect_with(&relay.url, &hasty()).await.unwrap();
    written(&store, &[put(&tenant("acme"), None, b"1")]).await;
    assert_eq!(acme(&store).await, Ok(true));
    relay.silent.send_replace(true);
    for _ in 0..3 {
        let began = Instant::now();
        let (read, lease) = tokio::join!(acme(&store), timeout(HANGS, store.log(Some(0), 10)));
        assert_eq!(read, Err(ErrorKind::Unavailable));
        assert_eq!(lease.expect("hangs").map_err(|e| e.kind()), Err(ErrorKind::Unavailable));
        assert!(began.elapsed() < Duration::from_secs(10), "the timeout is one second");
    }
    relay.silent.send_replace(false);
    timeout(HANGS, async { while acme(&store).await != Ok(true) {} }).await.expect("waits for dead connections");
    timeout(HANGS, async { while store.log(None, 0).await.is_err() {} }).await.expect("the log waits for a dead one");
}

#[tokio::test]
async fn a_wrong_url_or_login_says_what_is_wrong_without_the_password() {
    let cluster = Cluster::shared();
    let refused = PostgresKeyStore::connect("mysql://s3cret").await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    for (url, says) in [
        (format!("postgres://postgres:s3cret@127.0.0.1:{}/nowhere", cluster.port()), "does not exist"),
        (format!("postgres://nobody:s3cret@127.0.0.1:{}/postgres", cluster.port()), "login"),
        (format!("postgres://postgres:s3cret@127.0.0.1:{}/postgres?sslmode=require", cluster.port()), "sslmode"),
    ] {
        let refused = PostgresKeyStore::connect_with(&url, &hasty()).await.err().unwrap();
        assert!(refused.kind() == ErrorKind::StoreFault && !refused.is_retryable(), "{refused}");
        assert!(refused.to_string().contains(says), "{refused}");
        assert!(!format!("{refused:?}").contains("s3cret"), "{refused:?}");
    }
}

// `?sslmod=verify-full` would connect, and nobody would have checked whom it talks to.
#[tokio::test]
async fn what_a_url_says_in_vain_is_refused() {
    let cluster = Cluster::shared();
    let url = |query: &str| format!("postgres://postgres:s3cret@127.0.0.1:{}/postgres?{query}", cluster.port());
    for (query, names) in [
        ("sslmod=verify-full", "sslmod"),
        ("sslmode=disable&SSLROOTCERT=/ca.pem", "SSLROOTCERT"),
        ("target_session_attrs=read-write", "target_session_attrs"),
        ("sslmode=disable&", "empty"),
        ("sslmode", "sslmode"),
        ("sslmode=verify-full&sslmode=disable", "twice"),
        ("sslmode=verify-full&ssl-mode=disable", "twice"),
        ("ssl%6Dode=disable", "percent"),
    ] {
        let refused = PostgresKeyStore::connect_with(&url(query), &hasty()).await.err();
        let refused = refused.unwrap_or_else(|| panic!("{query} was passed over"));
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{query}: {refused}");
        assert!(refused.to_string().contains(names), "{query}: {refused}");
        assert!(!format!("{refused:?}").contains("s3cret"), "{refused:?}");
    }
    let good = url("sslmode=disable&application_name=chat&options[lock_timeout]=5s&options=-c%20jit=off");
    assert!(PostgresKeyStore::connect_with(&good, &hasty()).await.is_ok());
}

// PgBouncer refuses what it does not track: all but these.
#[tokio::test]
async fn a_pooler_by_session_is_told_only_what_it_takes() {
    let pooler = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://chat@{}/chat?sslmode=disable", pooler.local_addr().unwrap());
    let connecting = tokio::spawn(async move { PostgresKeyStore::connect_with(&url, &hasty()).await.map(drop) });
    let (mut client, _) = timeout(HANGS, pooler.accept()).await.expect("does not connect").unwrap();
    let len = usize::try_from(client.read_u32().await.unwrap()).unwrap();
    let mut startup = vec![0; len - 4];
    client.read_exact(&mut startup).await.unwrap();
    let words: Vec<_> = startup[4..].split(|b| *b == 0).map(|word| std::str::from_utf8(word).unwrap()).collect();
    let names: Vec<_> = words.chunks(2).map(|pair| pair[0]).filter(|name| !name.is_empty()).collect();
    assert!(names.contains(&"user") && names.contains(&"database"), "{words:?}");
    let taken = ["user", "database", "client_encoding", "DateStyle", "TimeZone", "application_name"];
    for name in names {
        assert!(taken.contains(&name), "PgBouncer refuses {name}");
    }
    connecting.abort();
}

#[tokio::test]
async fn tls_is_spoken_and_the_server_s_certificate_checked() {
    let certificates = tempfile::tempdir().unwrap();
    let certificate = |name: &str| {
        let [key, crt] = ["key", "crt"].map(|end| certificates.path().join(format!("{name}.{end}")));
        let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=db \
            -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout";
        let mut openssl = Command::new("openssl");
        let made = openssl.args(request.split_whitespace()).arg(&key).arg("-out").arg(&crt).output();
        assert!(made.expect("openssl is missing; install it").status.success(), "openssl made no certificate");
        [key, crt].map(|path| std::fs::read_to_string(path).unwrap())
    };
    let ([key, crt], [_, stranger]) = (certificate("server"), certificate("stranger"));
    let cluster = Arc::new(Cluster::start(&["fsync=off"]));
    for (file, content) in [("server.key", &key), ("server.crt", &crt)] {
        cluster.put(file, content);
    }
    let database = Database::on(Arc::clone(&cluster), "").await;
    execute(&mut database.raw().await, "ALTER SYSTEM SET ssl = on").await;
    execute(&mut database.raw().await, "SELECT pg_reload_conf()").await;
    let [right, wrong] = [("right", &crt), ("wrong", &stranger)].map(|(name, crt)| {
        let path = certificates.path().join(name);
        std::fs::write(&path, crt).unwrap();
        database.url.replace("disable", &format!("verify-full&sslrootcert={}", path.display()))
    });
    let reloaded = async {
        loop {
            if let Ok(store) = PostgresKeyStore::connect_with(&right, &hasty()).await {
                return store;
            }
        }
    };
    let store = timeout(HANGS, reloaded).await.expect("TLS does not work");
    written(&store, &[put(&tenant("acme"), None, b"1")]).await;
    let encrypted: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND datname = current_database()",
    )
    .fetch_one(&mut database.raw().await)
    .await
    .unwrap();
    assert!(encrypted > 0);
    let refused = PostgresKeyStore::connect_with(&wrong, &hasty()).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::StoreFault);
    assert!(refused.to_string().contains("TLS"), "{refused}");
}
