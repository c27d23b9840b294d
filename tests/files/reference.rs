//! The Python reference opens our files, and we its.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use strongroom::Suite;

use super::{CHUNK, CONTEXT, keys, open, plain, seal};

struct Reference(Child);

impl Reference {
    fn start() -> Self {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = repository.join("tests/reference");
        let given = std::env::var_os("STRONGROOM_PYTHON").map(PathBuf::from);
        let python = given.unwrap_or_else(|| repository.join(".venv/bin/python"));
        let mut command = Command::new(&python);
        command.arg("strongroom_reference_file.py").current_dir(folder);
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Self(process.unwrap_or_else(|e| panic!("{}: {e}; run scripts/test, which installs it", python.display())))
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.0.stdin.as_mut().unwrap(), "{request}").unwrap();
        let mut answer = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).expect("an answer; is `cryptography` installed? (scripts/test)")
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

fn request(op: &str, suite: Suite, file: &str, bytes: &str) -> Value {
    let mut request = json!({
        "op": op,
        "data_key": hex(b"0123456789abcdef0123456789abcdef"),
        "suite": suite.byte(),
        "region": "eu-central-1",
        "tenant": "acme",
        "scope": [["workspace", "W1"], ["channel", "C9"]],
        "context": [["file", file]],
        "salt": hex(&[7; 24]),
    });
    request[if op == "open_file" { "file" } else { "plaintext" }] = json!(bytes);
    request
}

#[test]
fn both_ways_and_refusals() {
    let mut reference = Reference::start();
    for suite in Suite::ALL {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
            let plaintext = plain(size);
            let sealed = seal(suite, &plaintext);
            let answer = reference.ask(&request("open_file", suite, "F1", &hex(&sealed)));
            assert_eq!(answer["plaintext"], hex(&plaintext), "{suite:?} {size}");
            let answer = reference.ask(&request("seal_file", suite, "F1", &hex(&plaintext)));
            let theirs = base16ct::lower::decode_vec(answer["file"].as_str().unwrap()).unwrap();
            assert!(*open(&keys(suite), &theirs).unwrap() == *plaintext, "{suite:?} {size}");
            let ours = keys(suite).sealer_with_salt(CONTEXT, [7; 24]).unwrap().seal_bytes(&plaintext).unwrap();
            assert!(ours == theirs, "{suite:?} {size}");

            let refused = |answer: Value| answer["refused"].as_str().map(str::to_owned);
            let mut refuse =
                |bytes: &[u8], file: &str| refused(reference.ask(&request("open_file", suite, file, &hex(bytes))));
            assert_eq!(refuse(&sealed, "F2").as_deref(), Some("unopenable"));
            assert_eq!(refuse(&sealed[..sealed.len() - 1], "F1").as_deref(), Some("unopenable"));
            assert_eq!(refuse(&sealed[..110], "F1").as_deref(), Some("malformed"));
            assert_eq!(refuse(&sealed[8..], "F1").as_deref(), Some("malformed"));
        }
    }
}
