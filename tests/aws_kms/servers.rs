//! The servers: what each gets wrong, how it is started, and how it is stopped.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What a server gets wrong. Everything that is not in its list is asserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Unwrapping altered bytes, or under another KEK than the one that wrapped, gives garbage instead of an error.
    UnwrapsToGarbage,
    /// There is no ReEncrypt.
    LacksReEncrypt,
    /// Material that is not wrapped for the key is an internal error, another key's token is taken, the expiry is
    /// forgotten, and AWS's own material can be deleted.
    CarelessWithImports,
    /// IAM is not enforced: everybody may do everything, and assume any role.
    AllowsEverything,
}

/// A KMS look-alike.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) flaws: &'static [Flaw],
    program: &'static str,
    arguments: &'static [&'static str],
    health: &'static str,
}

impl Server {
    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaws.contains(&flaw)
    }
}

const MINISTACK: Server = Server {
    name: "ministack",
    flaws: &[Flaw::UnwrapsToGarbage, Flaw::LacksReEncrypt],
    program: ".venv-ministack/bin/ministack",
    arguments: &[],
    health: "/_ministack/health",
};

const LOCALSTACK: Server = Server {
    name: "localstack",
    flaws: &[Flaw::CarelessWithImports, Flaw::AllowsEverything],
    program: ".venv-localstack/bin/python",
    arguments: &["-m", "localstack.runtime.main"],
    health: "/_localstack/health",
};

/// Set in the second run.
const SECOND_RUN: &str = "STRONGROOM_TEST_LOCALSTACK";

/// Brings up `lo` in a new network, which only has that, and becomes the test. In Python, which is there anyway.
const WITH_LOOPBACK: &str = "
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack('16sh22x', b'lo', IFF_UP | IFF_RUNNING))
os.execv(sys.argv[1], sys.argv[1:])
";

/// Keeps a server for as long as the test process lives: that holds the other end of its standard input, and nobody else,
/// so that the server goes whether the tests end, panic or are killed. Then also removes its folder.
const KEEPER: &str = r#"
folder=$1; shift
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
cat <&3 >/dev/null
kill -9 $server
wait $server
rm -rf "$folder"
"#;

pub(crate) struct Running {
    pub(crate) server: &'static Server,
    pub(crate) url: String,
    /// Its end is the keeper's signal. Never waited for: it outlives every test.
    _keeper: Child,
}

/// The server of this run, started by the first test that asks.
pub(crate) fn running() -> &'static Running {
    static RUNNING: OnceLock<Running> = OnceLock::new();
    RUNNING.get_or_init(|| {
        let server = if std::env::var_os(SECOND_RUN).is_some() { &LOCALSTACK } else { &MINISTACK };
        start(server)
    })
}

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program that `scripts/kms-servers` installs.
pub(crate) fn installed(program: &str) -> PathBuf {
    let path = repository().join(program);
    assert!(path.exists(), "{program} is missing: run scripts/kms-servers, which installs it");
    path
}

fn start(server: &'static Server) -> Running {
    let program = installed(server.program);
    let folder = tempfile::tempdir().unwrap().keep();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let log = folder.join("log");
    let out = std::fs::File::create(&log).unwrap();
    let listen = match server.name {
        "ministack" => port.to_string(),
        _ => format!("127.0.0.1:{port}"),
    };
    let keeper = Command::new("sh")
        .args(["-c", KEEPER, "keeper"])
        .arg(&folder)
        .arg(program)
        .args(server.arguments)
        .current_dir(&folder)
        .envs([("BIND_HOST", "127.0.0.1"), ("IOT_MTLS_ENABLED", "0"), ("AUTH", "true"), ("SERVICES", "kms,iam,sts")])
        .env(if server.name == "ministack" { "GATEWAY_PORT" } else { "GATEWAY_LISTEN" }, listen)
        .envs([("DISABLE_EVENTS", "1"), ("SKIP_SSL_CERT_DOWNLOAD", "1"), ("DNS_ADDRESS", "0")])
        .envs([("LOCALSTACK_VOLUME_DIR", &folder), ("FILESYSTEM_ROOT", &folder)])
        .stdin(Stdio::piped())
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !answers(port, server.health) {
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(began.elapsed() < Duration::from_secs(120), "{} does not start:\n{}", server.name, said());
        std::thread::sleep(Duration::from_millis(20)); // until it answers
    }
    Running { server, url: format!("http://127.0.0.1:{port}"), _keeper: keeper }
}

fn answers(port: u16, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        connection.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// LocalStack listens on all interfaces whatever it is told, so it gets a network that has none but loopback.
pub(crate) fn run_the_suite_on_localstack() {
    if std::env::var_os(SECOND_RUN).is_some() {
        return; // this is that run
    }
    let python = installed(LOCALSTACK.program);
    let is_allowed = |arguments: &[&str]| {
        let tried = Command::new("unshare").args(arguments).arg("true").stderr(Stdio::null()).status();
        tried.expect("unshare (util-linux) is missing").success()
    };
    let as_root: &[&str] = &["--net"];
    let as_user: &[&str] = &["--user", "--map-root-user", "--net"];
    let isolated = [as_root, as_user].into_iter().find(|arguments| is_allowed(arguments));
    let isolated = isolated.expect("neither root nor user namespaces: LocalStack cannot be isolated from the network");
    let ran = Command::new("unshare")
        .args(isolated)
        .arg(python)
        .args(["-c", WITH_LOOPBACK])
        .arg(std::env::current_exe().unwrap())
        .env(SECOND_RUN, "1")
        .output()
        .unwrap();
    let said = format!("{}\n{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "on LocalStack: {}\n{said}", ran.status);
    assert!(said.contains("contract::the_contract_holds ... ok"), "the suite did not run:\n{said}");
}
