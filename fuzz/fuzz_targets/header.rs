//! Any bytes: reading a header or an envelope never panics, and what is read writes back to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::limits::{MAX_MESSAGE, OVERHEAD};
use strongroom::testing::vectors::parse_envelope;
use strongroom::{ErrorKind, Header};

fuzz_target!(|bytes: &[u8]| {
    let envelope = parse_envelope(bytes);
    let header = match Header::parse(bytes) {
        Ok(header) => header,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Malformed);
            assert!(envelope.is_err(), "an envelope without a header");
            return;
        }
    };
    let region = header.region().as_bytes();
    let len = u8::try_from(region.len()).expect("a region has at most 32 bytes");
    let written = [&[0xF5, header.suite().byte(), len], region, header.key_id()].concat();
    assert!(bytes.starts_with(&written), "parse then write is not the identity");
    let overhead = OVERHEAD + region.len();
    assert_eq!(envelope.is_ok(), (overhead..=overhead + MAX_MESSAGE).contains(&bytes.len()));
    // Cut anywhere, it is no header; grown, it is the same one.
    for shorter in 0..written.len() {
        assert!(Header::parse(&bytes[..shorter]).is_err());
    }
    assert_eq!(Header::parse(&written).ok(), Some(header));
});
