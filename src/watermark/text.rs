//! Marks as text (FORMAT.md, "The watermark"): a heading, and a line a mark. A mark has one spelling.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::key::id::TenantId;
use crate::key::incarnation::Incarnation;
use crate::key::row_digest::RowDigest;
use crate::watermark::{Mark, Subject};

const HEADING: &str = "strongroom watermark 1";

pub(crate) type Marks = BTreeMap<Subject, Mark>;

pub(crate) fn encode(marks: &Marks) -> String {
    let mut text = format!("{HEADING}\n");
    for (subject, mark) in marks {
        line(&mut text, subject, mark);
    }
    text
}

/// `SUBJECT INCARNATION EPOCH DIGEST`
fn line(text: &mut String, subject: &Subject, mark: &Mark) {
    text.push_str(match subject {
        Subject::Room => "room",
        Subject::Fleet => "fleet",
        Subject::Tenant(_) => "tenant ",
        Subject::Log => "log",
    });
    if let Subject::Tenant(tenant) = subject {
        text.push_str(tenant.as_str());
    }
    let Mark { incarnation, epoch, digest } = mark;
    let _ = writeln!(text, " {incarnation} {epoch} {digest}"); // a string takes everything
}

/// # Errors
/// A sentence that names the line which is not as [`encode`] writes it.
pub(crate) fn decode(text: &[u8]) -> Result<Marks, String> {
    let mut marks = Marks::new();
    let mut number = 0;
    let mut rest = text;
    while number == 0 || !rest.is_empty() {
        number += 1;
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| format!("line {number} has no end"))?;
        let (bytes, behind) = rest.split_at_checked(end + 1).unwrap_or((rest, &[]));
        rest = behind;
        if number == 1 {
            if bytes.strip_suffix(b"\n") != Some(HEADING.as_bytes()) {
                return Err(format!("line 1 is not \"{HEADING}\""));
            }
            continue;
        }
        let (subject, mark) = parsed(bytes).ok_or_else(|| format!("line {number} is not a mark"))?;
        if marks.last_key_value().is_some_and(|(last, _)| *last >= subject) {
            return Err(format!("line {number} is out of order, or there twice"));
        }
        marks.insert(subject, mark);
    }
    Ok(marks)
}

/// A line, if it is just as [`line`] writes it.
fn parsed(bytes: &[u8]) -> Option<(Subject, Mark)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.strip_suffix('\n')?.split(' ');
    let subject = match words.next()? {
        "room" => Subject::Room,
        "fleet" => Subject::Fleet,
        "tenant" => Subject::Tenant(TenantId::new(words.next()?).ok()?),
        "log" => Subject::Log,
        _ => return None,
    };
    let incarnation = Incarnation::try_from(words.next()?.to_owned()).ok()?;
    let epoch = words.next()?.parse().ok()?;
    let digest = RowDigest::try_from(words.next()?.to_owned()).ok()?;
    let mark = Mark { incarnation, epoch, digest };
    let mut again = String::new();
    line(&mut again, &subject, &mark);
    (again == text).then_some((subject, mark))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(epoch: u64) -> Mark {
        let seed = u8::try_from(epoch % 251).unwrap();
        let digest = RowDigest::from_bytes([seed; 32]);
        Mark { incarnation: Incarnation::from_bytes([0xA0; 16]), epoch, digest }
    }

    fn some() -> Marks {
        let tenant = |name| Subject::Tenant(TenantId::new(name).unwrap());
        Marks::from([
            (Subject::Room, mark(1)),
            (Subject::Fleet, mark(0)),
            (tenant("A.b:c@d-e_f"), mark(u64::MAX)),
            (tenant("room"), mark(2)),
            (Subject::Log, mark(10)),
        ])
    }

    #[test]
    fn marks_are_written_and_read_as_format_md_says() {
        let text = encode(&Marks::from([(Subject::Tenant(TenantId::new("acme").unwrap()), mark(7))]));
        let expected = format!("strongroom watermark 1\ntenant acme {} 7 {}\n", "a0".repeat(16), "07".repeat(32));
        assert_eq!(text, expected);
        for marks in [Marks::new(), some()] {
            assert_eq!(decode(encode(&marks).as_bytes()), Ok(marks));
        }
    }

    #[test]
    fn what_is_not_written_so_is_refused_and_its_line_named() {
        let good = encode(&some());
        let lines: Vec<_> = good.lines().collect();
        let [heading, room, fleet, acme, ..] = lines[..] else { panic!("{good}") };
        for (bad, line) in [
            (String::new(), "line 1"),
            (heading.to_owned(), "line 1"),
            ("strongroom watermark 2\n".to_owned(), "line 1"),
            (good.replacen('\n', "\r\n", 1), "line 1"),
            (format!("\u{FEFF}{good}"), "line 1"),
            (good[..good.len() - 1].to_owned(), "line 6 has no end"),
            (good.clone() + "\n", "line 7"),
            (good.clone() + "\0", "line 7"),
            (good.replace(room, ""), "line 2"),
            (good.replace(" 0 ", " 00 "), "line 3"),
            (good.replace(" 0 ", " +0 "), "line 3"),
            (good.replace(" 0 ", " -1 "), "line 3"),
            (good.replace(" 0 ", "  0 "), "line 3"),
            (good.replace(" 0 ", "\t0 "), "line 3"),
            (good.replace(" 18446744073709551615 ", " 18446744073709551616 "), "line 4"),
            (good.replace("fleet a0", "fleet A0"), "line 3"),
            (good.replace("fleet a0", "fleet "), "line 3"),
            (good.replace("fleet", "Fleet"), "line 3"),
            (good.replace("tenant room", "tenant  room"), "line 5"),
            (good.replace("tenant room", "tenant é"), "line 5"),
            (good.replace(acme, &format!("{acme} ")), "line 4"),
            (good.replace(acme, &acme[..acme.len() - 1]), "line 4"),
            (good.replace(acme, &format!("{acme}\n{acme}")), "line 5 is out of order"),
            (good.replace(room, "#").replace(fleet, room).replace('#', fleet), "line 3 is out of order"),
        ] {
            assert_ne!(bad, good);
            let why = decode(bad.as_bytes()).expect_err(&bad);
            assert!(why.starts_with(line), "{why}: {bad}");
        }
        assert!(decode(b"strongroom watermark 1\nroom \xFF\n").unwrap_err().starts_with("line 2"));
    }

    proptest! {
        /// Whatever is read is written back as it was: there is one spelling.
        #[test]
        fn damaged_text_is_refused_or_means_what_it_says(
            at in any::<prop::sample::Index>(), cut in 0..3_usize, put in prop::collection::vec(any::<u8>(), 0..3),
        ) {
            let mut text = encode(&some()).into_bytes();
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, put);
            if let Ok(marks) = decode(&text) {
                prop_assert_eq!(encode(&marks).into_bytes(), text);
            }
        }
    }
}
