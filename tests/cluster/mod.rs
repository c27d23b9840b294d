//! A throwaway PostgreSQL server on loopback, for tests and benches. It refuses to run as root, so root starts it as
//! `postgres`. Stopped, by the process id in its data folder, when the last handle is dropped, panic or not.
#![allow(dead_code)] // each test binary uses what it needs

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use strongroom::{PostgresKeyStore, PostgresOptions};

const MISSING: &str = "these tests start a PostgreSQL server and found no initdb, neither on the PATH nor in \
    /usr/lib/postgresql; install it (Debian, Ubuntu: apt install postgresql; Fedora: dnf install postgresql-server; \
    macOS: brew install postgresql)";

pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    programs: PathBuf,
    as_postgres: bool,
    port: u16,
    settings: Vec<String>,
}

impl Cluster {
    /// One for all tests that run at the same time and neither stop it nor need it on disk.
    pub(crate) fn shared() -> Arc<Self> {
        static RUNNING: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start(&["fsync=off"]));
            *running = Arc::downgrade(&started);
            started
        })
    }

    /// A new one, with these lines of configuration.
    ///
    /// # Panics
    /// If it does not start; the message says why, and what to install.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let programs = programs().expect(MISSING);
        let mut cluster = Self {
            folder: tempfile::tempdir().unwrap(),
            programs,
            as_postgres: output("id", &["-u"]) == "0",
            port: 0,
            settings: settings.iter().map(|&s| s.to_owned()).collect(),
        };
        if cluster.as_postgres {
            let mine = cluster.folder.path().to_str().unwrap();
            assert!(run(Command::new("chown").args(["postgres:postgres", mine])).is_ok(), "there is no user postgres");
        }
        let data = cluster.data();
        let mut initdb = cluster.command("initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C", "-D"]).arg(data);
        run(&mut initdb).unwrap();
        // The port may be taken by somebody else before the server has it.
        let mut started = Err(String::new());
        for _ in 0..5 {
            cluster.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            started = cluster.try_start();
            if started.is_ok() {
                return cluster;
            }
        }
        panic!("PostgreSQL does not start: {}\n{}", started.unwrap_err(), cluster.log());
    }

    /// A standby that follows it, on a port of its own.
    pub(crate) fn standby(&self) -> Self {
        let mut standby = Self {
            folder: tempfile::tempdir().unwrap(),
            programs: self.programs.clone(),
            as_postgres: self.as_postgres,
            port: TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
            settings: self.settings.clone(),
        };
        if standby.as_postgres {
            run(Command::new("chown").arg("postgres:postgres").arg(standby.folder.path())).unwrap();
        }
        let mut copy = standby.command("pg_basebackup");
        copy.args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "-p"]);
        run(copy.arg(self.port.to_string()).arg("-D").arg(standby.data())).unwrap();
        standby.settings.push("hot_standby=on".to_owned());
        standby.restart();
        standby
    }

    /// Makes a standby a primary.
    pub(crate) fn promote(&self) {
        let mut promote = self.command("pg_ctl");
        run(promote.arg("-D").arg(self.data()).args(["-w", "-t", "60", "promote"])).unwrap();
    }

    /// Starts it again, on the same port.
    pub(crate) fn restart(&self) {
        self.try_start().unwrap_or_else(|e| panic!("PostgreSQL does not start again: {e}\n{}", self.log()));
    }

    /// As if the machine had lost power, as far as the server's own memory goes.
    pub(crate) fn crash(&self) {
        self.try_stop().unwrap();
    }

    /// A URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A file in the data folder, which only the server may read.
    pub(crate) fn put(&self, name: &str, content: &str) {
        let path = self.data().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if self.as_postgres {
            run(Command::new("chown").arg("postgres:postgres").arg(path)).unwrap();
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// One of PostgreSQL's programs, run by who may run it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if self.as_postgres {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn try_start(&self) -> Result<(), String> {
        let mut options = format!("-c listen_addresses=127.0.0.1 -p {} -c unix_socket_directories=", self.port);
        for setting in &self.settings {
            options.push_str(" -c ");
            options.push_str(setting);
        }
        let mut start = self.command("pg_ctl");
        start.arg("-D").arg(self.data()).arg("-l").arg(self.folder.path().join("log"));
        run(start.args(["-w", "-t", "60", "-o", &options, "start"]))
    }

    fn try_stop(&self) -> Result<(), String> {
        let mut stop = self.command("pg_ctl");
        run(stop.arg("-D").arg(self.data()).args(["-w", "-t", "60", "-m", "immediate", "stop"]))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may be stopped already; and a panic here would end the process.
        let _ = self.try_stop();
    }
}

/// An empty database of a cluster, with connections that bypass the key store.
pub(crate) struct Database {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) url: String,
}

impl Database {
    pub(crate) async fn new() -> Self {
        Self::on(Cluster::shared(), "").await
    }

    /// With more words for CREATE DATABASE.
    pub(crate) async fn on(cluster: Arc<Cluster>, with: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        execute(&mut connect(&cluster.url("postgres")).await, &format!("CREATE DATABASE {name} {with}")).await;
        Self { url: cluster.url(&name), cluster }
    }

    pub(crate) async fn raw(&self) -> PgConnection {
        connect(&self.url).await
    }

    pub(crate) async fn store(&self) -> PostgresKeyStore {
        PostgresKeyStore::connect(&self.url).await.unwrap()
    }

    pub(crate) async fn store_with(&self, options: &PostgresOptions) -> PostgresKeyStore {
        PostgresKeyStore::connect_with(&self.url, options).await.unwrap()
    }
}

pub(crate) async fn connect(url: &str) -> PgConnection {
    url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap()
}

/// Runs statements of the test's own; says how many rows they changed.
pub(crate) async fn execute(db: &mut PgConnection, statements: &str) -> u64 {
    sqlx::raw_sql("SET search_path TO strongroom").execute(&mut *db).await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(db).await;
    done.unwrap_or_else(|e| panic!("{statements}: {e}")).rows_affected()
}

fn run(command: &mut Command) -> Result<(), String> {
    let done = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(format!("{command:?}: {}\n{}{}", done.status, said(&done.stdout), said(&done.stderr)))
}

fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// The folder of PostgreSQL's programs: Debian keeps them off the PATH, one folder a version.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let newest_first = versions.into_iter().rev().map(|(_, folder)| folder);
    // Where the file itself is: not all programs need to be linked beside it.
    let real = |folder: PathBuf| folder.join("initdb").canonicalize().ok();
    on_path.into_iter().chain(newest_first).find_map(real).and_then(|initdb| Some(initdb.parent()?.to_owned()))
}
